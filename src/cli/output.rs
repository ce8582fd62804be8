//! Output of commands: results on standard output, notes on standard error.
//!
//! Write errors are ignored: a closed pipe, as with `| head`, is no reason to fail.

use std::fmt;
use std::io::Write as _;

use crate::domain::Timestamp;

pub(super) fn print(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

pub(super) fn note(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub(super) fn print_table<const N: usize>(
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
        print(cells.collect::<String>().trim_end());
    }
}

pub(super) fn to_minute(time: Timestamp) -> String {
    time.format("%Y-%m-%d %H:%M").to_string()
}
