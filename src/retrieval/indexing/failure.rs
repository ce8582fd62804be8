//! Why a file could not be indexed.

use documents::{ErrorCode, ExtractError};

use crate::domain::text::without_nul;
use crate::domain::vector_store::{IndexError, IndexErrorCode};
use crate::files::blobs::BlobError;
use crate::retrieval::embeddings::EmbedError;
use crate::store::StoreError;

/// The `last_error` of a file whose chunks or result the database rejects.
pub(super) const NOT_STORED: &str =
    "The file could not be indexed: what was read of it cannot be stored.";

#[derive(Debug, thiserror::Error)]
pub(super) enum IndexFailure {
    #[error("{}", .0.message)]
    Permanent(IndexError),
    #[error("{0}")]
    Transient(String),
    /// Another process has claimed the file, or it was cancelled or deleted.
    #[error("lease lost")]
    LeaseLost,
}

impl IndexFailure {
    pub(super) fn permanent(code: IndexErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Permanent(IndexError { code, message })
    }

    /// A permanent failure that is not the file's fault.
    pub(super) fn server_error(message: impl Into<String>) -> Self {
        Self::permanent(IndexErrorCode::ServerError, message)
    }
}

impl From<StoreError> for IndexFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => Self::LeaseLost,
            error if error.is_transient() => Self::Transient(error.to_string()),
            error => {
                tracing::error!(
                    error.cause = %error,
                    "the database refused the chunks of a file, marking it as failed: {error}"
                );
                Self::server_error(NOT_STORED)
            }
        }
    }
}

impl From<EmbedError> for IndexFailure {
    fn from(error: EmbedError) -> Self {
        match error {
            EmbedError::Unavailable { .. } => Self::Transient(error.to_string()),
            EmbedError::Refused { .. } => Self::server_error(error.to_string()),
        }
    }
}

impl From<BlobError> for IndexFailure {
    fn from(error: BlobError) -> Self {
        match error {
            // Imported without contents. They may be uploaded later, and then it is indexed.
            BlobError::Missing { .. } => Self::Permanent(IndexError::without_contents()),
            error => Self::Transient(format!("its contents cannot be read: {error}")),
        }
    }
}

impl From<ExtractError> for IndexFailure {
    fn from(error: ExtractError) -> Self {
        if let ExtractError::Internal(reason) = &error {
            return Self::Transient(format!("the process that reads documents {reason}"));
        }
        let code = match error.code() {
            ErrorCode::UnsupportedFile => IndexErrorCode::UnsupportedFile,
            ErrorCode::InvalidFile => IndexErrorCode::InvalidFile,
            ErrorCode::ServerError => IndexErrorCode::ServerError,
        };
        Self::permanent(code, without_nul(error.message()))
    }
}
