//! Files that arrive in parts.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use md5::{Digest as _, Md5};
use sqlx::PgConnection;

use crate::domain::file::{File, Part, Upload, UploadStatus};
use crate::domain::ids::{FileId, PartId, ProjectId, UploadId};
use crate::files::blobs::{BlobError, Blobs};
use crate::files::{Draft, FileError, release};
use crate::store;
use crate::store::Pool;

/// Adds a part to a pending upload. Any number may arrive at the same time.
pub async fn add_part<S>(
    pool: &Pool,
    blobs: &Blobs,
    project: &ProjectId,
    id: &UploadId,
    contents: S,
) -> Result<Part, FileError>
where
    S: Stream<Item = Result<Bytes, BlobError>> + Send,
{
    pending(store::uploads::find(pool, project, id).await?, id)?;
    let part = PartId::generate();
    let mut draft = Draft::write(pool, blobs, &part, contents, Part::MAX_BYTES).await?;

    let mut tx = pool.begin().await?;
    lock(&mut tx, project, id).await?;
    if store::uploads::size(&mut *tx, id).await? + draft.bytes > Upload::MAX_BYTES {
        return Err(FileError::UploadFull);
    }
    draft.claim(&mut tx).await?;
    let part = store::uploads::insert_part(&mut tx, project, id, &part, draft.bytes).await?;
    tx.commit().await?;
    draft.claimed = true;
    Ok(part)
}

/// Makes the named parts of a pending upload, in this order, its file. With `md5`, only if that is
/// the contents' checksum (in hexadecimal).
///
/// Of several calls at once, one succeeds. After a failure the upload is as it was.
pub async fn complete(
    pool: &Pool,
    blobs: &Blobs,
    project: &ProjectId,
    id: &UploadId,
    part_ids: &[PartId],
    md5: Option<&str>,
) -> Result<(Upload, File), FileError> {
    let upload = pending(store::uploads::find(pool, project, id).await?, id)?;
    check_parts(&upload, &store::uploads::parts(pool, id).await?, part_ids)?;
    let file_id = FileId::generate();
    let mut draft = match join(pool, blobs, &file_id, part_ids, &upload, md5).await {
        // The parts of an upload that was closed in the meantime are gone.
        Err(error @ FileError::Blob(BlobError::Missing { .. })) => {
            pending(store::uploads::find(pool, project, id).await?, id)?;
            return Err(error);
        }
        joined => joined?,
    };

    let mut tx = pool.begin().await?;
    lock(&mut tx, project, id).await?;
    draft.claim(&mut tx).await?;
    // First, so that the parts do not count beside the file that they become.
    let upload = store::uploads::complete(&mut tx, id, &file_id).await?;
    let file =
        store::files::insert(&mut tx, project, &file_id, &upload.new_file(), draft.bytes).await?;
    let parts = store::uploads::delete_parts(&mut *tx, id).await?;
    tx.commit().await?;
    draft.claimed = true;
    release_all(pool, blobs, &parts).await;
    Ok((upload, file))
}

/// Gives a pending upload up and deletes its parts.
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
    release_all(pool, blobs, &parts).await;
    Ok(upload)
}

/// The upload, if there is one and it takes parts.
fn pending(found: Option<Upload>, id: &UploadId) -> Result<Upload, FileError> {
    let upload = found.ok_or_else(|| FileError::NoUpload(id.clone()))?;
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

/// A pending upload that nobody else can change until the transaction ends.
async fn lock(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &UploadId,
) -> Result<Upload, FileError> {
    pending(store::uploads::lock(conn, project, id).await?, id)
}

/// Whether these parts exist and are as many bytes as was declared.
fn check_parts(upload: &Upload, stored: &[Part], wanted: &[PartId]) -> Result<(), FileError> {
    let sizes: HashMap<&PartId, i64> = stored.iter().map(|part| (&part.id, part.bytes)).collect();
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for id in wanted {
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

/// Copies parts into one blob.
async fn join(
    pool: &Pool,
    blobs: &Blobs,
    id: &FileId,
    part_ids: &[PartId],
    upload: &Upload,
    md5: Option<&str>,
) -> Result<Draft, FileError> {
    let mut hasher = md5.map(|_| Md5::new());
    let contents = blobs.chain(part_ids.iter().map(PartId::to_string).collect());
    let contents = contents.inspect_ok(|bytes| {
        if let Some(hasher) = &mut hasher {
            hasher.update(bytes);
        }
    });
    let limit = u64::try_from(upload.bytes).unwrap_or(0);
    let draft = Draft::write(pool, blobs, id, contents, limit).await?;
    if draft.bytes != upload.bytes {
        return Err(FileError::WrongSize {
            declared: upload.bytes,
            bytes: draft.bytes,
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
    Ok(draft)
}

async fn release_all(pool: &Pool, blobs: &Blobs, parts: &[PartId]) {
    for part in parts {
        release(pool, blobs, part.as_str()).await;
    }
}
