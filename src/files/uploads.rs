//! Uploads: files that arrive in parts.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use md5::{Digest as _, Md5};
use sqlx::PgConnection;

use crate::domain::file::{File, Part, Upload, UploadStatus};
use crate::domain::ids::{FileId, PartId, ProjectId, UploadId};
use crate::files::blobs::{BlobError, Blobs};
use crate::files::deletion::delete_unreferenced;
use crate::files::error::FileError;
use crate::files::pending::PendingFile;
use crate::store;
use crate::store::Pool;

/// Adds a part to a pending upload. Parts may arrive concurrently.
pub async fn add_part<S>(
    pool: &Pool,
    blobs: &Blobs,
    project: &ProjectId,
    id: &UploadId,
    content: S,
) -> Result<Part, FileError>
where
    S: Stream<Item = Result<Bytes, BlobError>> + Send,
{
    require_pending(store::uploads::find(pool, project, id).await?, id)?;
    let part = PartId::generate();
    let blob = PendingFile::write(pool, blobs, &part, content, Part::MAX_BYTES).await?;

    let mut tx = pool.begin().await?;
    lock(&mut tx, project, id).await?;
    if store::uploads::size(&mut *tx, id).await? + blob.bytes() > Upload::MAX_BYTES {
        return Err(FileError::UploadFull);
    }
    blob.claim(&mut tx).await?;
    let part = store::uploads::insert_part(&mut tx, project, id, &part, blob.bytes()).await?;
    tx.commit().await?;
    blob.set_claimed();
    Ok(part)
}

/// Completes a pending upload: concatenates the given parts in this order into a file. With `md5`,
/// only if that is the checksum of the content (in hexadecimal).
///
/// Of several concurrent calls one succeeds. A failure leaves the upload unchanged.
pub async fn complete(
    pool: &Pool,
    blobs: &Blobs,
    project: &ProjectId,
    id: &UploadId,
    part_ids: &[PartId],
    md5: Option<&str>,
) -> Result<(Upload, File), FileError> {
    let upload = require_pending(store::uploads::find(pool, project, id).await?, id)?;
    check_parts(&upload, &store::uploads::parts(pool, id).await?, part_ids)?;
    let file_id = FileId::generate();
    let blob = match join(pool, blobs, &file_id, part_ids, &upload, md5).await {
        // Another call has completed or cancelled the upload and deleted its parts.
        Err(error @ FileError::Blob(BlobError::Missing { .. })) => {
            require_pending(store::uploads::find(pool, project, id).await?, id)?;
            return Err(error);
        }
        blob => blob?,
    };

    let mut tx = pool.begin().await?;
    lock(&mut tx, project, id).await?;
    blob.claim(&mut tx).await?;
    // Before the file is inserted, so that the quota does not count its parts as well.
    let upload = store::uploads::complete(&mut tx, id, &file_id).await?;
    let file =
        store::files::insert(&mut tx, project, &file_id, &upload.new_file(), blob.bytes()).await?;
    let parts = store::uploads::delete_parts(&mut *tx, id).await?;
    tx.commit().await?;
    blob.set_claimed();
    delete_parts(pool, blobs, &parts).await;
    Ok((upload, file))
}

pub async fn cancel(
    pool: &Pool,
    blobs: &Blobs,
    project: &ProjectId,
    id: &UploadId,
) -> Result<Upload, FileError> {
    let mut tx = pool.begin().await?;
    lock(&mut tx, project, id).await?;
    let upload = store::uploads::cancel(&mut tx, id).await?;
    let parts = store::uploads::delete_parts(&mut *tx, id).await?;
    tx.commit().await?;
    delete_parts(pool, blobs, &parts).await;
    Ok(upload)
}

fn require_pending(upload: Option<Upload>, id: &UploadId) -> Result<Upload, FileError> {
    let upload = upload.ok_or_else(|| FileError::NoUpload(id.clone()))?;
    match upload.status {
        UploadStatus::Pending => Ok(upload),
        status @ (UploadStatus::Completed | UploadStatus::Cancelled | UploadStatus::Expired) => {
            Err(FileError::NotPending {
                id: id.clone(),
                status,
            })
        }
    }
}

/// Locks a pending upload until the transaction ends.
async fn lock(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &UploadId,
) -> Result<Upload, FileError> {
    require_pending(store::uploads::lock(conn, project, id).await?, id)
}

/// Checks that the parts exist, without duplicates, and have the declared size together.
fn check_parts(upload: &Upload, parts: &[Part], part_ids: &[PartId]) -> Result<(), FileError> {
    let sizes: HashMap<&PartId, i64> = parts.iter().map(|part| (&part.id, part.bytes)).collect();
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for id in part_ids {
        if !seen.insert(id) {
            return Err(FileError::PartTwice(id.clone()));
        }
        bytes += sizes.get(id).ok_or_else(|| FileError::NoPart(id.clone()))?;
    }
    if bytes != upload.bytes {
        return Err(FileError::WrongSize {
            declared: upload.bytes,
            bytes,
        });
    }
    Ok(())
}

/// Concatenates parts into one blob and checks its size and checksum.
async fn join(
    pool: &Pool,
    blobs: &Blobs,
    id: &FileId,
    part_ids: &[PartId],
    upload: &Upload,
    md5: Option<&str>,
) -> Result<PendingFile, FileError> {
    let mut hasher = md5.map(|_| Md5::new());
    let content = blobs.chain(part_ids.iter().map(PartId::to_string).collect());
    let content = content.inspect_ok(|bytes| {
        if let Some(hasher) = &mut hasher {
            hasher.update(bytes);
        }
    });
    let limit = u64::try_from(upload.bytes).unwrap_or(0);
    let blob = PendingFile::write(pool, blobs, id, content, limit).await?;
    if blob.bytes() != upload.bytes {
        return Err(FileError::WrongSize {
            declared: upload.bytes,
            bytes: blob.bytes(),
        });
    }
    if let (Some(hasher), Some(expected)) = (hasher, md5) {
        let md5: String = hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if !md5.eq_ignore_ascii_case(expected) {
            return Err(FileError::WrongChecksum {
                expected: expected.to_owned(),
                md5,
            });
        }
    }
    Ok(blob)
}

async fn delete_parts(pool: &Pool, blobs: &Blobs, parts: &[PartId]) {
    for part in parts {
        delete_unreferenced(pool, blobs, part.as_str()).await;
    }
}
