//! Bytes and a file name → text with page numbers and headings.
//!
//! Runs in the calling process and trusts the parsers: for files of strangers use
//! [`child::Reader`](crate::child::Reader).

mod format;
mod headings;
mod html;
mod markdown;
mod office;
mod output;
mod pdf;
mod pdfium;
mod text;

use std::path::Path;

use crate::ErrorCode;
use crate::ExtractError;
use crate::Section;

use format::Format;
use output::Output;

/// How much of the beginning of a file [`check_head`] needs.
pub const HEAD_BYTES: u64 = text::SAMPLE_BYTES as u64;

/// Refuses a file as [`extract`] will, going by its name and its first [`HEAD_BYTES`], if it is of a
/// kind that is not read. Parses nothing, so it is safe for files of strangers.
pub fn check_head(name: &str, head: &[u8]) -> Result<(), ExtractError> {
    match format::check_head(name, head) {
        Err(error) if error.code() == ErrorCode::UnsupportedFile => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Hands every section of the file to `write`, in order, and says why where there is none.
///
/// What the file is, its content decides, and only where that leaves a choice its name. Some
/// sections may have been written when an error is found. An error of `write` ends the work and
/// is returned. `pdfium` is a library that reads PDF files, instead of the parser that is built in. Text and headings are worth at most `max_text_bytes`, with a little added for
/// every section.
pub fn extract(
    name: &str,
    bytes: Vec<u8>,
    pdfium: Option<&Path>,
    max_text_bytes: usize,
    write: &mut dyn FnMut(Section) -> Result<(), ExtractError>,
) -> Result<(), ExtractError> {
    let mut output = Output::new(max_text_bytes, write);
    match format::detect(name, &bytes)? {
        Format::Pdf => match pdfium {
            Some(library) => pdfium::extract(library, bytes, &mut output),
            None => pdf::extract(bytes, &mut output),
        },
        Format::Office(kind) => office::extract(kind, bytes, &mut output),
        Format::Html => html::extract(&bytes, &mut output),
        Format::Markdown => markdown::extract(&text::decode(&bytes)?, &mut output),
        Format::Text => output.push(None, &[], &text::decode(&bytes)?),
    }?;
    if output.is_empty() {
        return Err(ExtractError::NoText);
    }
    Ok(())
}
