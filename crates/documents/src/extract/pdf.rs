//! PDF with the built-in parser.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use pdf_oxide::PdfDocument;
use pdf_oxide::error::Error;

use crate::ExtractError;

use super::output::Output;

/// Extraction stops after this many consecutive unreadable pages: a damaged file may claim a
/// billion pages.
const MAX_UNREADABLE_PAGES: usize = 100;

/// Writes a section for every page. Unreadable pages are left out, unless all are.
pub(super) fn extract(bytes: Vec<u8>, output: &mut Output<'_>) -> Result<(), ExtractError> {
    let document = PdfDocument::from_bytes(bytes).map_err(parse_error)?;
    // The parser opens files that need a password, with empty pages. Files with an empty password,
    // such as those that only forbid printing, are decrypted automatically.
    if document.is_encrypted() && !document.is_authenticated() {
        return Err(ExtractError::Encrypted);
    }
    let count = document.page_count().map_err(parse_error)?;
    let mut unreadable = 0;
    let mut consecutive = 0;
    for index in 0..count {
        // If the parser panics, only that page is lost.
        match catch_unwind(AssertUnwindSafe(|| document.extract_text(index))) {
            Ok(Ok(text)) => {
                consecutive = 0;
                output.push(u32::try_from(index + 1).ok(), &[], &text)?;
            }
            Ok(Err(Error::EncryptedPdf)) => return Err(ExtractError::Encrypted),
            Ok(Err(_)) | Err(_) => {
                unreadable += 1;
                consecutive += 1;
                if consecutive >= MAX_UNREADABLE_PAGES {
                    break;
                }
            }
        }
    }
    if output.is_empty() && unreadable > 0 {
        return Err(damaged());
    }
    Ok(())
}

fn parse_error(error: Error) -> ExtractError {
    match error {
        Error::EncryptedPdf => ExtractError::Encrypted,
        _ => damaged(),
    }
}

fn damaged() -> ExtractError {
    ExtractError::Damaged {
        expected: "a PDF".to_owned(),
    }
}
