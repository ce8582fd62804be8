//! Table `threads`.

use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder, Row};

use crate::domain::assistant::ToolResources;
use crate::domain::ids::{FileId, ProjectId, ThreadId, VectorStoreId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::thread::Thread;
use crate::domain::{Metadata, Timestamp};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::{StoreError, json, page};

impl FromRow<'_, PgRow> for Thread {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            metadata: json(row, "metadata")?,
            tool_resources: json(row, "tool_resources")?,
        })
    }
}

/// Stores a new thread, without messages.
pub async fn insert(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    metadata: &Metadata,
    tool_resources: &ToolResources,
) -> Result<Thread, StoreError> {
    let thread = sqlx::query_as(
        "insert into threads (id, project_id, metadata, tool_resources) values ($1, $2, $3, $4)
         returning id, created_at, metadata, tool_resources",
    )
    .bind(ThreadId::generate())
    .bind(project)
    .bind(Json(metadata))
    .bind(Json(tool_resources))
    .fetch_one(db)
    .await?;
    Ok(thread)
}

/// The thread of this id.
pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &ThreadId,
) -> Result<Option<Thread>, StoreError> {
    let thread = sqlx::query_as(
        "select id, created_at, metadata, tool_resources from threads
         where project_id = $1 and id = $2",
    )
    .bind(project)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(thread)
}

/// Whether there is such a thread.
pub async fn exists(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &ThreadId,
) -> Result<bool, StoreError> {
    let found =
        sqlx::query_scalar("select exists (select from threads where project_id = $1 and id = $2)")
            .bind(project)
            .bind(id)
            .fetch_one(db)
            .await?;
    Ok(found)
}

/// A page of the project's threads; with `metadata`, only those that have all these pairs.
pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    metadata: &Metadata,
    request: &PageRequest,
) -> Result<Page<Thread>, ListError> {
    let mut query = QueryBuilder::new(
        "select id, created_at, metadata, tool_resources from threads where project_id = ",
    );
    query.push_bind(project);
    if !metadata.is_empty() {
        query
            .push(" and metadata <> '{}' and metadata @> ")
            .push_bind(Json(metadata));
    }
    page::fetch(pool, query, "threads", project, request).await
}

/// Replaces what is given and keeps the rest. `None` when there is no such thread.
pub async fn update(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &ThreadId,
    metadata: Option<&Metadata>,
    tool_resources: &Map<String, Value>,
) -> Result<Option<Thread>, StoreError> {
    let thread = sqlx::query_as(
        "update threads
         set metadata = coalesce($3, metadata), tool_resources = tool_resources || $4
         where project_id = $1 and id = $2 returning id, created_at, metadata, tool_resources",
    )
    .bind(project)
    .bind(id)
    .bind(metadata.map(Json))
    .bind(Json(tool_resources))
    .fetch_optional(db)
    .await?;
    Ok(thread)
}

/// Adds files to what the thread's code_interpreter sees, each once.
pub async fn add_code_interpreter_files(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &ThreadId,
    files: &[FileId],
) -> Result<(), StoreError> {
    let files: Vec<&str> = files.iter().map(FileId::as_str).collect();
    sqlx::query(
        "update threads set tool_resources = jsonb_set(
             tool_resources || jsonb_build_object('code_interpreter',
                 coalesce(tool_resources -> 'code_interpreter', '{\"file_ids\": []}')),
             '{code_interpreter,file_ids}',
             coalesce(tool_resources #> '{code_interpreter,file_ids}', '[]') || coalesce((
                 select jsonb_agg(distinct file) from unnest($3::text[]) as file
                 where not coalesce(tool_resources #> '{code_interpreter,file_ids}', '[]') ? file
             ), '[]'))
         where project_id = $1 and id = $2",
    )
    .bind(project)
    .bind(id)
    .bind(files)
    .execute(db)
    .await?;
    Ok(())
}

/// Holds the thread's resources until the transaction ends and tells them. `None` when there is no
/// such thread.
pub async fn lock(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &ThreadId,
) -> Result<Option<ToolResources>, StoreError> {
    let resources: Option<Json<ToolResources>> = sqlx::query_scalar(
        "select tool_resources from threads where project_id = $1 and id = $2 for no key update",
    )
    .bind(project)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(resources.map(|resources| resources.0))
}

/// Makes this the thread's vector store.
pub async fn set_vector_store(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &ThreadId,
    store: &VectorStoreId,
) -> Result<(), StoreError> {
    sqlx::query(
        "update threads set tool_resources = tool_resources || jsonb_build_object(
             'file_search', jsonb_build_object('vector_store_ids', jsonb_build_array($3)))
         where project_id = $1 and id = $2",
    )
    .bind(project)
    .bind(id)
    .bind(store)
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes the thread with all its messages and runs; whether there was one.
pub async fn delete(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &ThreadId,
) -> Result<bool, StoreError> {
    let done = sqlx::query("delete from threads where project_id = $1 and id = $2")
        .bind(project)
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Stores threads that exist already, with their ids and dates, in the given order. Ids that are
/// taken stay as they are; how many were not.
pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    threads: &[Thread],
) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "insert into threads (id, project_id, created_at, metadata, tool_resources)
         select id, $1, created_at, metadata, tool_resources
         from rows from (jsonb_to_recordset($2) as (id text, created_at timestamptz,
                                                    metadata jsonb, tool_resources jsonb))
             with ordinality as given (id, created_at, metadata, tool_resources, n)
         order by n on conflict (id) do nothing",
    )
    .bind(project)
    .bind(Json(threads))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes threads on which nothing has happened for as long as their project keeps such, at most
/// `limit` at a time; how many.
pub async fn delete_idle(conn: &mut PgConnection, limit: i64) -> Result<usize, StoreError> {
    // While they are held, nothing can be added to them. What was added just before is seen by the
    // second statement.
    let idle: Vec<(ThreadId, Timestamp)> = sqlx::query_as(
        "select t.id, p.idle_since
         from (select id, now() - thread_retention_days * interval '24 hours' as idle_since
               from projects where thread_retention_days is not null) as p
         join threads as t on t.project_id = p.id and t.created_at < p.idle_since
         where not exists (select from messages
                           where thread_id = t.id and created_at >= p.idle_since)
             and not exists (select from runs
                             where thread_id = t.id and coalesce(ended_at, now()) >= p.idle_since)
         limit $1 for update of t skip locked",
    )
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    let (ids, since): (Vec<ThreadId>, Vec<Timestamp>) = idle.into_iter().unzip();
    let ids: Vec<&str> = ids.iter().map(ThreadId::as_str).collect();
    let done = sqlx::query(
        "delete from threads as t using unnest($1::text[], $2::timestamptz[]) as idle (id, since)
         where t.id = idle.id
             and not exists (select from messages
                             where thread_id = t.id and created_at >= since)
             and not exists (select from runs
                             where thread_id = t.id and coalesce(ended_at, now()) >= since)",
    )
    .bind(ids)
    .bind(since)
    .execute(conn)
    .await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}
