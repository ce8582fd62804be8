//! Table `vector_stores`.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder, Row};

use crate::domain::ids::{AssistantId, ProjectId, ThreadId, VectorStoreId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::vector_store::{
    FileCounts, MAX_FILES, NewVectorStore, SearchableStore, VectorStore, VectorStoreChanges,
};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::{StoreError, is_refused_by, json, page, vector_store_files};

impl FromRow<'_, PgRow> for VectorStore {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            name: row.try_get("name")?,
            description: row.try_get("description")?,
            metadata: json(row, "metadata")?,
            expires_after_days: row.try_get("expires_after_days")?,
            expires_at: row.try_get("expires_at")?,
            is_expired: row.try_get("is_expired")?,
            last_active_at: row.try_get("last_active_at")?,
            usage_bytes: row.try_get("usage_bytes")?,
            file_counts: FileCounts::from_row(row)?,
        })
    }
}

impl FromRow<'_, PgRow> for FileCounts {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            in_progress: row.try_get("in_progress")?,
            completed: row.try_get("completed")?,
            failed: row.try_get("failed")?,
            cancelled: row.try_get("cancelled")?,
        })
    }
}

/// All that [`VectorStore`] needs, up to its `where` clause.
const SELECT: &str = "
    select s.id, s.created_at, s.name, s.description, s.metadata, s.expires_after_days,
           s.last_active_at, f.*,
           s.last_active_at + s.expires_after_days * interval '24 hours' as expires_at,
           coalesce(s.last_active_at + s.expires_after_days * interval '24 hours' <= now(), false)
               as is_expired
    from vector_stores as s cross join lateral (
        select count(*) filter (where status = 'in_progress') as in_progress,
               count(*) filter (where status = 'completed') as completed,
               count(*) filter (where status = 'failed') as failed,
               count(*) filter (where status = 'cancelled') as cancelled,
               coalesce(sum(usage_bytes), 0)::bigint as usage_bytes
        from vector_store_files where vector_store_id = s.id) as f
    where s.project_id = ";

/// Why files could not be added to a vector store.
#[derive(Debug, thiserror::Error)]
pub enum AddFilesError {
    /// The vector store has expired.
    #[error("vector store {0} has expired")]
    Expired(VectorStoreId),
    /// The vector store would have more than [`MAX_FILES`].
    #[error("vector store {0} would have more than {MAX_FILES} files")]
    Full(VectorStoreId),
    /// One of the files was deleted in the meantime.
    #[error("a file was deleted while it was being added")]
    FileDeleted,
    /// The database failed.
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

/// Stores a new vector store with its files, which are due to be indexed at once.
pub async fn insert(
    conn: &mut PgConnection,
    project: &ProjectId,
    new: &NewVectorStore,
) -> Result<VectorStoreId, AddFilesError> {
    let NewVectorStore {
        name,
        description,
        metadata,
        expires_after_days,
        files,
    } = new;
    let id = VectorStoreId::generate();
    sqlx::query(
        "insert into vector_stores (id, project_id, name, description, metadata,
                                    expires_after_days)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&id)
    .bind(project)
    .bind(name)
    .bind(description)
    .bind(Json(metadata))
    .bind(expires_after_days)
    .execute(&mut *conn)
    .await?;
    if !files.is_empty() {
        vector_store_files::insert_new(conn, project, &id, None, files).await?;
    }
    Ok(id)
}

/// The vector store of this id.
pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<Option<VectorStore>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(project).push(" and s.id = ").push_bind(id);
    Ok(query.build_query_as().fetch_optional(db).await?)
}

/// Whether there is such a vector store.
pub async fn exists(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar(
        "select exists (select from vector_stores where project_id = $1 and id = $2)",
    )
    .bind(project)
    .bind(id)
    .fetch_one(db)
    .await?;
    Ok(found)
}

/// A page of the project's vector stores.
pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    request: &PageRequest,
) -> Result<Page<VectorStore>, ListError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(project);
    page::fetch(pool, query, "vector_stores", project, request).await
}

