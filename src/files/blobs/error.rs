//! Errors of blob storage.

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The content exceeds the limit.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// Maximum size in bytes.
        limit: u64,
    },
    /// There is no blob with this name.
    #[error("nothing is stored under {name}")]
    Missing {
        /// Name of the blob.
        name: String,
    },
    /// The incoming stream ended early or was malformed.
    #[error("the incoming data ended early: {0}")]
    Body(String),
    /// The incoming stream stalled for too long.
    #[error("the incoming data came too slowly")]
    Slow,
    /// The configured location is neither a folder nor `s3://bucket/prefix`.
    #[error("{0:?} is not a location for files: expected a folder or s3://bucket/prefix")]
    Location(String),
    /// The disk of the folder is full, or its user's disk quota is used up.
    #[error("there is no space left in the folder of files, {folder}")]
    Full {
        /// Path of the folder.
        folder: String,
    },
    /// The folder cannot be used.
    #[error("the folder of files: {0}")]
    Folder(#[from] std::io::Error),
    /// The blob storage failed.
    #[error("blob storage: {0}")]
    Store(#[source] object_store::Error),
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { path, .. } => Self::Missing { name: path },
            error => Self::Store(error),
        }
    }
}
