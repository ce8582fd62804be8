//! Word, Excel and PowerPoint, in their current and older formats.

mod workbook;

use std::collections::HashSet;
use std::io::Cursor;

use office_oxide::Document;
use office_oxide::DocumentFormat;
use office_oxide::OfficeError;
use office_oxide::core::Error as CoreError;
use office_oxide::doc::DocError;
use office_oxide::docx::DocxError;
use office_oxide::ir;
use office_oxide::ir::Element;
use office_oxide::ppt::PptError;
use office_oxide::pptx::PptxError;
use office_oxide::xls::XlsError;
use office_oxide::xlsx::XlsxError;

use crate::ExtractError;

use super::headings::HeadingPath;
use super::output::Output;

/// Maximum nesting depth; deeper lists and tables are left out.
const MAX_DEPTH: usize = 100;

pub(super) fn extract(
    kind: DocumentFormat,
    bytes: Vec<u8>,
    output: &mut Output<'_>,
) -> Result<(), ExtractError> {
    let document = Document::from_reader(Cursor::new(bytes), kind)
        .map_err(|error| parse_error(kind, error))?;
    if let Some(workbook) = document.as_xlsx() {
        return workbook::extract(workbook, output);
    }
    let sections = document.to_ir().sections;
    // The parser detects the format from the container; it may differ from `kind`.
    match document.format() {
        DocumentFormat::Docx | DocumentFormat::Doc => write_prose(&sections, output),
        DocumentFormat::Pptx | DocumentFormat::Ppt => (1..)
            .zip(&sections)
            .try_for_each(|(number, slide)| write_slide(number, slide, output)),
        DocumentFormat::Xlsx | DocumentFormat::Xls => sections
            .iter()
            .try_for_each(|sheet| write_sheet(sheet, output)),
    }
}

/// Writes a section for every heading. Each header and footer is written once, where it first
/// applies.
fn write_prose(sections: &[ir::Section], output: &mut Output<'_>) -> Result<(), ExtractError> {
    let mut path = HeadingPath::default();
    let mut text = String::new();
    let mut seen = HashSet::new();
    for section in sections {
        let margins = [
            &section.first_page_header,
            &section.header,
            &section.even_page_header,
            &section.first_page_footer,
            &section.footer,
            &section.even_page_footer,
        ];
        for margin in margins.into_iter().flatten() {
            let margin = render_all(&margin.content);
            if !margin.is_empty() && seen.insert(margin.clone()) {
                text.push_str(&margin);
            }
        }
        for element in &section.elements {
            if let Element::Heading(heading) = element {
                output.push(None, path.titles(), &text)?;
                text.clear();
                path.enter(
                    heading.clamped_level(),
                    ir::inline_to_text(&heading.content),
                );
            }
            render(element, 0, &mut text);
        }
    }
    output.push(None, path.titles(), &text)
}

fn write_slide(
    number: u32,
    slide: &ir::Section,
    output: &mut Output<'_>,
) -> Result<(), ExtractError> {
    let mut text = render_all(&slide.elements);
    if let Some(notes) = &slide.speaker_notes {
        let notes = render_all(notes);
        if !notes.trim().is_empty() {
            text.push_str("Notes:\n\n");
            text.push_str(&notes);
        }
    }
    let title: Vec<String> = slide.title.iter().cloned().collect();
    output.push(Some(number), &title, &text)
}

fn write_sheet(sheet: &ir::Section, output: &mut Output<'_>) -> Result<(), ExtractError> {
    let name: Vec<String> = sheet.title.iter().cloned().collect();
    output.push(None, &name, &render_all(&sheet.elements))
}

fn render_all(elements: &[Element]) -> String {
    let mut text = String::new();
    for element in elements {
        render(element, 0, &mut text);
    }
    text
}

