//! Files as wholes: a row in the database and contents in the blob store, kept in step.
//!
//! The order of writes makes a crash harmless: a blob is written down as loose before its first
//! byte is stored, the transaction that makes its row claims it, and a blob is deleted only while
//! it is loose and cannot be claimed.

pub mod blobs;
mod uploads;

use bytes::Bytes;
use futures::Stream;
use sqlx::PgConnection;

use crate::domain::file::{File, NewFile, UploadStatus};
use crate::domain::ids::{FileId, PartId, ProjectId, UploadId};
use crate::domain::vector_store::IndexError;
use crate::files::blobs::{BlobError, Blobs};
use crate::store;
use crate::store::Pool;
use crate::store::StoreError;
use crate::store::projects::QuotaError;

pub use uploads::{add_part, cancel, complete};

/// Rows handled in one transaction of the sweep.
const BATCH: i64 = 100;

/// Loose blobs deleted by one sweep at most, so that a sweep ends in reasonable time.
const LOOSE_BLOBS: i64 = 10_000;

/// What can go wrong with files.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The contents could not be stored or read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The row could not be stored or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The project would store more bytes than its quota.
    #[error("the project may store {limit} bytes")]
    QuotaExceeded {
        /// The quota in bytes.
        limit: i64,
    },
    /// Storing the contents took so long that they were taken for garbage.
    #[error("the contents arrived too slowly and were given up")]
    GivenUp,
    /// The file was deleted while its contents were stored.
    #[error("file {0} was deleted")]
    Gone(FileId),
    /// There is no such upload.
    #[error("no upload {0}")]
    NoUpload(UploadId),
    /// The upload takes nothing more.
    #[error("upload {id} is {}", status.as_str())]
    NotPending {
        /// The upload.
        id: UploadId,
        /// Where it stands.
        status: UploadStatus,
    },
    /// No such part belongs to the upload.
    #[error("no part {0} in this upload")]
    NoPart(PartId),
    /// A part is named twice.
    #[error("part {0} is named twice")]
    PartTwice(PartId),
    /// The parts of an upload are more than an upload may have.
    #[error("the parts are larger than an upload may be")]
    UploadFull,
    /// The parts are not as many bytes as the upload was declared to have.
    #[error("{bytes} bytes instead of {declared}")]
    WrongSize {
        /// What was declared.
        declared: i64,
        /// What the parts have together.
        bytes: i64,
    },
    /// The parts do not have the checksum that the client computed.
    #[error("checksum {md5} instead of {expected}")]
    WrongChecksum {
        /// What the client computed.
        expected: String,
        /// What it is.
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

/// Contents that are stored but belong to no row yet. Dropped without being claimed, they are
/// deleted.
#[derive(Debug)]
pub struct Draft {
    pool: Pool,
    blobs: Blobs,
    name: String,
    bytes: i64,
    claimed: bool,
}

impl Draft {
    /// Stores contents of at most `limit` bytes under an id.
    ///
    /// If the future is dropped half-way, the sweep clears away what is left.
    pub async fn write<S>(
        pool: &Pool,
        blobs: &Blobs,
        id: impl std::fmt::Display + Send,
        contents: S,
        limit: u64,
    ) -> Result<Self, FileError>
    where
        S: Stream<Item = Result<Bytes, BlobError>> + Send,
    {
        let name = id.to_string();
        store::loose_blobs::insert(pool, &name).await?;
        let stored = blobs.put(&name, contents, limit).await;
        let draft = Self {
            pool: pool.clone(),
            blobs: blobs.clone(),
            name,
            bytes: stored
                .as_ref()
                .map_or(0, |bytes| i64::try_from(*bytes).unwrap_or(i64::MAX)),
            claimed: false,
        };
        stored?;
        Ok(draft)
    }

    /// Size of the contents.
    pub fn bytes(&self) -> i64 {
        self.bytes
    }

    /// Hands the contents to a row that is made in the same transaction.
    async fn claim(&self, conn: &mut PgConnection) -> Result<(), FileError> {
        if store::loose_blobs::remove(conn, &self.name).await? {
            Ok(())
        } else {
            Err(FileError::GivenUp)
        }
    }

    /// Makes the contents a file of this id, which must be the one they were written under.
    pub async fn keep(
        mut self,
        project: &ProjectId,
        id: &FileId,
        new: &NewFile,
    ) -> Result<File, FileError> {
        let mut tx = self.pool.begin().await?;
        self.claim(&mut tx).await?;
        let file = store::files::insert(&mut tx, project, id, new, self.bytes).await?;
        tx.commit().await?;
        self.claimed = true;
        Ok(file)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.claimed {
            return;
        }
        let (pool, blobs) = (self.pool.clone(), self.blobs.clone());
        let name = std::mem::take(&mut self.name);
        // If the process ends before this is done, the sweep finds the blob.
        self.blobs
            .clean_up(async move { release(&pool, &blobs, &name).await });
    }
}

/// Keeps contents that are all there from the sweep: whoever stored them may have died before they
/// were claimed. If they were `awaited`, lets the file be indexed.
pub async fn settle(
    pool: &Pool,
    project: &ProjectId,
    id: &FileId,
    awaited: bool,
) -> Result<(), FileError> {
    let mut tx = pool.begin().await?;
    if !store::files::hold(&mut *tx, project, id).await? {
        return Ok(());
    }
    store::loose_blobs::remove(&mut *tx, id.as_str()).await?;
    if awaited {
        let missing = IndexError::without_contents();
        store::vector_store_files::retry(&mut *tx, project, id, &missing).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Stores the contents of a file that has none, and lets it be indexed where that was all that was
/// missing.
pub async fn attach<S>(
    pool: &Pool,
    blobs: &Blobs,
    project: &ProjectId,
    id: &FileId,
    contents: S,
    limit: u64,
) -> Result<(), FileError>
where
    S: Stream<Item = Result<Bytes, BlobError>> + Send,
{
    let mut draft = Draft::write(pool, blobs, id, contents, limit).await?;
    let mut tx = pool.begin().await?;
    if !store::files::hold(&mut *tx, project, id).await? {
        return Err(FileError::Gone(id.clone()));
    }
    draft.claim(&mut tx).await?;
    let missing = IndexError::without_contents();
    store::vector_store_files::retry(&mut *tx, project, id, &missing).await?;
    tx.commit().await?;
    draft.claimed = true;
    Ok(())
}

/// Deletes a file, its contents, and its mentions in what code_interpreter is given; whether there
/// was one.
pub async fn delete(
    pool: &Pool,
    blobs: &Blobs,
    project: &ProjectId,
    id: &FileId,
) -> Result<bool, StoreError> {
    let mut tx = pool.begin().await?;
    if !store::files::delete(&mut tx, project, id).await? {
        return Ok(false);
    }
    tx.commit().await?;
    release(pool, blobs, id.as_str()).await;
    Ok(true)
}

/// Deletes files and uploads whose time is over, and contents that belong to nothing. To be called
/// every few minutes; any number of processes may.
pub async fn sweep(pool: &Pool, blobs: &Blobs) -> Result<(), StoreError> {
    loop {
        let mut tx = pool.begin().await?;
        let gone = store::files::delete_expired(&mut tx, BATCH).await?;
        tx.commit().await?;
        if gone == 0 {
            break;
        }
    }
    store::uploads::expire(pool).await?;
    for name in store::loose_blobs::due(pool, LOOSE_BLOBS).await? {
        release(pool, blobs, &name).await;
    }
    Ok(())
}

/// Deletes a blob if it is loose. What fails here is logged and left to the next sweep: the caller
/// has done what it was asked to do.
async fn release(pool: &Pool, blobs: &Blobs, name: &str) {
    if let Err(error) = try_release(pool, blobs, name).await {
        tracing::warn!(blob.name = name, error.cause = %error, "cannot delete blob {name}: {error}");
    }
}

async fn try_release(pool: &Pool, blobs: &Blobs, name: &str) -> Result<(), FileError> {
    let mut tx = pool.begin().await?;
    if store::loose_blobs::lock(&mut *tx, name).await? {
        blobs.delete(name).await?;
        store::loose_blobs::remove(&mut *tx, name).await?;
    }
    tx.commit().await?;
    Ok(())
}
