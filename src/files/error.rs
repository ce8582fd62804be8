//! Errors of files and uploads.

use crate::domain::file::UploadStatus;
use crate::domain::ids::{FileId, PartId, UploadId};
use crate::files::blobs::BlobError;
use crate::store::StoreError;
use crate::store::projects::QuotaError;

/// Why an operation on a file or an upload failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The content could not be stored or read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The project would store more bytes than its quota.
    #[error("the project may store {limit} bytes")]
    QuotaExceeded {
        /// The quota in bytes.
        limit: i64,
    },
    /// The upload took so long that maintenance has already deleted the pending blob.
    #[error("the content arrived too slowly and was deleted")]
    GivenUp,
    /// The file was deleted while its content was stored.
    #[error("file {0} was deleted")]
    Gone(FileId),
    /// There is no such upload.
    #[error("upload {0} not found")]
    NoUpload(UploadId),
    /// The upload is no longer pending.
    #[error("upload {id} is {}", status.as_str())]
    NotPending {
        /// The upload.
        id: UploadId,
        /// Its status.
        status: UploadStatus,
    },
    /// The upload has no such part.
    #[error("part {0} not found in this upload")]
    NoPart(PartId),
    /// A part is listed more than once.
    #[error("duplicate part {0}")]
    PartTwice(PartId),
    /// The parts together exceed the maximum size of an upload.
    #[error("the parts exceed the maximum size of an upload")]
    UploadFull,
    /// The size of the parts differs from the declared one.
    #[error("{bytes} bytes instead of {declared}")]
    WrongSize {
        /// Declared size in bytes.
        declared: i64,
        /// Size of the parts together in bytes.
        bytes: i64,
    },
    /// The checksum of the parts differs from the client's.
    #[error("checksum {md5} instead of {expected}")]
    WrongChecksum {
        /// The client's MD5 checksum.
        expected: String,
        /// The MD5 checksum of the content.
        md5: String,
    },
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