/// Replaces what is given and keeps the rest; whether there is such a vector store.
pub async fn update(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &VectorStoreId,
    changes: &VectorStoreChanges,
) -> Result<bool, StoreError> {
    let VectorStoreChanges {
        name,
        expires_after_days,
        metadata,
    } = changes;
    let done = sqlx::query(
        "update vector_stores
         set name = case when $3 then $4 else name end,
             expires_after_days = case when $5 then $6 else expires_after_days end,
             metadata = coalesce($7, metadata)
         where project_id = $1 and id = $2",
    )
    .bind(project)
    .bind(id)
    .bind(name.is_some())
    .bind(name.as_ref().and_then(Option::as_ref))
    .bind(expires_after_days.is_some())
    .bind(expires_after_days.flatten())
    .bind(metadata.as_ref().map(Json))
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Holds the vector store until the transaction ends, so that nothing else adds to it or deletes
/// it; whether there is one.
///
/// # Errors
/// [`AddFilesError::Expired`] if it takes nothing more.
pub(super) async fn lock(
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

/// Deletes the vector store, not its files, and takes it out of the project's assistants and
/// threads; whether there was one. Its chunks are gone for searches, and the sweep deletes them.
pub async fn delete(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<bool, StoreError> {
    // Whoever adds to a thread's store locks the thread first, so this must do so too.
    unlist(conn, project, id).await?;
    let done = sqlx::query("delete from vector_stores where project_id = $1 and id = $2")
        .bind(project)
        .bind(id)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Rows are locked in order, so that deletions side by side do not wait for each other in a circle.
async fn unlist(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<(), StoreError> {
    sqlx::query(
        "with listing as (
             select id from assistants
             where project_id = $1
               and tool_resources #> '{file_search,vector_store_ids}' <> '[]'
               and (tool_resources #> '{file_search,vector_store_ids}') ? $2
             order by id for update)
         update assistants set tool_resources = jsonb_set(
             tool_resources, '{file_search,vector_store_ids}',
             (tool_resources #> '{file_search,vector_store_ids}') - $2)
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
               and tool_resources #> '{file_search,vector_store_ids}' <> '[]'
               and (tool_resources #> '{file_search,vector_store_ids}') ? $2
             order by id for update)
         update threads set tool_resources = jsonb_set(
             tool_resources, '{file_search,vector_store_ids}',
             (tool_resources #> '{file_search,vector_store_ids}') - $2)
         where id in (select id from listing)",
    )
    .bind(project)
    .bind(id)
    .execute(conn)
    .await?;
    Ok(())
}

/// The vector stores that a run searches, the assistant's first.
pub async fn list_for_run(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    assistant: &AssistantId,
    thread: &ThreadId,
) -> Result<Vec<VectorStoreId>, StoreError> {
    let stores = sqlx::query_scalar(
        "with resources as (
             select false as of_thread, tool_resources from assistants
             where project_id = $1 and id = $2
             union all
             select true, tool_resources from threads where project_id = $1 and id = $3)
         select store_id
         from resources, jsonb_array_elements_text(
             coalesce(tool_resources #> '{file_search,vector_store_ids}', '[]')) as ids (store_id)
         order by of_thread",
    )
    .bind(project)
    .bind(assistant)
    .bind(thread)
    .fetch_all(db)
    .await?;
    Ok(stores)
}

/// Whether a file of these vector stores is still to be indexed; stores that have expired do not
/// count.
pub async fn has_unindexed_files(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    ids: &[VectorStoreId],
) -> Result<bool, StoreError> {
    let ids: Vec<&str> = ids.iter().map(VectorStoreId::as_str).collect();
    let found = sqlx::query_scalar(
        "select exists (
             select from vector_store_files as f
             join vector_stores as s on s.id = f.vector_store_id
             where s.project_id = $1 and s.id = any($2) and f.status = 'in_progress'
                 and coalesce(
                     s.last_active_at + s.expires_after_days * interval '24 hours' > now(), true))",
    )
    .bind(project)
    .bind(ids)
    .fetch_one(db)
    .await?;
    Ok(found)
}

/// The vector store of this id, which is being used now; one that has expired stays so.
pub async fn touch(
    db: &Pool,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<Option<SearchableStore>, StoreError> {
    // Searches of the same minute need not wait for the disk and each other.
    let found: Option<(bool, Option<String>, bool)> = sqlx::query_as(
        "select coalesce(last_active_at + expires_after_days * interval '24 hours' <= now(), false),
                embedding_model, last_active_at < now() - interval '1 minute'
         from vector_stores where project_id = $1 and id = $2",
    )
    .bind(project)
    .bind(id)
    .fetch_optional(db)
    .await?;
    let Some((is_expired, embedding_model, is_stale)) = found else {
        return Ok(None);
    };
    if is_stale && !is_expired {
        sqlx::query("update vector_stores set last_active_at = now() where id = $1")
            .bind(id)
            .execute(db)
            .await?;
    }
    Ok(Some(SearchableStore {
        id: id.clone(),
        is_expired,
        embedding_model,
    }))
}

/// Stores vector stores that exist already, with their ids and dates, in the given order and
/// without files. Ids that are taken stay as they are; how many were not.
pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    stores: &[VectorStore],
) -> Result<u64, StoreError> {
    let row = |store: &VectorStore| {
        serde_json::json!({
            "id": store.id,
            "created_at": store.created_at,
            "name": store.name,
            "description": store.description,
            "metadata": store.metadata,
            "expires_after_days": store.expires_after_days,
            "last_active_at": store.last_active_at,
        })
    };
    let rows: Vec<serde_json::Value> = stores.iter().map(row).collect();
    let done = sqlx::query(
        "insert into vector_stores (id, project_id, created_at, name, description, metadata,
                                    expires_after_days, last_active_at)
         select id, $1, created_at, name, description, metadata, expires_after_days, last_active_at
         from rows from (jsonb_to_recordset($2) as (id text, created_at timestamptz, name text,
                 description text, metadata jsonb, expires_after_days integer,
                 last_active_at timestamptz))
             with ordinality as given (id, created_at, name, description, metadata,
                                       expires_after_days, last_active_at, n)
         order by n on conflict (id) do nothing",
    )
    .bind(project)
    .bind(Json(rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
