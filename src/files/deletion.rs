//! Deletion of files and of unreferenced blobs.

use crate::domain::ids::{FileId, ProjectId};
use crate::files::blobs::Blobs;
use crate::files::error::FileError;
use crate::store;
use crate::store::Pool;
use crate::store::StoreError;

const BATCH: i64 = 100;

/// Maximum number of unreferenced blobs that one sweep deletes, so that it ends in reasonable time.
const MAX_BLOBS: i64 = 10_000;

/// Deletes a file, its content, and its mentions in the tool resources of assistants and threads.
/// Returns whether it existed.
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
    delete_unreferenced(pool, blobs, id.as_str()).await;
    Ok(true)
}

/// Deletes expired files, expires pending uploads, and deletes unreferenced blobs. Any number of
/// processes may call this at the same time.
pub async fn sweep(pool: &Pool, blobs: &Blobs) -> Result<(), StoreError> {
    loop {
        let mut tx = pool.begin().await?;
        let deleted = store::files::delete_expired(&mut tx, BATCH).await?;
        tx.commit().await?;
        if deleted == 0 {
            break;
        }
    }
    store::uploads::expire(pool).await?;
    for name in store::unreferenced_blobs::due(pool, MAX_BLOBS).await? {
        delete_unreferenced(pool, blobs, &name).await;
    }
    Ok(())
}

/// Deletes a blob if it is unreferenced. A failure is only logged: the caller's operation is
/// committed already, and the next sweep tries again.
pub(super) async fn delete_unreferenced(pool: &Pool, blobs: &Blobs, name: &str) {
    if let Err(error) = try_delete_unreferenced(pool, blobs, name).await {
        tracing::warn!(
            blob.name = name, error.cause = %error,
            "could not delete blob {name}: {error}; the next sweep tries again"
        );
    }
}

async fn try_delete_unreferenced(pool: &Pool, blobs: &Blobs, name: &str) -> Result<(), FileError> {
    let mut tx = pool.begin().await?;
    if store::unreferenced_blobs::lock(&mut *tx, name).await? {
        blobs.delete(name).await?;
        store::unreferenced_blobs::remove(&mut *tx, name).await?;
    }
    tx.commit().await?;
    Ok(())
}
