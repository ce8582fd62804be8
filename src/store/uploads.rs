//! Tables `uploads` and `upload_parts`.

use sqlx::{PgConnection, PgExecutor};

use crate::domain::file::{NewFile, NewUpload, Part, Upload};
use crate::domain::ids::{FileId, PartId, ProjectId, UploadId};
use crate::store::Pool;
use crate::store::StoreError;
use crate::store::projects::{self, QuotaError};

/// The columns of an [`Upload`]. A pending one that has expired counts as such even before
/// maintenance has marked it.
macro_rules! columns {
    () => {
        "id, created_at, expires_at, filename, bytes, mime_type, purpose, \
         case when status = 'pending' and expires_at <= now() then 'expired' else status end \
             as status, \
         file_expires_after, file_id"
    };
}

/// Stores a new upload, which expires in an hour.
pub async fn insert(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    new: &NewUpload,
) -> Result<Upload, StoreError> {
    let NewUpload {
        file:
            NewFile {
                filename,
                purpose,
                expires_after,
            },
        bytes,
        mime_type,
    } = new;
    let upload = sqlx::query_as(concat!(
        "insert into uploads (id, project_id, expires_at, filename, bytes, mime_type, purpose,
                              status, file_expires_after)
         values ($1, $2, now() + interval '1 hour', $3, $4, $5, $6, 'pending', $7)
         returning ",
        columns!()
    ))
    .bind(UploadId::generate())
    .bind(project)
    .bind(filename)
    .bind(bytes)
    .bind(mime_type)
    .bind(purpose)
    .bind(expires_after)
    .fetch_one(db)
    .await?;
    Ok(upload)
}

pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &UploadId,
) -> Result<Option<Upload>, StoreError> {
    let upload = sqlx::query_as(concat!(
        "select ",
        columns!(),
        "
         from uploads where project_id = $1 and id = $2"
    ))
    .bind(project)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(upload)
}

pub async fn lock(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &UploadId,
) -> Result<Option<Upload>, StoreError> {
    let locked = sqlx::query("select from uploads where project_id = $1 and id = $2 for update")
        .bind(project)
        .bind(id)
        .fetch_optional(&mut *conn)
        .await?;
    if locked.is_none() {
        return Ok(None);
    }
    find(conn, project, id).await
}

/// Stores the row of a part whose blob is stored already. The upload must be locked. If the project
/// has a quota, its other uploads wait until the transaction ends.
pub async fn insert_part(
    conn: &mut PgConnection,
    project: &ProjectId,
    upload: &UploadId,
    id: &PartId,
    bytes: i64,
) -> Result<Part, QuotaError> {
    if let Some(part) =
        insert_part_within_quota(&mut *conn, project, upload, id, bytes, false).await?
    {
        return Ok(part);
    }
    projects::claim_quota(&mut *conn, project, bytes).await?;
    let part = insert_part_within_quota(conn, project, upload, id, bytes, true).await?;
    Ok(part.ok_or_else(StoreError::missing_row)?)
}

async fn insert_part_within_quota(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    upload: &UploadId,
    id: &PartId,
    bytes: i64,
    is_claimed: bool,
) -> Result<Option<Part>, StoreError> {
    let part = sqlx::query_as(
        "insert into upload_parts (id, upload_id, bytes)
         select $1, $2, $3 from projects where id = $4 and ($5 or storage_bytes is null)
         returning id, upload_id, created_at, bytes",
    )
    .bind(id)
    .bind(upload)
    .bind(bytes)
    .bind(project)
    .bind(is_claimed)
    .fetch_optional(db)
    .await?;
    Ok(part)
}

/// All parts of an upload, which the caller has found to be the project's.
pub async fn parts(db: impl PgExecutor<'_>, upload: &UploadId) -> Result<Vec<Part>, StoreError> {
    let parts = sqlx::query_as(
        "select id, upload_id, created_at, bytes from upload_parts where upload_id = $1",
    )
    .bind(upload)
    .fetch_all(db)
    .await?;
    Ok(parts)
}

pub async fn size(db: impl PgExecutor<'_>, upload: &UploadId) -> Result<i64, StoreError> {
    let size = sqlx::query_scalar(
        "select coalesce(sum(bytes), 0)::bigint from upload_parts where upload_id = $1",
    )
    .bind(upload)
    .fetch_one(db)
    .await?;
    Ok(size)
}

/// Completes a locked upload with its file, which was stored in the same transaction.
pub async fn complete(
    conn: &mut PgConnection,
    id: &UploadId,
    file: &FileId,
) -> Result<Upload, StoreError> {
    close(&mut *conn, id, "completed", Some(file)).await
}

pub async fn cancel(conn: &mut PgConnection, id: &UploadId) -> Result<Upload, StoreError> {
    close(&mut *conn, id, "cancelled", None).await
}

async fn close(
    conn: &mut PgConnection,
    id: &UploadId,
    status: &str,
    file: Option<&FileId>,
) -> Result<Upload, StoreError> {
    let upload = sqlx::query_as(concat!(
        "update uploads set status = $2, file_id = $3 where id = $1 and status = 'pending'
         returning ",
        columns!()
    ))
    .bind(id)
    .bind(status)
    .bind(file)
    .fetch_one(conn)
    .await?;
    Ok(upload)
}

/// Deletes all parts of an upload, which makes their blobs unreferenced. Returns their ids.
pub async fn delete_parts(
    db: impl PgExecutor<'_>,
    upload: &UploadId,
) -> Result<Vec<PartId>, StoreError> {
    let ids = sqlx::query_scalar("delete from upload_parts where upload_id = $1 returning id")
        .bind(upload)
        .fetch_all(db)
        .await?;
    Ok(ids)
}

/// Marks uploads as expired, and deletes their parts, an hour after they have expired: an upload
/// that was completed in its last minute may still be copying its parts.
pub async fn expire(pool: &Pool) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    sqlx::query(
        "with over as (
             update uploads set status = 'expired'
             where status = 'pending' and expires_at < now() - interval '1 hour' returning id)
         delete from upload_parts where upload_id in (select id from over)",
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}
