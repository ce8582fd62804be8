//! PDF, by PDFium.

mod line;

use std::path::Path;

use pdfium::Character;
use pdfium::Document;
use pdfium::OpenError;
use pdfium::Page;
use pdfium::PageText;
use pdfium::Pdfium;

use crate::ExtractError;
use crate::Loss;

use super::output::Output;

/// Extraction stops after this many consecutive unreadable pages: a damaged file may claim a
/// billion pages.
const MAX_UNREADABLE_PAGES: u32 = 100;

/// Loads PDFium.
///
/// # Errors
/// The error of every PDF file, if there is no library or it cannot be loaded.
pub fn load_pdfium(library: Option<&Path>) -> Result<Pdfium, ExtractError> {
    let library = library.ok_or(ExtractError::NoPdfParser)?;
    Pdfium::load(library).map_err(|error| {
        ExtractError::Internal(format!(
            "cannot load PDFium from {}: {error}",
            library.display()
        ))
    })
}

/// Writes a section for every page with text. Returns what is lost, if that is considerable.
pub(super) fn extract(
    pdfium: &Pdfium,
    bytes: &[u8],
    output: &mut Output<'_>,
) -> Result<Option<Loss>, ExtractError> {
    match pdfium.open(bytes) {
        Ok(document) => {
            let loss = write_pages(&document, output)?;
            match output.is_empty() {
                true => Err(reason(loss)),
                false => Ok(Some(loss).filter(Loss::is_considerable)),
            }
        }
        Err(OpenError::Encrypted) => Err(ExtractError::Encrypted),
        Err(OpenError::Damaged) => {
            let repaired = with_trailer(bytes).ok_or_else(damaged)?;
            let document = pdfium.open(&repaired).map_err(|_| damaged())?;
            let loss = write_pages(&document, output)?;
            match output.is_empty() {
                true => Err(damaged()),
                false => Ok(Some(loss).filter(Loss::is_considerable)),
            }
        }
    }
}

/// Why a file has no text.
fn reason(loss: Loss) -> ExtractError {
    if loss.pages == 0 {
        ExtractError::Empty
    } else if loss.unidentified > 0 {
        ExtractError::Unidentified
    } else if loss.damaged > loss.pictures {
        damaged()
    } else {
        ExtractError::NoText
    }
}

fn write_pages(document: &Document<'_>, output: &mut Output<'_>) -> Result<Loss, ExtractError> {
    let mut loss = Loss::default();
    let mut consecutive = 0;
    for index in 0..document.page_count() {
        let Some(page) = document.page(index) else {
            loss.pages += 1;
            loss.damaged += 1;
            consecutive += 1;
            if consecutive >= MAX_UNREADABLE_PAGES {
                break;
            }
            continue;
        };
        consecutive = 0;
        match read(&page) {
            PageContent::Text(text) => output.push(Some(index + 1), &[], &text)?,
            PageContent::Blank => continue,
            PageContent::Picture => loss.pictures += 1,
            PageContent::Unidentified => loss.unidentified += 1,
        }
        loss.pages += 1;
    }
    Ok(loss)
}

/// What a page shows.
enum PageContent {
    Blank,
    Text(String),
    /// Something, but no text.
    Picture,
    /// Mostly glyphs for which the fonts name no characters.
    Unidentified,
}

fn read(page: &Page<'_>) -> PageContent {
    let (mut text, unknown) = page.text().map(|text| collect(&text)).unwrap_or_default();
    let visible = text.chars().filter(|c| !c.is_whitespace()).count();
    if unknown > 0 && unknown * 2 >= visible {
        return PageContent::Unidentified;
    }
    for note in page.notes() {
        text.push('\n');
        text.push_str(&note);
    }
    if !text.trim().is_empty() {
        PageContent::Text(text)
    } else if page.is_blank() {
        PageContent::Blank
    } else {
        PageContent::Picture
    }
}

/// The characters of a page as a string, and the number of those that are unknown. Words that a
/// line end divides are joined.
fn collect(text: &PageText<'_>) -> (String, usize) {
    let mut out = String::new();
    let mut unknown = 0;
    let mut after_hyphen = false;
    for character in text.characters() {
        let character = match character {
            Character::Known(character) => character,
            Character::Unknown => {
                unknown += 1;
                char::REPLACEMENT_CHARACTER
            }
            Character::Hyphen => {
                after_hyphen = true;
                continue;
            }
        };
        if after_hyphen && !character.is_lowercase() {
            out.push('-');
        }
        after_hyphen = false;
        out.push(character);
    }
    let lines: Vec<String> = line::compose_accents(&out)
        .lines()
        .map(line::order_phrases)
        .collect();
    (lines.join("\n"), unknown)
}

/// The file with an end that refers to its catalog. PDFium finds the objects of a file without its
/// table of objects, but not the one to begin with: that is named at the end of the file, which a
/// truncated file has lost. `None` if there is no catalog outside of compressed objects.
fn with_trailer(bytes: &[u8]) -> Option<Vec<u8>> {
    let catalog = find_last(bytes, b"/Catalog")?;
    let keyword = find_last(&bytes[..catalog], b" obj")?;
    // "12 0 obj": the object's number and generation.
    let (before, generation) = trailing_number(&bytes[..keyword])?;
    let (_, number) = trailing_number(before.strip_suffix(b" ")?)?;
    let end = format!(
        "\nendstream\nendobj\ntrailer\n<</Root {number} {generation} R>>\nstartxref\n0\n%%EOF"
    );
    Some([bytes, end.as_bytes()].concat())
}

fn find_last(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .rposition(|window| window == pattern)
}

/// Splits a number off the end.
fn trailing_number(bytes: &[u8]) -> Option<(&[u8], u32)> {
    let digits = bytes
        .iter()
        .rev()
        .take_while(|b| b.is_ascii_digit())
        .count();
    let (before, number) = bytes.split_at(bytes.len() - digits);
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((before, number))
}

fn damaged() -> ExtractError {
    ExtractError::Damaged {
        expected: "a PDF".to_owned(),
    }
}
