//! Blobs that are stored before the row that owns them.

use bytes::Bytes;
use futures::Stream;
use sqlx::PgConnection;

use crate::domain::file::{File, NewFile};
use crate::domain::ids::{FileId, ProjectId};
use crate::domain::vector_store::IndexError;
use crate::files::blobs::{BlobError, Blobs};
use crate::files::deletion::delete_unreferenced;
use crate::files::error::FileError;
use crate::store;
use crate::store::Pool;

/// A stored blob that no row owns yet. Dropped without being claimed, it is deleted.
#[derive(Debug)]
pub struct PendingFile {
    pool: Pool,
    blobs: Blobs,
    name: String,
    bytes: i64,
    is_claimed: bool,
}

impl PendingFile {
    /// Stores content of at most `limit` bytes under an id.
    ///
    /// If the future is dropped, maintenance deletes what is left.
    pub async fn write<S>(
        pool: &Pool,
        blobs: &Blobs,
        id: impl std::fmt::Display + Send,
        content: S,
        limit: u64,
    ) -> Result<Self, FileError>
    where
        S: Stream<Item = Result<Bytes, BlobError>> + Send,
    {
        let name = id.to_string();
        store::unreferenced_blobs::insert(pool, &name).await?;
        let written = blobs.put(&name, content, limit).await;
        // Also after a failure, so that dropping it removes the name from the list.
        let mut pending = Self {
            pool: pool.clone(),
            blobs: blobs.clone(),
            name,
            bytes: 0,
            is_claimed: false,
        };
        pending.bytes = i64::try_from(written?).unwrap_or(i64::MAX);
        Ok(pending)
    }

    pub fn bytes(&self) -> i64 {
        self.bytes
    }

    /// Claims the blob for a row that the same transaction inserts. [`PendingFile::set_claimed`]
    /// must follow once it is committed.
    pub(super) async fn claim(&self, conn: &mut PgConnection) -> Result<(), FileError> {
        if store::unreferenced_blobs::remove(conn, &self.name).await? {
            Ok(())
        } else {
            Err(FileError::GivenUp)
        }
    }

    pub(super) fn set_claimed(mut self) {
        self.is_claimed = true;
    }

    /// Stores the file row. Its id must be the one under which the content was stored.
    pub async fn keep(
        self,
        project: &ProjectId,
        id: &FileId,
        new: &NewFile,
    ) -> Result<File, FileError> {
        let mut tx = self.pool.begin().await?;
        self.claim(&mut tx).await?;
        let file = store::files::insert(&mut tx, project, id, new, self.bytes).await?;
        tx.commit().await?;
        self.set_claimed();
        Ok(file)
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if self.is_claimed {
            return;
        }
        let (pool, blobs) = (self.pool.clone(), self.blobs.clone());
        let name = std::mem::take(&mut self.name);
        // If the process ends before this is done, maintenance deletes the blob.
        self.blobs
            .clean_up(async move { delete_unreferenced(&pool, &blobs, &name).await });
    }
}

/// Claims the blob of an existing file, in case that the process which stored it was killed before
/// it could. With `retry_indexing`, the file is also indexed in the vector stores that lacked its
/// content.
pub async fn claim_blob(
    pool: &Pool,
    project: &ProjectId,
    id: &FileId,
    retry_indexing: bool,
) -> Result<(), FileError> {
    let mut tx = pool.begin().await?;
    if !store::files::lock(&mut *tx, project, id).await? {
        return Ok(());
    }
    store::unreferenced_blobs::remove(&mut *tx, id.as_str()).await?;
    if retry_indexing {
        let missing = IndexError::without_contents();
        store::vector_store_files::retry(&mut *tx, project, id, &missing).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Stores the content of an existing file that has none, and indexes it in the vector stores that
/// lacked it.
pub async fn attach<S>(
    pool: &Pool,
    blobs: &Blobs,
    project: &ProjectId,
    id: &FileId,
    content: S,
    limit: u64,
) -> Result<(), FileError>
where
    S: Stream<Item = Result<Bytes, BlobError>> + Send,
{
    let pending = PendingFile::write(pool, blobs, id, content, limit).await?;
    let mut tx = pool.begin().await?;
    if !store::files::lock(&mut *tx, project, id).await? {
        return Err(FileError::Gone(id.clone()));
    }
    pending.claim(&mut tx).await?;
    let missing = IndexError::without_contents();
    store::vector_store_files::retry(&mut *tx, project, id, &missing).await?;
    tx.commit().await?;
    pending.set_claimed();
    Ok(())
}
