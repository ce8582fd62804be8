//! Writing a blob from a stream, in parts, without holding the whole blob in memory.

use std::pin::pin;

use bytes::Bytes;
use futures::future::try_join;
use futures::{Stream, StreamExt as _};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload, PutPayloadMut};
use tokio_util::task::TaskTracker;

use crate::files::blobs::error::BlobError;

/// Stores a stream of at most `limit` bytes under a name, in parts of `part_size` bytes. Returns
/// the number of bytes. If it fails or is dropped, nothing is left behind; the deletion of a
/// dropped write is tracked in `cleanups`.
pub(super) async fn write<S>(
    store: &dyn ObjectStore,
    cleanups: &TaskTracker,
    part_size: usize,
    name: &str,
    content: S,
    limit: u64,
) -> Result<u64, BlobError>
where
    S: Stream<Item = Result<Bytes, BlobError>> + Send,
{
    let path = Path::from(name);
    let mut parts = Parts {
        content: pin!(content),
        buffered: Bytes::new(),
        part_size,
        size: 0,
        limit,
    };
    let first = parts.next().await?;
    if first.content_length() < part_size {
        store.put(&path, first).await?;
        return Ok(parts.size);
    }
    let mut upload = UploadGuard {
        upload: Some(store.put_multipart(&path).await?),
        cleanups: cleanups.clone(),
    };
    match upload.send(first, &mut parts).await {
        Ok(()) => Ok(parts.size),
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

struct Parts<S> {
    content: S,
    /// Bytes that were received beyond the previous part.
    buffered: Bytes,
    part_size: usize,
    size: u64,
    limit: u64,
}

impl<S: Stream<Item = Result<Bytes, BlobError>> + Unpin> Parts<S> {
    /// The next part of exactly `part_size` bytes. A shorter one, which may be empty, is the last.
    async fn next(&mut self) -> Result<PutPayload, BlobError> {
        let mut part = PutPayloadMut::new();
        while part.content_length() < self.part_size {
            if self.buffered.is_empty() {
                let Some(bytes) = self.content.next().await.transpose()? else {
                    break;
                };
                self.size += bytes.len() as u64;
                if self.size > self.limit {
                    return Err(BlobError::TooLarge { limit: self.limit });
                }
                self.buffered = bytes;
            }
            let missing = (self.part_size - part.content_length()).min(self.buffered.len());
            part.extend_from_slice(&self.buffered.split_to(missing));
        }
        Ok(part.freeze())
    }
}

/// A multipart upload that is aborted unless it is completed, also when its future is dropped.
struct UploadGuard {
    upload: Option<Box<dyn MultipartUpload>>,
    cleanups: TaskTracker,
}

impl UploadGuard {
    /// Uploads the first part and all others, and completes the upload. One part is sent while the
    /// next one is received.
    async fn send<S>(&mut self, first: PutPayload, parts: &mut Parts<S>) -> Result<(), BlobError>
    where
        S: Stream<Item = Result<Bytes, BlobError>> + Unpin,
    {
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        let mut part = first;
        loop {
            let is_last = part.content_length() < parts.part_size;
            let sent = upload.put_part(part);
            let sent = async { sent.await.map_err(BlobError::from) };
            if is_last {
                sent.await?;
                break;
            }
            ((), part) = try_join(sent, parts.next()).await?;
            if part.content_length() == 0 {
                break;
            }
        }
        upload.complete().await?;
        self.upload = None;
        Ok(())
    }

    /// Aborts the upload. A failure is only logged, since the caller has an error to return
    /// already.
    async fn abort(&mut self) {
        if let Some(upload) = self.upload.take() {
            abort(upload).await;
        }
    }
}

async fn abort(mut upload: Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(error.cause = %error, "could not abort a multipart upload to the bucket; a lifecycle rule may delete its parts: {error}");
    }
}

impl Drop for UploadGuard {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            spawn(&self.cleanups, abort(upload));
        }
    }
}

pub(super) fn spawn(cleanups: &TaskTracker, task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        cleanups.spawn_on(task, &runtime);
    }
}
