//! Tables as commands answer with.

use super::answer as line;
use crate::domain::Timestamp;

/// Writes a heading and rows in columns.
pub(super) fn answer<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) {
    let heading = heading.map(str::to_owned);
    let rows: Vec<[String; N]> = std::iter::once(heading).chain(rows).collect();
    for row in &rows {
        let cells = std::iter::zip(row, 0..).map(|(cell, column)| {
            let width = rows.iter().map(|row| row[column].chars().count()).max();
            format!("{cell:<width$}  ", width = width.unwrap_or_default())
        });
        line(cells.collect::<String>().trim_end());
    }
}

/// A time, to the minute.
pub(super) fn time(time: Timestamp) -> String {
    time.format("%Y-%m-%d %H:%M").to_string()
}
