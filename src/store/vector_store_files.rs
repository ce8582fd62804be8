//! Table `vector_store_files` as clients see it. `vector_store_jobs.rs` has its queue.

use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor, Postgres, QueryBuilder, Row};

use crate::domain::ids::{BatchId, FileId, ProjectId, VectorStoreId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::vector_store::{
    Attributes, Chunking, FileStatus, IndexError, MAX_FILES, NewStoreFile, VectorStoreFile,
};
use crate::store::page::Cursors;
use crate::store::{ListError, Pool, StoreError, is_refused_by, json, json_or_null, page};

impl FromRow<'_, PgRow> for VectorStoreFile {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            file: row.try_get("file_id")?,
            vector_store: row.try_get("vector_store_id")?,
            created_at: row.try_get("created_at")?,
            status: row.try_get("status")?,
            last_error: json_or_null(row, "last_error")?,
            usage_bytes: row.try_get("usage_bytes")?,
            chunking: Chunking {
                max_tokens: row.try_get("chunk_tokens")?,
                overlap_tokens: row.try_get("chunk_overlap")?,
            },
            attributes: json(row, "attributes")?,
        })
    }
}

const COLUMNS: &str = "file_id, vector_store_id, created_at, status, last_error, usage_bytes,
    chunk_tokens, chunk_overlap, attributes";

#[derive(Debug, thiserror::Error)]
pub enum AddFilesError {
    #[error("vector store {0} has expired")]
    Expired(VectorStoreId),
    #[error("vector store {0} would have more than {MAX_FILES} files")]
    Full(VectorStoreId),
    #[error("a file was deleted while it was being added")]
    FileDeleted,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for AddFilesError {
    fn from(error: sqlx::Error) -> Self {
        if is_refused_by(&error, "vector_store_files_file_id_fkey") {
            return Self::FileDeleted;
        }
        Self::Store(error.into())
    }
}

/// Adds files without duplicates to a vector store; they are due at once. Returns whether the store
/// exists.
///
/// A file that is already in the store gets the given attributes, and joins the batch. It is indexed
/// again if it had failed or was cancelled, or if the chunking differs.
///
/// # Errors
/// [`AddFilesError`] without any file being added.
pub async fn insert(
    conn: &mut PgConnection,
    project: &ProjectId,
    store: &VectorStoreId,
    files: &[NewStoreFile],
) -> Result<bool, AddFilesError> {
    if !lock_store(conn, project, store).await? {
        return Ok(false);
    }
    add(conn, project, store, None, files).await?;
    Ok(true)
}

/// Locks a vector store until the transaction ends, so that nothing else adds to it or deletes it.
/// Returns whether it exists.
///
/// # Errors
/// [`AddFilesError::Expired`].
pub(super) async fn lock_store(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<bool, AddFilesError> {
    let is_expired: Option<bool> = sqlx::query_scalar(
        "select coalesce(last_active_at + expires_after_days * interval '24 hours' <= now(), false)
         from vector_stores where project_id = $1 and id = $2 for no key update",
    )
    .bind(project)
    .bind(id)
    .fetch_optional(conn)
    .await?;
    match is_expired {
        None => Ok(false),
        Some(false) => Ok(true),
        Some(true) => Err(AddFilesError::Expired(id.clone())),
    }
}

/// Adds files to a vector store that the caller has locked.
pub(super) async fn add(
    conn: &mut PgConnection,
    project: &ProjectId,
    store: &VectorStoreId,
    batch: Option<&BatchId>,
    files: &[NewStoreFile],
) -> Result<(), AddFilesError> {
    let ids: Vec<&str> = files.iter().map(|new| new.file.as_str()).collect();
    let (all, existing): (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where file_id = any ($2))
         from vector_store_files where vector_store_id = $1",
    )
    .bind(store)
    .bind(&ids)
    .fetch_one(&mut *conn)
    .await?;
    let after = usize::try_from(all - existing).unwrap_or(0) + files.len();
    if after > MAX_FILES {
        return Err(AddFilesError::Full(store.clone()));
    }
    if existing > 0 {
        update_existing(conn, store, batch, files).await?;
    }
    insert_new(conn, project, store, batch, files).await
}

fn rows(files: &[NewStoreFile]) -> Json<Vec<Value>> {
    let row = |new: &NewStoreFile| {
        let NewStoreFile {
            file,
            attributes,
            chunking,
        } = new;
        json!({
            "file_id": file,
            "attributes": attributes,
            "chunk_tokens": chunking.map(|chunking| chunking.max_tokens),
            "chunk_overlap": chunking.map(|chunking| chunking.overlap_tokens),
        })
    };
    Json(files.iter().map(row).collect())
}

pub(super) async fn insert_new(
    conn: &mut PgConnection,
    project: &ProjectId,
    store: &VectorStoreId,
    batch: Option<&BatchId>,
    files: &[NewStoreFile],
) -> Result<(), AddFilesError> {
    sqlx::query(
        "insert into vector_store_files (vector_store_id, file_id, project_id, batch_id, status,
                                         attributes, chunk_tokens, chunk_overlap, due_at)
         select $1, file_id, $2, $3, 'in_progress', coalesce(attributes, '{}'),
                coalesce(chunk_tokens, $5), coalesce(chunk_overlap, $6), now()
         from rows from (jsonb_to_recordset($4) as (file_id text, attributes jsonb,
                                                    chunk_tokens integer, chunk_overlap integer))
             with ordinality as given (file_id, attributes, chunk_tokens, chunk_overlap, n)
         order by n
         on conflict (vector_store_id, file_id) do nothing",
    )
    .bind(store)
    .bind(project)
    .bind(batch)
    .bind(rows(files))
    .bind(Chunking::AUTO.max_tokens)
    .bind(Chunking::AUTO.overlap_tokens)
    .execute(conn)
    .await?;
    Ok(())
}

