//! Table `vector_store_files`, as clients see it: which files a vector store has, and how far they
//! are.

use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder, Row};

use crate::domain::ids::{BatchId, FileId, ProjectId, VectorStoreId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::vector_store::{
    Attributes, Chunking, FileStatus, IndexError, MAX_FILES, NewStoreFile, VectorStoreFile,
};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::page::Cursors;
use crate::store::vector_stores::{self, AddFilesError};
use crate::store::{StoreError, json, json_or_null, page};

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

/// Adds files to a vector store, each of them named once; they are due to be indexed at once.
/// Whether there is such a store.
///
/// A file that is in the store already gets the attributes that are given, and joins the batch. It
/// is indexed again if it had failed or was cancelled, or if it is now to be cut in another way.
///
/// # Errors
/// [`AddFilesError`] without any file being added.
pub async fn insert(
    conn: &mut PgConnection,
    project: &ProjectId,
    store: &VectorStoreId,
    files: &[NewStoreFile],
) -> Result<bool, AddFilesError> {
    if !vector_stores::lock(conn, project, store).await? {
        return Ok(false);
    }
    add(conn, project, store, None, files).await?;
    Ok(true)
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
    let (all, known): (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where file_id = any ($2))
         from vector_store_files where vector_store_id = $1",
    )
    .bind(store)
    .bind(&ids)
    .fetch_one(&mut *conn)
    .await?;
    let after = usize::try_from(all - known).unwrap_or(0) + files.len();
    if after > MAX_FILES {
        return Err(AddFilesError::Full(store.clone()));
    }
    if known > 0 {
        add_again(conn, store, batch, files).await?;
    }
    insert_new(conn, project, store, batch, files).await
}

/// The files as rows, for `jsonb_to_recordset`; what is not given is null.
fn given(files: &[NewStoreFile]) -> Json<Vec<Value>> {
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

/// Adds the files that are not in the store yet.
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
    .bind(given(files))
    .bind(Chunking::AUTO.max_tokens)
    .bind(Chunking::AUTO.overlap_tokens)
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes those of the files that are in the store. What has to be indexed again becomes another
/// row: that makes its old chunks rubbish, and whatever a worker still writes for it void.
async fn add_again(
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
    .bind(given(files))
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
    .bind(given(files))
    .execute(conn)
    .await?;
    Ok(())
}

/// This file in this store.
pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
    file: &FileId,
) -> Result<Option<VectorStoreFile>, StoreError> {
    let found = sqlx::query_as(
        "select file_id, vector_store_id, created_at, status, last_error, usage_bytes,
                chunk_tokens, chunk_overlap, attributes
         from vector_store_files
         where project_id = $1 and vector_store_id = $2 and file_id = $3",
    )
    .bind(project)
    .bind(store)
    .bind(file)
    .fetch_optional(db)
    .await?;
    Ok(found)
}

/// A page of the files in a store, of one batch only if `batch` is given, with one status only if
/// `status` is given.
pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    store: &VectorStoreId,
    batch: Option<&BatchId>,
    status: Option<FileStatus>,
    request: &PageRequest,
) -> Result<Page<VectorStoreFile>, ListError> {
    let mut query = QueryBuilder::new(
        "select file_id, vector_store_id, created_at, status, last_error, usage_bytes,
                chunk_tokens, chunk_overlap, attributes
         from vector_store_files where project_id = ",
    );
    query
        .push_bind(project)
        .push(" and vector_store_id = ")
        .push_bind(store);
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

/// Replaces a file's attributes. `None` when it is not in the store.
pub async fn update(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
    file: &FileId,
    attributes: &Attributes,
) -> Result<Option<VectorStoreFile>, StoreError> {
    let changed = sqlx::query_as(
        "update vector_store_files set attributes = $4
         where project_id = $1 and vector_store_id = $2 and file_id = $3
         returning file_id, vector_store_id, created_at, status, last_error, usage_bytes,
                   chunk_tokens, chunk_overlap, attributes",
    )
    .bind(project)
    .bind(store)
    .bind(file)
    .bind(Json(attributes))
    .fetch_optional(db)
    .await?;
    Ok(changed)
}

/// Takes a file out of a store; whether it was in. The file itself stays.
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

/// The text of a file as it was indexed; empty until that is done. `None` when the file is not in
/// the store.
pub async fn content(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
    file: &FileId,
) -> Result<Option<String>, StoreError> {
    let pieces: Vec<(Option<String>, Option<i32>)> = sqlx::query_as(
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
    if pieces.is_empty() {
        return Ok(None);
    }
    let mut text = String::new();
    for (content, overlap) in pieces {
        let overlap = overlap.and_then(|bytes| usize::try_from(bytes).ok());
        let content = content.as_deref().unwrap_or_default();
        text.push_str(content.get(overlap.unwrap_or(0)..).unwrap_or(content));
    }
    Ok(Some(text))
}

/// Which files of a store were added by which batch.
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

/// Puts files into stores that they were in elsewhere, with their dates, in the given order.
///
/// What is in a store already stays as it is; how many were not. Nothing is indexed: the caller
/// says how far each is, and knows files, stores and batches to be the project's.
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

/// The project's files that have failed with `error` in some store.
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

/// Lets a file be indexed wherever it had failed with `error`: what was wrong is put right.
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
