//! Table `vector_stores`.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder, Row};

use crate::domain::ids::{AssistantId, ProjectId, ThreadId, VectorStoreId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::vector_store::{
    FileCounts, NewVectorStore, SearchableStore, VectorStore, VectorStoreChanges,
};
use crate::store::vector_store_files::{self, AddFilesError};
use crate::store::{ListError, Pool, StoreError, json, page};

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

pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<Option<VectorStore>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(project).push(" and s.id = ").push_bind(id);
    Ok(query.build_query_as().fetch_optional(db).await?)
}

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

pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    request: &PageRequest,
) -> Result<Page<VectorStore>, ListError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(project);
    page::fetch(pool, query, "vector_stores", project, request).await
}

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

/// Deletes the vector store, not its files, and the references of the project's assistants and
/// threads to it. Searches no longer find its chunks; maintenance deletes them.
pub async fn delete(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<bool, StoreError> {
    // Adding to a thread's store locks the thread before the store, so this must do the same.
    remove_references(conn, project, id).await?;
    let done = sqlx::query("delete from vector_stores where project_id = $1 and id = $2")
        .bind(project)
        .bind(id)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Locks rows in order, so that concurrent deletions cannot deadlock.
async fn remove_references(
    conn: &mut PgConnection,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<(), StoreError> {
    sqlx::query(
        "with referring as (
             select id from assistants
             where project_id = $1
               and tool_resources #> '{file_search,vector_store_ids}' <> '[]'
               and (tool_resources #> '{file_search,vector_store_ids}') ? $2
             order by id for update)
         update assistants set tool_resources = jsonb_set(
             tool_resources, '{file_search,vector_store_ids}',
             (tool_resources #> '{file_search,vector_store_ids}') - $2)
         where id in (select id from referring)",
    )
    .bind(project)
    .bind(id)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "with referring as (
             select id from threads
             where project_id = $1
               and tool_resources #> '{file_search,vector_store_ids}' <> '[]'
               and (tool_resources #> '{file_search,vector_store_ids}') ? $2
             order by id for update)
         update threads set tool_resources = jsonb_set(
             tool_resources, '{file_search,vector_store_ids}',
             (tool_resources #> '{file_search,vector_store_ids}') - $2)
         where id in (select id from referring)",
    )
    .bind(project)
    .bind(id)
    .execute(conn)
    .await?;
    Ok(())
}

/// The vector stores that a run searches: those of the assistant, then those of the thread.
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

/// Whether a file of these vector stores is not indexed yet. Expired stores do not count.
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

/// Finds a vector store for a search and marks it as active now, unless it has expired.
pub async fn touch(
    db: &Pool,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<Option<SearchableStore>, StoreError> {
    // Once a minute is enough: otherwise each search would wait for the disk and for the others.
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

/// The files of the stores are imported separately.
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
