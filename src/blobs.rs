//! File contents: a local folder, or a bucket that speaks S3. Knows names and bytes, nothing else.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use std::sync::Arc;

/// What can go wrong with file contents.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// More bytes came than allowed.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The most that is allowed.
        limit: u64,
    },
    /// There is nothing under this name.
    #[error("nothing is stored under {name}")]
    Missing {
        /// The name.
        name: String,
    },
    /// The sender stopped or sent nonsense.
    #[error("the incoming data ended early: {0}")]
    Body(String),
    /// The store failed.
    #[error("blob store: {0}")]
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
