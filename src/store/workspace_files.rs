//! Table `workspace_files`, and all other files of a thread's `/mnt/data`.

use sqlx::PgExecutor;

use crate::domain::ids::{AssistantId, FileId, ProjectId, ThreadId};
use crate::store::StoreError;

/// A file from the code_interpreter resources of an assistant or thread.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ResourceFile {
    pub id: FileId,
    pub filename: String,
}

/// A file that code has written.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct WrittenFile {
    /// Path below `/mnt/data`.
    pub path: String,
    pub file_id: FileId,
}

/// The code_interpreter resources of an assistant and a thread without duplicates: the assistant's
/// files first, each list in its order.
pub async fn resource_files(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    assistant: &AssistantId,
    thread: &ThreadId,
) -> Result<Vec<ResourceFile>, StoreError> {
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

pub async fn written_files(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
) -> Result<Vec<WrittenFile>, StoreError> {
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

/// Records the latest content of a path. Does nothing if the thread does not exist.
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
