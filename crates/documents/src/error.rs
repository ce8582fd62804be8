//! Errors of text extraction.

use serde::Deserialize;
use serde::Serialize;

/// Why no text could be extracted from a file. The text of each error is for the person who
/// uploaded the file, except that of [`ExtractError::Internal`], which is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ExtractError {
    /// The file has no bytes, or only white space.
    #[error("The file is empty.")]
    Empty,
    #[error("The file type is not supported: the file is {found}.")]
    Unsupported {
        /// The detected file type, with an article.
        found: String,
    },
    /// A PDF, and PDFium is not installed.
    #[error(
        "The file type is not supported: the server has no PDF parser. Its operator can install it with `make setup`, or name a PDFium library in ASSISTD_PDFIUM; then add the file again."
    )]
    NoPdfParser,
    #[error(
        "The file could not be parsed because it is encrypted. Remove its password and upload it again."
    )]
    Encrypted,
    #[error("The file could not be parsed: it is damaged, or not {expected}.")]
    Damaged { expected: String },
    #[error(
        "No text was found in the file. If its pages are pictures (scans), recognise their text (OCR) and upload it again."
    )]
    NoText,
    /// The glyphs of the file's fonts cannot be mapped to characters.
    #[error(
        "The text of the file cannot be read: its fonts do not identify their characters. Recognise its text (OCR) and upload it again."
    )]
    Unidentified,
    /// The file has more bytes than [`child::Limits`](crate::child::Limits) allow.
    #[error("The file could not be parsed because it is too large.")]
    TooLarge,
    #[error("The file could not be parsed because it holds too much text.")]
    TooMuchText,
    /// The CPU or wall-clock time limit was reached.
    #[error(
        "The file could not be parsed because it took too long. It may be damaged or too large; try to split it."
    )]
    TookTooLong,
    #[error(
        "The file could not be parsed because it needed too much memory. It may be damaged or too large; try to split it."
    )]
    NeededTooMuchMemory,
    #[error("The file could not be parsed because its content is nested too deeply.")]
    NestedTooDeeply,
    #[error("The file could not be parsed: it is damaged, or in a form that cannot be read.")]
    Crashed,
    /// An error of the server; extraction may succeed later.
    #[error("could not extract the text of a file: {0}")]
    Internal(String),
}

/// The `code` of a vector store file's `last_error` in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    UnsupportedFile,
    InvalidFile,
    /// The server failed; the file may be valid.
    ServerError,
}

impl ErrorCode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedFile => "unsupported_file",
            Self::InvalidFile => "invalid_file",
            Self::ServerError => "server_error",
        }
    }
}

impl ExtractError {
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unsupported { .. } | Self::NoPdfParser => ErrorCode::UnsupportedFile,
            Self::Empty
            | Self::Encrypted
            | Self::Damaged { .. }
            | Self::NoText
            | Self::Unidentified
            | Self::TooLarge
            | Self::TooMuchText
            | Self::TookTooLong
            | Self::NeededTooMuchMemory
            | Self::NestedTooDeeply
            | Self::Crashed => ErrorCode::InvalidFile,
            Self::Internal(_) => ErrorCode::ServerError,
        }
    }

    /// The `message` of the file's `last_error`. It contains no details of the server.
    pub fn message(&self) -> String {
        match self {
            Self::Internal(_) => {
                "Sorry, something went wrong while the file was read. You can add it again."
                    .to_owned()
            }
            error => error.to_string(),
        }
    }
}
