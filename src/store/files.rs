//! Table `files`. To all functions here, an expired file does not exist, even before maintenance
//! has deleted it.

use sqlx::{PgConnection, PgExecutor, QueryBuilder};

use crate::domain::file::{File, NewFile};
use crate::domain::ids::{FileId, ProjectId};
use crate::domain::page::{Page, PageRequest};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::projects::{self, QuotaError};
use crate::store::{StoreError, page};

macro_rules! columns {
    () => {
        "id, created_at, expires_at, filename, bytes, purpose"
    };
}

/// Stores the row of a file whose blob of this size is stored already. If the project has a quota,
/// other uploads of the project wait until the transaction ends.
pub async fn insert(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &FileId,
    new: &NewFile,
    bytes: i64,
) -> Result<File, QuotaError> {
    if let Some(file) = insert_within_quota(&mut *conn, project, id, new, bytes, false).await? {
        return Ok(file);
    }
    projects::claim_quota(&mut *conn, project, bytes).await?;
    let file = insert_within_quota(conn, project, id, new, bytes, true).await?;
    Ok(file.ok_or_else(StoreError::missing_row)?)
}

async fn insert_within_quota(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &FileId,
    new: &NewFile,
    bytes: i64,
    is_claimed: bool,
) -> Result<Option<File>, StoreError> {
    let NewFile {
        filename,
        purpose,
        expires_after,
    } = new;
    let file = sqlx::query_as(concat!(
        "insert into files (id, project_id, expires_at, filename, bytes, purpose)
         select $1, id, now() + $3 * interval '1 second', $4, $5, $6
         from projects where id = $2 and ($7 or storage_bytes is null)
         returning ",
        columns!()
    ))
    .bind(id)
    .bind(project)
    .bind(expires_after)
    .bind(filename)
    .bind(bytes)
    .bind(purpose)
    .bind(is_claimed)
    .fetch_optional(db)
    .await?;
    Ok(file)
}

pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &FileId,
) -> Result<Option<File>, StoreError> {
    let file = sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from files
         where project_id = $1 and id = $2 and (expires_at is null or expires_at > now())"
    ))
    .bind(project)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(file)
}

pub async fn first_missing(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    ids: &[&str],
) -> Result<Option<String>, StoreError> {
    let missing = sqlx::query_scalar(
        "select requested.id from unnest($2::text[]) with ordinality as requested (id, n)
         where not exists (select from files where project_id = $1 and files.id = requested.id
                           and (expires_at is null or expires_at > now()))
         order by n limit 1",
    )
    .bind(project)
    .bind(ids)
    .fetch_optional(db)
    .await?;
    Ok(missing)
}

/// A page of the project's files, optionally of one purpose. An unknown purpose lists nothing.
pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    purpose: Option<&str>,
    request: &PageRequest,
) -> Result<Page<File>, ListError> {
    let mut query = QueryBuilder::new(concat!(
        "select ",
        columns!(),
        " from files
         where (expires_at is null or expires_at > now()) and project_id = "
    ));
    query.push_bind(project);
    if let Some(purpose) = purpose {
        query.push(" and purpose = ").push_bind(purpose);
    }
    page::fetch(pool, query, "files", project, request).await
}

/// The blobs may be stored later.
pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    files: &[File],
) -> Result<u64, StoreError> {
    let row = |file: &File| {
        serde_json::json!({
            "id": file.id,
            "created_at": file.created_at,
            "expires_at": file.expires_at,
            "filename": file.filename,
            "bytes": file.bytes,
            "purpose": file.purpose,
        })
    };
    let rows: Vec<serde_json::Value> = files.iter().map(row).collect();
    let done = sqlx::query(concat!(
        "insert into files (project_id, ",
        columns!(),
        ") select $1, ",
        columns!(),
        " from jsonb_populate_recordset(null::files, $2) with ordinality
         order by ordinality on conflict (id) do nothing"
    ))
    .bind(project)
    .bind(sqlx::types::Json(rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Locks the file against deletion until the transaction ends.
pub async fn lock(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &FileId,
) -> Result<bool, StoreError> {
    let found = sqlx::query("select from files where project_id = $1 and id = $2 for key share")
        .bind(project)
        .bind(id)
        .fetch_optional(db)
        .await?;
    Ok(found.is_some())
}

/// Deletes the row, which makes its blob unreferenced.
pub async fn delete(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &FileId,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "delete from files
         where project_id = $1 and id = $2 and (expires_at is null or expires_at > now())",
    )
    .bind(project)
    .bind(id)
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    remove_mentions(conn, project, id).await?;
    Ok(true)
}

pub async fn delete_expired(conn: &mut PgConnection, limit: i64) -> Result<usize, StoreError> {
    let deleted: Vec<(ProjectId, FileId)> = sqlx::query_as(
        "delete from files where id in (
             select id from files where expires_at <= now()
             order by expires_at limit $1 for update skip locked)
         returning project_id, id",
    )
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    for (project, id) in &deleted {
        remove_mentions(conn, project, id).await?;
    }
    Ok(deleted.len())
}

/// Removes a file from the code_interpreter resources of the project's assistants and threads. Rows
/// are locked in the order of their ids, so that concurrent deletions do not deadlock.
async fn remove_mentions(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &FileId,
) -> Result<(), StoreError> {
    sqlx::query(
        "with listing as (
             select id from assistants
             where project_id = $1
               and tool_resources #> '{code_interpreter,file_ids}' <> '[]'
               and (tool_resources #> '{code_interpreter,file_ids}') ? $2
             order by id for update)
         update assistants set tool_resources = jsonb_set(
             tool_resources, '{code_interpreter,file_ids}',
             (tool_resources #> '{code_interpreter,file_ids}') - $2)
         where id in (select id from listing)",
    )
    .bind(project)
    .bind(id)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "with listing as (
             select id from threads
             where project_id = $1
               and tool_resources #> '{code_interpreter,file_ids}' <> '[]'
               and (tool_resources #> '{code_interpreter,file_ids}') ? $2
             order by id for update)
         update threads set tool_resources = jsonb_set(
             tool_resources, '{code_interpreter,file_ids}',
             (tool_resources #> '{code_interpreter,file_ids}') - $2)
         where id in (select id from listing)",
    )
    .bind(project)
    .bind(id)
    .execute(&mut *conn)
    .await?;
    Ok(())
}
