//! PDF with PDFium, if the operator has configured its library: faster, and with a better text
//! order.

use std::path::Path;

use pdfium_render::prelude::Pdfium;
use pdfium_render::prelude::PdfiumError;
use pdfium_render::prelude::PdfiumInternalError;

use crate::ExtractError;

use super::output::Output;
use super::pdf;

/// Falls back to the built-in parser, which repairs some damaged files.
pub(super) fn extract(
    library: &Path,
    bytes: Vec<u8>,
    output: &mut Output<'_>,
) -> Result<(), ExtractError> {
    let bindings = Pdfium::bind_to_library(library).map_err(|error| {
        ExtractError::Internal(format!(
            "cannot load PDFium from {}: {error}",
            library.display()
        ))
    })?;
    let pdfium = Pdfium::new(bindings);
    let document = match pdfium.load_pdf_from_byte_slice(&bytes, None) {
        Ok(document) => document,
        Err(PdfiumError::PdfiumLibraryInternalError(PdfiumInternalError::PasswordError)) => {
            return Err(ExtractError::Encrypted);
        }
        Err(_) => return pdf::extract(bytes.clone(), output),
    };
    for (number, page) in (1..).zip(document.pages().iter()) {
        if let Ok(text) = page.text() {
            output.push(Some(number), &[], &text.all())?;
        }
    }
    Ok(())
}
