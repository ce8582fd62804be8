//! Errors of blob storage.

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("nothing is stored under {name}")]
    Missing { name: String },
    /// The incoming stream ended early or was malformed.
    #[error("the incoming data ended early: {0}")]
    Body(String),
    #[error("the incoming data came too slowly")]
    Slow,
    #[error("{0:?} is not a location for files: expected a folder or s3://bucket/prefix")]
    Location(String),
    /// The disk of the folder is full, or its user's disk quota is used up.
    #[error("there is no space left in the folder of files, {folder}")]
    Full { folder: String },
    #[error("the folder of files: {0}")]
    Folder(#[from] std::io::Error),
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