/// Updates the files that are already in the store. A file that must be indexed again gets a new row
/// with a new `seq`: that invalidates its old chunks, and the writes of a worker that has claimed it.
async fn update_existing(
    conn: &mut PgConnection,
    store: &VectorStoreId,
    batch: Option<&BatchId>,
    files: &[NewStoreFile],
) -> Result<(), StoreError> {
    sqlx::query(
        "with given as (
             select * from jsonb_to_recordset($3)
                 as (file_id text, attributes jsonb, chunk_tokens integer, chunk_overlap integer)),
         stale as (
             delete from vector_store_files as old using given
             where old.vector_store_id = $1 and old.file_id = given.file_id
                 and (status in ('failed', 'cancelled')
                      or old.chunk_tokens <> given.chunk_tokens
                      or old.chunk_overlap <> given.chunk_overlap)
             returning old.*)
         insert into vector_store_files (vector_store_id, file_id, project_id, batch_id, status,
                                         attributes, chunk_tokens, chunk_overlap, due_at)
         select $1, stale.file_id, stale.project_id, coalesce($2, stale.batch_id), 'in_progress',
                coalesce(given.attributes, stale.attributes),
                coalesce(given.chunk_tokens, stale.chunk_tokens),
                coalesce(given.chunk_overlap, stale.chunk_overlap), now()
         from stale join given using (file_id)",
    )
    .bind(store)
    .bind(batch)
    .bind(rows(files))
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "update vector_store_files as old
         set attributes = coalesce(given.attributes, old.attributes),
             batch_id = coalesce($2, batch_id)
         from jsonb_to_recordset($3) as given (file_id text, attributes jsonb)
         where old.vector_store_id = $1 and old.file_id = given.file_id
             and (given.attributes is not null or $2 is not null)",
    )
    .bind(store)
    .bind(batch)
    .bind(rows(files))
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
    file: &FileId,
) -> Result<Option<VectorStoreFile>, StoreError> {
    let mut query = select();
    query.push_bind(project);
    query.push(" and vector_store_id = ").push_bind(store);
    query.push(" and file_id = ").push_bind(file);
    Ok(query.build_query_as().fetch_optional(db).await?)
}

fn select() -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("select ");
    query.push(COLUMNS);
    query.push(" from vector_store_files where project_id = ");
    query
}

pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    store: &VectorStoreId,
    batch: Option<&BatchId>,
    status: Option<FileStatus>,
    request: &PageRequest,
) -> Result<Page<VectorStoreFile>, ListError> {
    let mut query = select();
    query.push_bind(project);
    query.push(" and vector_store_id = ").push_bind(store);
    let mut within = vec![
        ("project_id", project.as_str()),
        ("vector_store_id", store.as_str()),
    ];
    if let Some(batch) = batch {
        query.push(" and batch_id = ").push_bind(batch);
        within.push(("batch_id", batch.as_str()));
    }
    if let Some(status) = status {
        query.push(" and status = ").push_bind(status);
    }
    let cursors = Cursors {
        table: "vector_store_files",
        column: "file_id",
        within: &within,
    };
    page::fetch_by(pool, query, &cursors, request).await
}

