//! Table `files`. A file whose time is over is not there any more, for every function here, even
//! before the sweep has deleted it.

use sqlx::{PgConnection, PgExecutor, QueryBuilder};

use crate::domain::file::{File, NewFile};
use crate::domain::ids::{FileId, ProjectId};
use crate::domain::page::{Page, PageRequest};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::projects::{self, QuotaError};
use crate::store::{StoreError, page};

/// Stores a file whose contents of this many bytes lie in the blob store already. In a transaction,
/// which holds the project's place for them if its storage is limited.
pub async fn insert(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &FileId,
    new: &NewFile,
    bytes: i64,
) -> Result<File, QuotaError> {
    if let Some(file) = insert_if(&mut *conn, project, id, new, bytes, false).await? {
        return Ok(file);
    }
    projects::claim_storage(&mut *conn, project, bytes).await?;
    let file = insert_if(conn, project, id, new, bytes, true).await?;
    Ok(file.ok_or_else(StoreError::missing_row)?)
}

/// Stores a file if the project's storage has no limit, or there is room.
async fn insert_if(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &FileId,
    new: &NewFile,
    bytes: i64,
    has_room: bool,
) -> Result<Option<File>, StoreError> {
    let NewFile {
        filename,
        purpose,
        expires_after,
    } = new;
    let file = sqlx::query_as(
        "insert into files (id, project_id, expires_at, filename, bytes, purpose)
         select $1, id, now() + $3 * interval '1 second', $4, $5, $6
         from projects where id = $2 and ($7 or storage_bytes is null)
         returning id, created_at, expires_at, filename, bytes, purpose",
    )
    .bind(id)
    .bind(project)
    .bind(expires_after)
    .bind(filename)
    .bind(bytes)
    .bind(purpose)
    .bind(has_room)
    .fetch_optional(db)
    .await?;
    Ok(file)
}

/// The file of this id.
pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &FileId,
) -> Result<Option<File>, StoreError> {
    let file = sqlx::query_as(
        "select id, created_at, expires_at, filename, bytes, purpose from files
         where project_id = $1 and id = $2 and (expires_at is null or expires_at > now())",
    )
    .bind(project)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(file)
}

/// The first of these files that is not the project's, if there is one.
pub async fn first_missing(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    ids: &[&str],
) -> Result<Option<String>, StoreError> {
    let missing = sqlx::query_scalar(
        "select wanted.id from unnest($2::text[]) with ordinality as wanted (id, n)
         where not exists (select from files where project_id = $1 and files.id = wanted.id
                           and (expires_at is null or expires_at > now()))
         order by n limit 1",
    )
    .bind(project)
    .bind(ids)
    .fetch_optional(db)
    .await?;
    Ok(missing)
}

/// A page of the project's files, of one purpose or of all. A purpose that no file can have
/// lists nothing.
pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    purpose: Option<&str>,
    request: &PageRequest,
) -> Result<Page<File>, ListError> {
    let mut query = QueryBuilder::new(
        "select id, created_at, expires_at, filename, bytes, purpose from files
         where (expires_at is null or expires_at > now()) and project_id = ",
    );
    query.push_bind(project);
    if let Some(purpose) = purpose {
        query.push(" and purpose = ").push_bind(purpose);
    }
    page::fetch(pool, query, "files", project, request).await
}

/// Stores files that exist already, with their ids and dates, in the given order. Ids that are
/// taken stay as they are; how many were not. Their contents may come later.
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
    let done = sqlx::query(
        "insert into files (id, project_id, created_at, expires_at, filename, bytes, purpose)
         select id, $1, created_at, expires_at, filename, bytes, purpose
         from rows from (jsonb_to_recordset($2) as (id text, created_at timestamptz,
                 expires_at timestamptz, filename text, bytes bigint, purpose text))
             with ordinality as given (id, created_at, expires_at, filename, bytes, purpose, n)
         order by n on conflict (id) do nothing",
    )
    .bind(project)
    .bind(sqlx::types::Json(rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Keeps the file from being deleted until the transaction ends; whether it is there.
pub async fn hold(
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

/// Deletes the row and leaves its blob loose; whether there was one.
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
    unlist(conn, project, id).await?;
    Ok(true)
}

/// Deletes rows whose time is over, at most `limit`, and leaves their blobs loose; how many.
pub async fn delete_expired(conn: &mut PgConnection, limit: i64) -> Result<usize, StoreError> {
    let gone: Vec<(ProjectId, FileId)> = sqlx::query_as(
        "delete from files where id in (
             select id from files where expires_at <= now()
             order by expires_at limit $1 for update skip locked)
         returning project_id, id",
    )
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    for (project, id) in &gone {
        unlist(conn, project, id).await?;
    }
    Ok(gone.len())
}

/// Takes a file out of what the project's assistants and threads give to code_interpreter. Rows
/// are locked in order, so that deletions side by side do not wait for each other in a circle.
async fn unlist(
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
