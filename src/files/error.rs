//! Errors of files and uploads.

use crate::domain::file::UploadStatus;
use crate::domain::ids::{FileId, PartId, UploadId};
use crate::files::blobs::BlobError;
use crate::store::StoreError;
use crate::store::projects::QuotaError;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the project may store {limit} bytes")]
    QuotaExceeded { limit: i64 },
    /// The upload took so long that maintenance has already deleted the pending blob.
    #[error("the content arrived too slowly and was deleted")]
    GivenUp,
    /// The file was deleted while its content was stored.
    #[error("file {0} was deleted")]
    Gone(FileId),
    #[error("upload {0} not found")]
    NoUpload(UploadId),
    #[error("upload {id} is {}", status.as_str())]
    NotPending { id: UploadId, status: UploadStatus },
    #[error("part {0} not found in this upload")]
    NoPart(PartId),
    #[error("duplicate part {0}")]
    PartTwice(PartId),
    #[error("the parts exceed the maximum size of an upload")]
    UploadFull,
    #[error("{bytes} bytes instead of {declared}")]
    WrongSize { declared: i64, bytes: i64 },
    #[error("checksum {md5} instead of {expected}")]
    WrongChecksum { expected: String, md5: String },
}

impl From<QuotaError> for FileError {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::Exceeded { limit } => Self::QuotaExceeded { limit },
            QuotaError::Store(error) => Self::Store(error),
        }
    }
}

impl From<sqlx::Error> for FileError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
