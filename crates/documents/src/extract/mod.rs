//! Extracts sections of text from the bytes of a file.
//!
//! Runs the parsers in the calling process. For untrusted files use
//! [`child::Reader`](crate::child::Reader).

mod archive;
mod data_url;
mod email;
mod epub;
mod format;
mod headings;
mod html;
mod markdown;
mod office;
mod opendocument;
mod outlook;
mod output;
mod pdf;
mod rtf;
mod table;
mod text;

use pdfium::Pdfium;

use crate::ErrorCode;
use crate::ExtractError;
use crate::Loss;
use crate::Section;

use format::Format;
use output::Output;

pub use pdf::load_pdfium;

pub const HEAD_BYTES: u64 = text::SAMPLE_BYTES as u64;

/// Refuses a file of an unsupported type, as [`extract`] would, by its name and its first
/// [`HEAD_BYTES`]. Parses nothing, so it is safe for untrusted files.
pub fn check_head(name: &str, head: &[u8]) -> Result<(), ExtractError> {
    match format::check_head(name, head) {
        Err(error) if error.code() == ErrorCode::UnsupportedFile => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Passes every section of the file to `write`, in order. Returns how much text is lost, if that is
/// considerable.
///
/// The content determines the file type, and the name only where the content is ambiguous. `pdfium`
/// parses PDF files, or is the reason why they cannot be parsed. Text and headings are limited to
/// `max_text_bytes`, plus a constant for every section.
///
/// # Errors
/// If there is no text, or an error of a parser or of `write`. Sections may have been written
/// before.
pub fn extract(
    name: &str,
    bytes: Vec<u8>,
    pdfium: Result<Pdfium, ExtractError>,
    max_text_bytes: usize,
    write: &mut dyn FnMut(Section) -> Result<(), ExtractError>,
) -> Result<Option<Loss>, ExtractError> {
    let mut output = Output::new(max_text_bytes, write);
    match format::detect(name, &bytes)? {
        Format::Pdf => return pdf::extract(&pdfium?, &bytes, &mut output),
        Format::Epub => epub::extract(bytes, &mut output),
        Format::OpenDocument => opendocument::extract(bytes, &mut output),
        Format::Email => email::extract(&bytes, &mut output),
        Format::OutlookMessage => outlook::extract(&bytes, &mut output),
        Format::Rtf => rtf::extract(&bytes, &mut output),
        Format::Office(kind) => office::extract(kind, bytes, &mut output),
        Format::Html => {
            html::extract(&bytes, &mut output)?;
            return match output.is_empty() {
                true => Err(ExtractError::Empty),
                false => Ok(None),
            };
        }
        Format::Markdown => {
            let text = data_url::without_contents(&text::decode(&bytes)?);
            markdown::extract(&text, &mut output)
        }
        Format::Text => output.push(None, &[], &text::decode(&bytes)?),
    }?;
    if output.is_empty() {
        return Err(ExtractError::NoText);
    }
    Ok(None)
}
