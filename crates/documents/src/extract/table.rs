//! Tables of which most cells may be empty.

use std::collections::BTreeSet;

/// A row: the positions and texts of the cells that are not empty.
pub(super) type Row = Vec<(u32, String)>;

/// A Markdown table without the columns in which no row has a cell: a single cell may be thousands
/// of columns away from the others.
pub(super) fn render(rows: &[Row]) -> String {
    let columns: BTreeSet<u32> = rows.iter().flatten().map(|(column, _)| *column).collect();
    let columns: Vec<u32> = columns.into_iter().collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        out.push('|');
        let mut written = 0;
        for (column, text) in row {
            let position = columns.partition_point(|used| used < column);
            out.push_str(&" |".repeat(position.saturating_sub(written)));
            out.push_str(&format!(" {text} |"));
            written = position + 1;
        }
        out.push('\n');
        if number == 0 {
            out.push_str(&format!("|{}\n", " --- |".repeat(written)));
        }
    }
    out
}