/// Appends the element as Markdown with an empty line after it. Nothing is escaped, because the
/// readers are models and a search index, not browsers.
fn render(element: &Element, depth: usize, out: &mut String) {
    if depth > MAX_DEPTH {
        return;
    }
    match element {
        Element::Heading(heading) => {
            let prefix = "#".repeat(usize::from(heading.clamped_level()));
            let title = ir::inline_to_text(&heading.content);
            out.push_str(&format!("{prefix} {}\n\n", on_one_line(&title)));
        }
        Element::Paragraph(paragraph) => {
            out.push_str(&ir::inline_to_text(&paragraph.content));
            out.push_str("\n\n");
        }
        Element::List(list) => {
            render_list(list, depth, 0, out);
            out.push('\n');
        }
        Element::Table(table) => {
            render_table(table, depth, out);
            out.push('\n');
        }
        Element::TextBox(text_box) => {
            for element in &text_box.content {
                render(element, depth + 1, out);
            }
        }
        Element::Footnote(note) | Element::Endnote(note) => {
            for element in &note.content {
                render(element, depth + 1, out);
            }
        }
        Element::CodeBlock(code) => out.push_str(&format!("```\n{}\n```\n\n", code.content)),
        Element::Image(image) => {
            if let Some(alt_text) = image
                .alt_text
                .as_deref()
                .filter(|alt| !alt.trim().is_empty())
            {
                out.push_str(&format!("[{}]\n\n", on_one_line(alt_text)));
            }
        }
        // Lines, shapes and breaks have no text.
        _ => {}
    }
}

fn render_list(list: &ir::List, depth: usize, indent: usize, out: &mut String) {
    if depth > MAX_DEPTH {
        return;
    }
    for (number, item) in (list.start_number.unwrap_or(1)..).zip(&list.items) {
        let mut text = String::new();
        for element in &item.content {
            render(element, depth + 1, &mut text);
        }
        let marker = if list.ordered {
            format!("{number}.")
        } else {
            "-".to_owned()
        };
        out.push_str(&format!("{:indent$}{marker} {}\n", "", text.trim()));
        if let Some(nested) = &item.nested {
            render_list(nested, depth + 1, indent + 2, out);
        }
    }
}

/// Appends a Markdown table without empty rows and without empty cells at the end of a row, of
/// which spreadsheets have thousands.
fn render_table(table: &ir::Table, depth: usize, out: &mut String) {
    let mut is_first = true;
    for row in &table.rows {
        let mut cells: Vec<String> = row
            .cells
            .iter()
            .map(|cell| {
                let mut text = String::new();
                for element in &cell.content {
                    render(element, depth + 1, &mut text);
                }
                on_one_line(&text)
            })
            .collect();
        while cells.last().is_some_and(String::is_empty) {
            cells.pop();
        }
        if cells.is_empty() {
            continue;
        }
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
        if is_first {
            out.push_str(&format!("|{}\n", " --- |".repeat(cells.len())));
            is_first = false;
        }
    }
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn parse_error(kind: DocumentFormat, error: OfficeError) -> ExtractError {
    match error {
        OfficeError::Doc(DocError::Encrypted)
        | OfficeError::Xls(XlsError::Encrypted)
        | OfficeError::Ppt(PptError::Encrypted) => ExtractError::Encrypted,
        OfficeError::Panic(_) => ExtractError::Crashed,
        OfficeError::Core(CoreError::DecompressionLimit { .. } | CoreError::PackageLimit(_))
        | OfficeError::Docx(DocxError::Core(
            CoreError::DecompressionLimit { .. } | CoreError::PackageLimit(_),
        ))
        | OfficeError::Xlsx(XlsxError::Core(
            CoreError::DecompressionLimit { .. } | CoreError::PackageLimit(_),
        ))
        | OfficeError::Pptx(PptxError::Core(
            CoreError::DecompressionLimit { .. } | CoreError::PackageLimit(_),
        )) => ExtractError::TooLarge,
        _ => ExtractError::Damaged {
            expected: match kind {
                DocumentFormat::Docx | DocumentFormat::Doc => "a Word document",
                DocumentFormat::Xlsx | DocumentFormat::Xls => "an Excel workbook",
                DocumentFormat::Pptx | DocumentFormat::Ppt => "a PowerPoint presentation",
            }
            .to_owned(),
        },
    }
}
