//! Table `threads`.

use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder, Row};

use crate::domain::assistant::ToolResources;
use crate::domain::ids::{FileId, ProjectId, ThreadId, VectorStoreId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::thread::{Thread, ThreadFilter};
use crate::domain::{Metadata, Timestamp};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::batch::{Batch, in_order};
use crate::store::{StoreError, json, page};

macro_rules! columns {
    () => {
        "id, created_at, metadata, tool_resources"
    };
}

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

/// A thread to insert.
#[derive(Debug)]
pub struct NewThreadRow {
    pub project: ProjectId,
    pub metadata: Metadata,
    pub tool_resources: ToolResources,
}

impl Batch for NewThreadRow {
    type Output = Thread;

    async fn execute(pool: &Pool, items: &[Self]) -> Result<Vec<Thread>, StoreError> {
        insert_all(pool, items).await
    }
}

/// Inserts a thread, in one statement with those of other callers.
pub async fn insert(pool: &Pool, thread: NewThreadRow) -> Result<Thread, StoreError> {
    pool.batched(thread).await
}

pub async fn insert_in_transaction(
    connection: &mut PgConnection,
    thread: NewThreadRow,
) -> Result<Thread, StoreError> {
    let inserted = insert_all(connection, &[thread]).await?;
    inserted
        .into_iter()
        .next()
        .ok_or_else(StoreError::missing_row)
}

async fn insert_all(
    db: impl PgExecutor<'_>,
    threads: &[NewThreadRow],
) -> Result<Vec<Thread>, StoreError> {
    let ids: Vec<ThreadId> = threads.iter().map(|_| ThreadId::generate()).collect();
    let projects: Vec<&str> = threads.iter().map(|new| new.project.as_str()).collect();
    let metadata: Vec<_> = threads.iter().map(|new| Json(&new.metadata)).collect();
    let resources: Vec<_> = threads
        .iter()
        .map(|new| Json(&new.tool_resources))
        .collect();
    let inserted = sqlx::query_as(concat!(
        "insert into threads (id, project_id, metadata, tool_resources)
         select id, project_id, metadata, tool_resources
         from unnest((select $1::text[]), $2::text[], $3::jsonb[], $4::jsonb[]) with ordinality
             as new (id, project_id, metadata, tool_resources, n)
         order by n
         returning ",
        columns!()
    ))
    .bind(ids.iter().map(ThreadId::as_str).collect::<Vec<_>>())
    .bind(projects)
    .bind(metadata)
    .bind(resources)
    .fetch_all(db)
    .await?;
    in_order(&ids, inserted, |thread: &Thread| &thread.id)
}

pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &ThreadId,
) -> Result<Option<Thread>, StoreError> {
    let thread = sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from threads
         where project_id = $1 and id = $2"
    ))
    .bind(project)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(thread)
}

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

pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    filter: &ThreadFilter,
    request: &PageRequest,
) -> Result<Page<Thread>, ListError> {
    let mut query = QueryBuilder::new(concat!(
        "select ",
        columns!(),
        " from threads where project_id = "
    ));
    query.push_bind(project);
    if let Some(after) = filter.created_after {
        query.push(" and created_at >= ").push_bind(after);
    }
    if let Some(before) = filter.created_before {
        query.push(" and created_at < ").push_bind(before);
    }
    if !filter.metadata.is_empty() {
        query
            .push(" and metadata <> '{}' and metadata @> ")
            .push_bind(Json(&filter.metadata));
    }
    page::fetch(pool, query, "threads", project, request).await
}

/// Replaces the metadata, if given, and the resources of the tools in `tool_resources`.
pub async fn update(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &ThreadId,
    metadata: Option<&Metadata>,
    tool_resources: &Map<String, Value>,
) -> Result<Option<Thread>, StoreError> {
    let thread = sqlx::query_as(concat!(
        "update threads
         set metadata = coalesce($3, metadata), tool_resources = tool_resources || $4
         where project_id = $1 and id = $2 returning ",
        columns!()
    ))
    .bind(project)
    .bind(id)
    .bind(metadata.map(Json))
    .bind(Json(tool_resources))
    .fetch_optional(db)
    .await?;
    Ok(thread)
}

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

/// Locks the thread row and returns its tool resources.
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

/// Deletes the thread with its messages and runs.
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

pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    threads: &[Thread],
) -> Result<u64, StoreError> {
    let done = sqlx::query(concat!(
        "insert into threads (project_id, ",
        columns!(),
        ") select $1, ",
        columns!(),
        " from jsonb_populate_recordset(null::threads, $2) with ordinality
         order by ordinality on conflict (id) do nothing"
    ))
    .bind(project)
    .bind(Json(threads))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes at most `limit` threads that were idle for longer than the retention of their project.
/// Returns their number.
pub async fn delete_idle(conn: &mut PgConnection, limit: i64) -> Result<usize, StoreError> {
    // Nothing can be added to a locked thread. What was added just before is visible to the second
    // statement.
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