pub async fn update(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
    file: &FileId,
    attributes: &Attributes,
) -> Result<Option<VectorStoreFile>, StoreError> {
    let mut query = QueryBuilder::new("update vector_store_files set attributes = ");
    query.push_bind(Json(attributes));
    query.push(" where project_id = ").push_bind(project);
    query.push(" and vector_store_id = ").push_bind(store);
    query.push(" and file_id = ").push_bind(file);
    query.push(" returning ").push(COLUMNS);
    Ok(query.build_query_as().fetch_optional(db).await?)
}

/// Removes the file from the vector store. The file itself stays.
pub async fn delete(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
    file: &FileId,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "delete from vector_store_files
         where project_id = $1 and vector_store_id = $2 and file_id = $3",
    )
    .bind(project)
    .bind(store)
    .bind(file)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The indexed text of a file, empty until it is indexed. `None` if it is not in the store.
pub async fn content(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
    file: &FileId,
) -> Result<Option<String>, StoreError> {
    let chunks: Vec<(Option<String>, Option<i32>)> = sqlx::query_as(
        "select content, overlap_bytes
         from vector_store_files as f
         left join chunks on store_file = f.seq and status = 'completed'
         where project_id = $1 and f.vector_store_id = $2 and file_id = $3
         order by ordinal",
    )
    .bind(project)
    .bind(store)
    .bind(file)
    .fetch_all(db)
    .await?;
    if chunks.is_empty() {
        return Ok(None);
    }
    let mut text = String::new();
    for (content, overlap) in chunks {
        let overlap = overlap.and_then(|bytes| usize::try_from(bytes).ok());
        let content = content.as_deref().unwrap_or_default();
        text.push_str(content.get(overlap.unwrap_or(0)..).unwrap_or(content));
    }
    Ok(Some(text))
}

pub async fn list_batch_ids(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
) -> Result<Vec<(FileId, BatchId)>, StoreError> {
    let batches = sqlx::query_as(
        "select file_id, batch_id from vector_store_files
         where project_id = $1 and vector_store_id = $2 and batch_id is not null",
    )
    .bind(project)
    .bind(store)
    .fetch_all(db)
    .await?;
    Ok(batches)
}

/// The caller has checked that files, stores and batches are the project's.
pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    files: &[(VectorStoreFile, Option<BatchId>)],
) -> Result<u64, StoreError> {
    let row = |(file, batch): &(VectorStoreFile, Option<BatchId>)| {
        json!({
            "vector_store_id": file.vector_store,
            "file_id": file.file,
            "created_at": file.created_at,
            "batch_id": batch,
            "status": file.status,
            "last_error": file.last_error,
            "attributes": file.attributes,
            "chunk_tokens": file.chunking.max_tokens,
            "chunk_overlap": file.chunking.overlap_tokens,
        })
    };
    let rows: Vec<Value> = files.iter().map(row).collect();
    let done = sqlx::query(
        "insert into vector_store_files (vector_store_id, file_id, project_id, created_at, batch_id,
                                         status, last_error, attributes, chunk_tokens,
                                         chunk_overlap, due_at)
         select vector_store_id, file_id, $1, created_at, batch_id, status, last_error, attributes,
                chunk_tokens, chunk_overlap, case when status = 'in_progress' then now() end
         from rows from (jsonb_to_recordset($2) as (vector_store_id text, file_id text,
                 created_at timestamptz, batch_id text, status text, last_error jsonb,
                 attributes jsonb, chunk_tokens integer, chunk_overlap integer))
             with ordinality as given (vector_store_id, file_id, created_at, batch_id, status,
                                       last_error, attributes, chunk_tokens, chunk_overlap, n)
         order by n on conflict (vector_store_id, file_id) do nothing",
    )
    .bind(project)
    .bind(Json(rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn list_failed_with(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    error: &IndexError,
) -> Result<Vec<FileId>, StoreError> {
    let files = sqlx::query_scalar(
        "select distinct file_id from vector_store_files
         where project_id = $1 and status = 'failed' and last_error = $2",
    )
    .bind(project)
    .bind(Json(error))
    .fetch_all(db)
    .await?;
    Ok(files)
}

/// Makes a file due again wherever it has failed with this error, whose cause is removed.
pub async fn retry(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    file: &FileId,
    error: &IndexError,
) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "update vector_store_files
         set status = 'in_progress', last_error = null, due_at = now()
         where project_id = $1 and file_id = $2 and status = 'failed' and last_error = $3",
    )
    .bind(project)
    .bind(file)
    .bind(Json(error))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
