//! Excel workbooks: a table for each sheet, with numbers as Excel shows them.

use std::collections::HashSet;

use office_oxide::xlsx::Cell;
use office_oxide::xlsx::CellValue;
use office_oxide::xlsx::Worksheet;
use office_oxide::xlsx::XlsxDocument;

use crate::ExtractError;

use super::super::output::Output;
use super::super::table;
use super::super::table::Row;
use super::on_one_line;

const SECONDS_PER_DAY: f64 = 86_400.0;

pub(super) fn extract(
    workbook: &XlsxDocument,
    output: &mut Output<'_>,
) -> Result<(), ExtractError> {
    let dates = workbook.date_style_indices();
    for sheet in &workbook.worksheets {
        let mut text = table::render(&rows(workbook, &dates, sheet));
        for comment in sheet.comments.iter() {
            let (cell, note) = (&comment.cell_ref, on_one_line(&comment.text));
            text.push_str(&format!("\n{cell}: {note}\n"));
        }
        for shape in sheet.text_shapes.iter() {
            text.push_str(&format!("\n{}\n", shape.text));
        }
        for words in &sheet.chart_text {
            text.push_str(&format!("\n{words}\n"));
        }
        output.push(None, std::slice::from_ref(&sheet.name), &text)?;
    }
    Ok(())
}

fn rows(workbook: &XlsxDocument, dates: &HashSet<u32>, sheet: &Worksheet) -> Vec<Row> {
    sheet
        .rows
        .iter()
        .map(|row| {
            row.cells
                .iter()
                .map(|cell| (cell.reference.col, text_of(workbook, dates, cell)))
                .filter(|(_, text)| !text.is_empty())
                .collect::<Row>()
        })
        .filter(|row| !row.is_empty())
        .collect()
}

fn text_of(workbook: &XlsxDocument, dates: &HashSet<u32>, cell: &Cell) -> String {
    let format = cell
        .style_index
        .zip(workbook.styles.as_ref())
        .and_then(|(index, styles)| styles.number_format_for(index));
    let is_date = cell.style_index.is_some_and(|index| dates.contains(&index));
    let own = match (&cell.value, format) {
        (CellValue::Number(number), Some(format)) if is_date => time(*number, format),
        (CellValue::Number(number), Some(format)) => padded(*number, format),
        _ => None,
    };
    let text = own.unwrap_or_else(|| {
        let mut text = String::new();
        workbook.write_cell_value_fast(cell, &mut text, dates);
        text
    });
    on_one_line(&text)
}

/// A time of day, or a duration, which may be longer than a day. `None` for dates.
fn time(days: f64, format: &str) -> Option<String> {
    let code = code_of(format);
    let is_duration = ["[h", "[m", "[s"].iter().any(|unit| code.contains(unit));
    let is_date = code.contains(['y', 'd']) || !code.contains(['h', 's']);
    if is_date && !is_duration {
        return None;
    }
    let seconds = (days.abs() * SECONDS_PER_DAY).round();
    // Beyond that, floating-point numbers have no seconds.
    if seconds > 1e15 {
        return None;
    }
    let seconds = seconds as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let hours = if is_duration { hours } else { hours % 24 };
    let sign = if days < 0.0 { "-" } else { "" };
    Some(if code.contains('s') || seconds > 0 {
        format!("{sign}{hours:02}:{minutes:02}:{seconds:02}")
    } else {
        format!("{sign}{hours:02}:{minutes:02}")
    })
}

/// A whole number with leading zeros, by a format such as `00000` or `000-00`.
fn padded(number: f64, format: &str) -> Option<String> {
    let code = code_of(format);
    let zeros = code.chars().filter(|&c| c == '0').count();
    let is_padding = zeros > 1 && code.chars().all(|c| matches!(c, '0' | '-' | ' ' | '/'));
    if !is_padding || number < 0.0 || number.fract() != 0.0 || number > 1e15 {
        return None;
    }
    let mut digits = format!("{:0zeros$}", number as u64);
    let rest = digits.split_off(digits.len() - zeros + 1);
    let mut rest = rest.chars();
    let mut is_first = true;
    let mut out = String::new();
    for character in code.chars() {
        match (character, is_first) {
            ('0', true) => {
                out.push_str(&digits);
                is_first = false;
            }
            ('0', false) => out.extend(rest.next()),
            (literal, _) => out.push(literal),
        }
    }
    Some(out)
}

/// The first section of a format code, in lower case, without quotation marks, escapes and locales.
fn code_of(format: &str) -> String {
    let mut code = String::new();
    let mut characters = format.chars();
    let mut is_quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            ';' => break,
            '\\' => code.extend(characters.next().filter(|c| matches!(c, '-' | ' ' | '/'))),
            '[' => {
                let content: String = characters.by_ref().take_while(|&c| c != ']').collect();
                let content = content.to_lowercase();
                if content.chars().all(|c| matches!(c, 'h' | 'm' | 's')) {
                    code.push_str(&format!("[{content}]"));
                }
            }
            character => code.extend(character.to_lowercase()),
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_shown_as_such() {
        for (days, format, shown) in [
            (14.5 / 24.0, "h:mm", Some("14:30")),
            (14.5 / 24.0, "h:mm AM/PM", Some("14:30")),
            (1.0 / SECONDS_PER_DAY, "h:mm", Some("00:00:01")),
            (26.0 / 24.0 + 5.0 / 1440.0, "[h]:mm", Some("26:05")),
            (90.0 / 1440.0, "[mm]:ss", Some("01:30:00")),
            (0.25, "mm:ss", Some("06:00:00")),
            (45_000.5, "yyyy-mm-dd h:mm", None),
            (45_000.0, "mmm", None),
            (0.5, "[$-409]h:mm", Some("12:00")),
        ] {
            assert_eq!(time(days, format).as_deref(), shown, "{format}");
        }
    }

    #[test]
    fn leading_zeros_are_kept() {
        for (number, format, shown) in [
            (1067.0, "00000", Some("01067")),
            (123_456.0, "00000", Some("123456")),
            (4711.0, "000\\-000", Some("004-711")),
            (7.0, "0", None),
            (7.5, "00", None),
            (7.0, "0.00", None),
        ] {
            assert_eq!(padded(number, format).as_deref(), shown, "{format}");
        }
    }
}
