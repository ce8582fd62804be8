//! Aligned Markdown tables.

use std::ops::RangeInclusive;

/// A table whose columns in `numbers` are aligned to the right.
pub(crate) fn table(lines: &[Vec<String>], numbers: &RangeInclusive<usize>) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let mut widths = vec![0; columns];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for (n, line) in lines.iter().enumerate() {
        out.push('|');
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            if numbers.contains(&column) {
                out.push_str(&format!(" {pad}{cell} |"));
            } else {
                out.push_str(&format!(" {cell}{pad} |"));
            }
        }
        out.push('\n');
        if n == 0 {
            write_rule(&widths, numbers, &mut out);
        }
    }
    out
}

/// The line between the head and the body.
fn write_rule(widths: &[usize], numbers: &RangeInclusive<usize>, out: &mut String) {
    out.push('|');
    for (column, width) in widths.iter().enumerate() {
        let end = if numbers.contains(&column) { ':' } else { '-' };
        out.push_str(&format!("{}{end}|", "-".repeat(width + 1)));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_to_the_right() {
        let lines = [["figure", "ms"], ["…", "10.5"]];
        let lines = lines.map(|line| line.map(str::to_owned).to_vec());
        let expected = "| figure |   ms |\n|--------|-----:|\n| …      | 10.5 |\n";
        assert_eq!(table(&lines, &(1..=1)), expected);
    }
}
