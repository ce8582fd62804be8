//! Table `workspace_files`, and everything else that belongs into a thread's `/mnt/data`.

use sqlx::PgExecutor;

use crate::domain::ids::{AssistantId, FileId, ProjectId, ThreadId};
use crate::store::StoreError;

/// A file that a client gave to code_interpreter.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Given {
    /// The file.
    pub id: FileId,
    /// Its name, as the client sent it.
    pub filename: String,
}

/// A file that code wrote.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Written {
    /// Path below `/mnt/data`.
    pub path: String,
    /// The file that has its newest content.
    pub file_id: FileId,
}

/// What the assistant and the thread give to code_interpreter, each file once: the assistant's
/// files first, each list in its order.
pub async fn given(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    assistant: &AssistantId,
    thread: &ThreadId,
) -> Result<Vec<Given>, StoreError> {
    let files = sqlx::query_as(
        "with resources as (
             select 1 as place, tool_resources from assistants
             where project_id = $1 and id = $2
             union all
             select 2, tool_resources from threads where project_id = $1 and id = $3),
         listed as (
             select file_id, min(array[place, n]) as at
             from resources, jsonb_array_elements_text(
                 coalesce(tool_resources #> '{code_interpreter,file_ids}', '[]'))
                 with ordinality as ids (file_id, n)
             group by file_id)
         select id, filename from files join listed on file_id = id
         where project_id = $1 and (expires_at is null or expires_at > now()) order by at",
    )
    .bind(project)
    .bind(assistant)
    .bind(thread)
    .fetch_all(db)
    .await?;
    Ok(files)
}

/// What code has written on this thread.
pub async fn written(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
) -> Result<Vec<Written>, StoreError> {
    let files = sqlx::query_as(
        "select path, file_id from workspace_files
         join files on id = file_id
         where project_id = $1 and thread_id = $2
             and (expires_at is null or expires_at > now()) order by path",
    )
    .bind(project)
    .bind(thread)
    .fetch_all(db)
    .await?;
    Ok(files)
}

/// Notes the newest content of a path. Nothing is noted on a thread that is gone.
pub async fn upsert(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    path: &str,
    file: &FileId,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into workspace_files (thread_id, path, file_id)
         select id, $3, $4 from threads where project_id = $1 and id = $2 for key share
         on conflict (thread_id, path) do update set file_id = excluded.file_id",
    )
    .bind(project)
    .bind(thread)
    .bind(path)
    .bind(file)
    .execute(db)
    .await?;
    Ok(())
}
