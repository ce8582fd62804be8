//! Blob storage: file content in a local folder or in a bucket of an S3-compatible service.
//!
//! Content is streamed and never held in memory whole. A blob appears with all its bytes, synced to
//! disk, or not at all; it is written once and never changed.

mod bucket;
mod error;
mod folder;
mod write;

use std::io::SeekFrom;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetOptions, GetResultPayload, ObjectStore, ObjectStoreExt as _};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use tokio_util::task::TaskTracker;

pub use bucket::BucketKey;
pub use error::BlobError;

/// Size in bytes of the parts in which a local file is written. At most two parts per upload are in
/// memory: one that is being written and one that is being received.
const FOLDER_PART: usize = 1 << 20;

/// The same for buckets: S3 accepts at most 10,000 parts of at least 5 MiB.
const BUCKET_PART: usize = 8 << 20;

/// Size in bytes of the chunks in which a local file is read.
const READ_CHUNK: usize = 128 << 10;

pub struct Contents {
    /// Size of the whole blob in bytes, even if only a range was requested.
    pub size: u64,
    pub stream: BoxStream<'static, Result<Bytes, BlobError>>,
}

#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// `None` for buckets.
    folder: Option<Arc<PathBuf>>,
    part_size: usize,
    cleanups: TaskTracker,
}

impl Blobs {
    /// Opens a folder, which is created for this user alone if it does not exist, or
    /// `s3://bucket/prefix`.
    ///
    /// A process that is killed during an upload leaves parts in the bucket; a lifecycle rule that
    /// aborts incomplete multipart uploads deletes them.
    pub fn open(location: &str, key: BucketKey) -> Result<Self, BlobError> {
        match location.split_once("://") {
            Some(("s3", location)) => Ok(Self {
                store: Arc::new(bucket::open(location, key)?),
                folder: None,
                part_size: BUCKET_PART,
                cleanups: TaskTracker::new(),
            }),
            None if !location.is_empty() => {
                let (store, folder) = folder::open(location.into())?;
                Ok(Self {
                    store: Arc::new(store),
                    folder: Some(Arc::new(folder)),
                    part_size: FOLDER_PART,
                    cleanups: TaskTracker::new(),
                })
            }
            Some(_) | None => Err(BlobError::Location(location.to_owned())),
        }
    }

    /// Stores content of at most `limit` bytes under a name that was never used before, and returns
    /// its size in bytes. If it fails or is dropped, nothing is left behind.
    pub async fn put<S>(&self, name: &str, content: S, limit: u64) -> Result<u64, BlobError>
    where
        S: Stream<Item = Result<Bytes, BlobError>> + Send,
    {
        let (store, cleanups) = (&*self.store, &self.cleanups);
        let written = write::write(store, cleanups, self.part_size, name, content, limit).await;
        written.map_err(|error| match &self.folder {
            Some(folder) if folder::is_out_of_space(&error) => BlobError::Full {
                folder: folder.display().to_string(),
            },
            _ => error,
        })
    }

    pub async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Contents, BlobError> {
        let options = GetOptions {
            range: range.map(Into::into),
            ..GetOptions::default()
        };
        let blob = self.store.get_opts(&Path::from(name), options).await?;
        let (size, range) = (blob.meta.size, blob.range);
        let stream = match blob.payload {
            // object_store reads local files in very small chunks, each on another thread.
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(SeekFrom::Start(range.start)).await?;
                let bytes = file.take(range.end - range.start);
                ReaderStream::with_capacity(bytes, READ_CHUNK)
                    .map_err(BlobError::from)
                    .boxed()
            }
            GetResultPayload::Stream(stream) => stream.map_err(BlobError::from).boxed(),
        };
        Ok(Contents { size, stream })
    }

    pub async fn size(&self, name: &str) -> Result<Option<u64>, BlobError> {
        match self.store.head(&Path::from(name)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a blob of at most `limit` bytes into memory.
    pub async fn read(&self, name: &str, limit: u64) -> Result<Bytes, BlobError> {
        let contents = self.get(name, None).await?;
        if contents.size > limit {
            return Err(BlobError::TooLarge { limit });
        }
        let mut all = Vec::with_capacity(usize::try_from(contents.size).unwrap_or(0));
        let mut stream = contents.stream;
        while let Some(bytes) = stream.try_next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }

    pub fn chain(
        &self,
        names: Vec<String>,
    ) -> impl Stream<Item = Result<Bytes, BlobError>> + Send + use<> {
        let blobs = self.clone();
        stream::iter(names)
            .then(move |name| {
                let blobs = blobs.clone();
                async move { blobs.get(&name, None).await.map(|contents| contents.stream) }
            })
            .try_flatten()
    }

    /// Deletes a blob, and what a killed process may have left of it. It need not exist.
    pub async fn delete(&self, name: &str) -> Result<(), BlobError> {
        match self.store.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match &self.folder {
            Some(folder) => folder::delete_temporary(folder, name).await,
            None => Ok(()),
        }
    }

    /// Runs a task that cleans up after a dropped writer, which cannot wait for it. Without a
    /// runtime nothing is done: the process is about to end.
    pub fn clean_up(&self, task: impl Future<Output = ()> + Send + 'static) {
        write::spawn(&self.cleanups, task);
    }

    pub async fn close(&self) {
        self.cleanups.close();
        self.cleanups.wait().await;
    }

    /// Checks that blobs can be written, read and deleted.
    pub async fn probe(&self) -> Result<(), BlobError> {
        let name = format!("probe-{}", uuid::Uuid::new_v4().simple());
        let written = Bytes::from_static(b"probe");
        self.put(&name, stream::iter([Ok(written.clone())]), 5)
            .await?;
        let read = self.read(&name, 5).await;
        self.delete(&name).await?;
        if read? == written {
            Ok(())
        } else {
            Err(BlobError::Body(
                "the blob storage returned other bytes than were written".to_owned(),
            ))
        }
    }
}

#[cfg(test)]
mod tests;
