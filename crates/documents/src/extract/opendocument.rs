//! OpenDocument texts, spreadsheets and presentations.

use std::mem;

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::events::BytesStart;
use quick_xml::events::Event;

use crate::ExtractError;

use super::archive::Archive;
use super::archive::attribute;
use super::archive::character;
use super::headings::HeadingPath;
use super::output::Output;
use super::table;
use super::table::Row;

const MANIFEST: &str = "META-INF/manifest.xml";
const CONTENT: &str = "content.xml";

/// Copies that are made of a repeated row or cell with text. Empty ones are repeated up to the end
/// of a sheet.
const MAX_REPEATED: u32 = 1000;

pub(super) fn extract(bytes: Vec<u8>, output: &mut Output<'_>) -> Result<(), ExtractError> {
    let mut archive = Archive::open(bytes, "an OpenDocument file")?;
    if archive.contains(MANIFEST) && archive.read_text(MANIFEST)?.contains("encryption-data") {
        return Err(ExtractError::Encrypted);
    }
    let content = archive.read_text(CONTENT)?;
    let mut reader = Reader::from_str(&content);
    let mut document = Writer::new(output);
    loop {
        match reader.read_event().map_err(|_| archive.damaged())? {
            Event::Start(element) => document.start(&element)?,
            Event::Empty(element) => {
                document.start(&element)?;
                document.end(element.name().as_ref())?;
            }
            Event::End(element) => document.end(element.name().as_ref())?,
            Event::Text(text) => document.text(&text.xml_content(XmlVersion::Implicit1_0)),
            Event::CData(text) => document.text(&text),
            Event::GeneralRef(reference) => {
                if let Some(character) = character(&reference) {
                    document.text(character.encode_utf8(&mut [0; 4]));
                }
            }
            Event::Eof => return document.finish(),
            _ => {}
        }
    }
}

/// Turns elements into sections.
struct Writer<'a, 'b> {
    output: &'a mut Output<'b>,
    path: HeadingPath,
    /// The slide.
    page: Option<u32>,
    is_workbook: bool,
    heading_level: u8,
    /// The text of the current section.
    section: String,
    /// The paragraphs that are open: a text box or a note is inside of one.
    paragraphs: Vec<String>,
    lists: usize,
    tables: usize,
    rows: Vec<Row>,
    row: Row,
    row_repeated: u32,
    column: u32,
    cell: String,
    cell_repeated: u32,
    /// Depth inside of an element whose text is not shown.
    hidden: usize,
}

impl<'a, 'b> Writer<'a, 'b> {
    fn new(output: &'a mut Output<'b>) -> Self {
        Self {
            output,
            path: HeadingPath::default(),
            page: None,
            is_workbook: false,
            heading_level: 1,
            section: String::new(),
            paragraphs: Vec::new(),
            lists: 0,
            tables: 0,
            rows: Vec::new(),
            row: Row::new(),
            row_repeated: 1,
            column: 0,
            cell: String::new(),
            cell_repeated: 1,
            hidden: 0,
        }
    }

    fn start(&mut self, element: &BytesStart<'_>) -> Result<(), ExtractError> {
        let name = element.name();
        let name = name.as_ref();
        if self.hidden > 0 || name == "text:tracked-changes" {
            self.hidden += 1;
            return Ok(());
        }
        let number = |name| attribute(element, name).and_then(|it| it.parse::<u32>().ok());
        match name {
            "text:p" => self.paragraphs.push(String::new()),
            "text:h" => {
                let level = number("text:outline-level").unwrap_or(1).clamp(1, 6);
                self.heading_level = u8::try_from(level).unwrap_or(1);
                self.paragraphs.push(String::new());
            }
            "text:s" => self.text(&" ".repeat(number("text:c").unwrap_or(1).min(100) as usize)),
            "text:tab" => self.text("\t"),
            "text:line-break" => self.text("\n"),
            "text:list" => self.lists += 1,
            "draw:page" => {
                self.end_section()?;
                self.page = Some(self.page.unwrap_or(0) + 1);
            }
            "presentation:notes" => self.section.push_str("Notes:\n\n"),
            "office:spreadsheet" => self.is_workbook = true,
            "table:table" => {
                self.tables += 1;
                if self.is_workbook && self.tables == 1 {
                    let name = attribute(element, "table:name").unwrap_or_default();
                    self.path.enter(1, name);
                }
            }
            "table:table-row" if self.tables == 1 => {
                self.row_repeated = number("table:number-rows-repeated").unwrap_or(1);
                self.column = 0;
            }
            "table:table-cell" | "table:covered-table-cell" if self.tables == 1 => {
                self.cell_repeated = number("table:number-columns-repeated").unwrap_or(1);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, name: &str) -> Result<(), ExtractError> {
        if self.hidden > 0 {
            self.hidden -= 1;
            return Ok(());
        }
        match name {
            "text:p" | "text:h" => self.end_paragraph(name == "text:h")?,
            "text:list" => {
                self.lists = self.lists.saturating_sub(1);
                if self.lists == 0 && self.tables == 0 {
                    self.section.push('\n');
                }
            }
            "draw:page" => self.end_section()?,
            "table:table-cell" | "table:covered-table-cell" if self.tables == 1 => self.end_cell(),
            "table:table-row" if self.tables == 1 => {
                let row = mem::take(&mut self.row);
                if !row.is_empty() {
                    let copies = self.row_repeated.min(MAX_REPEATED) as usize;
                    self.rows.extend(std::iter::repeat_n(row, copies));
                }
            }
            "table:table" => {
                self.tables = self.tables.saturating_sub(1);
                if self.tables == 0 {
                    let rows = mem::take(&mut self.rows);
                    self.section.push_str(&table::render(&rows));
                    self.section.push('\n');
                    if self.is_workbook {
                        self.end_section()?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        if let Some(paragraph) = self.paragraphs.last_mut().filter(|_| self.hidden == 0) {
            paragraph.push_str(text);
        }
    }

    fn end_paragraph(&mut self, is_heading: bool) -> Result<(), ExtractError> {
        let text = self.paragraphs.pop().unwrap_or_default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(());
        }
        if let Some(around) = self.paragraphs.last_mut() {
            around.push_str(&format!(" {text} "));
        } else if self.tables > 0 {
            self.cell.push_str(&format!(" {text}"));
        } else if is_heading {
            self.end_section()?;
            self.path.enter(self.heading_level, text.to_owned());
            let prefix = "#".repeat(usize::from(self.heading_level));
            self.section.push_str(&format!("{prefix} {text}\n\n"));
        } else if self.lists > 0 {
            let indent = "  ".repeat((self.lists - 1).min(20));
            self.section.push_str(&format!("{indent}- {text}\n"));
        } else {
            self.section.push_str(&format!("{text}\n\n"));
        }
        Ok(())
    }

    fn end_cell(&mut self) {
        let words: Vec<&str> = self.cell.split_whitespace().collect();
        let text = words.join(" ");
        self.cell.clear();
        if !text.is_empty() {
            let copies = self.cell_repeated.min(MAX_REPEATED);
            let columns = self.column..self.column.saturating_add(copies);
            self.row
                .extend(columns.map(|column| (column, text.clone())));
        }
        self.column = self.column.saturating_add(self.cell_repeated);
    }

    fn end_section(&mut self) -> Result<(), ExtractError> {
        let section = mem::take(&mut self.section);
        self.output.push(self.page, self.path.titles(), &section)
    }

    fn finish(mut self) -> Result<(), ExtractError> {
        self.end_section()
    }
}
