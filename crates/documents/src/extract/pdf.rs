//! PDF: a section for every page.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use pdf_oxide::PdfDocument;
use pdf_oxide::error::Error;

use crate::ExtractError;

use super::output::Output;

/// A damaged file may claim a billion pages: after so many unreadable ones in a row there is no
/// more to come.
const MAX_UNREADABLE_PAGES: usize = 100;

/// Unreadable pages are left out, as long as there are others.
pub(super) fn extract(bytes: Vec<u8>, output: &mut Output<'_>) -> Result<(), ExtractError> {
    let document = PdfDocument::from_bytes(bytes).map_err(refusal)?;
    // A file that needs a password is no error to the parser; its pages are then empty. One with
    // an empty password, as files that only forbid printing have, opens by itself.
    if document.is_encrypted() && !document.is_authenticated() {
        return Err(ExtractError::Encrypted);
    }
    let count = document.page_count().map_err(refusal)?;
    let mut unreadable = 0;
    let mut in_a_row = 0;
    for index in 0..count {
        // A page that makes the parser panic costs that page.
        match catch_unwind(AssertUnwindSafe(|| document.extract_text(index))) {
            Ok(Ok(text)) => {
                in_a_row = 0;
                output.push(u32::try_from(index + 1).ok(), &[], &text)?;
            }
            Ok(Err(Error::EncryptedPdf)) => return Err(ExtractError::Encrypted),
            Ok(Err(_)) | Err(_) => {
                unreadable += 1;
                in_a_row += 1;
                if in_a_row >= MAX_UNREADABLE_PAGES {
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

fn refusal(error: Error) -> ExtractError {
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
