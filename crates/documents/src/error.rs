//! Why a file gave no text.

use serde::Deserialize;
use serde::Serialize;

/// Why a file gave no text. Shown as text, it is a message for the person who uploaded the file;
/// only [`ExtractError::Internal`] is for the operator (see [`ExtractError::message`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ExtractError {
    /// It has no bytes, or nothing but white space.
    #[error("The file is empty.")]
    Empty,
    /// It is of a kind that holds no text, or none that can be read.
    #[error("The file type is not supported: the file is {found}.")]
    Unsupported {
        /// What it is, with an article.
        found: String,
    },
    /// A password is needed to read it.
    #[error(
        "The file could not be parsed because it is encrypted. Remove its password and upload it again."
    )]
    Encrypted,
    /// It is not what its name or its first bytes say, or part of it is missing.
    #[error("The file could not be parsed: it is damaged, or not {expected}.")]
    Damaged {
        /// What it should have been, with an article.
        expected: String,
    },
    /// It could be read, and there is no text in it.
    #[error(
        "No text was found in the file. If its pages are pictures (scans), recognise their text (OCR) and upload it again."
    )]
    NoText,
    /// It has more bytes than [`child::Limits`](crate::child::Limits) allow.
    #[error("The file could not be parsed because it is too large.")]
    TooLarge,
    /// It holds more text than [`child::Limits`](crate::child::Limits) allow.
    #[error("The file could not be parsed because it holds too much text.")]
    TooMuchText,
    /// The time was up.
    #[error(
        "The file could not be parsed because it took too long. It may be damaged or too large; try to split it."
    )]
    TookTooLong,
    /// The memory was used up.
    #[error(
        "The file could not be parsed because it needed too much memory. It may be damaged or too large; try to split it."
    )]
    NeededTooMuchMemory,
    /// Its parts are nested deeper than a parser can follow.
    #[error("The file could not be parsed because its content is nested too deeply.")]
    NestedTooDeeply,
    /// A parser gave up in a way that its author did not foresee.
    #[error("The file could not be parsed: it is damaged, or in a form that cannot be read.")]
    Crashed,
    /// Not the file's fault: it may well be read another time.
    #[error("could not extract the text of a file: {0}")]
    Internal(String),
}

/// What the API calls the `code` of a vector store file's `last_error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Files of this kind can not be searched.
    UnsupportedFile,
    /// This file can not be searched.
    InvalidFile,
    /// The server failed; the file may be all right.
    ServerError,
}

impl ErrorCode {
    /// As it stands in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedFile => "unsupported_file",
            Self::InvalidFile => "invalid_file",
            Self::ServerError => "server_error",
        }
    }
}

impl ExtractError {
    /// The `code` of the file's `last_error`.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unsupported { .. } => ErrorCode::UnsupportedFile,
            Self::Empty
            | Self::Encrypted
            | Self::Damaged { .. }
            | Self::NoText
            | Self::TooLarge
            | Self::TooMuchText
            | Self::TookTooLong
            | Self::NeededTooMuchMemory
            | Self::NestedTooDeeply
            | Self::Crashed => ErrorCode::InvalidFile,
            Self::Internal(_) => ErrorCode::ServerError,
        }
    }

    /// The `message` of the file's `last_error`: says what can be done, and nothing of the server.
    pub fn message(&self) -> String {
        match self {
            Self::Internal(_) => {
                "Sorry, something went wrong while the file was read. You can add it again."
                    .to_owned()
            }
            told => told.to_string(),
        }
    }
}
