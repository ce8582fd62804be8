//! Table `assistants`.

use serde_json::{Map, Value, json};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgExecutor, QueryBuilder, Row};

use crate::domain::Metadata;
use crate::domain::assistant::{Assistant, AssistantConfig, ToolResources};
use crate::domain::ids::{AssistantId, ProjectId};
use crate::domain::page::{Page, PageRequest};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::{AsWritten, StoreError, json, page};

impl FromRow<'_, PgRow> for Assistant {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            config: json(row, "config")?,
            tool_resources: json(row, "tool_resources")?,
            metadata: json(row, "metadata")?,
        })
    }
}

/// Stores a new assistant.
pub async fn insert(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    config: &AssistantConfig,
    tool_resources: &ToolResources,
    metadata: &Metadata,
) -> Result<Assistant, StoreError> {
    let assistant = sqlx::query_as(
        "insert into assistants (id, project_id, config, tool_resources, metadata)
         values ($1, $2, $3, $4, $5)
         returning id, created_at, config, tool_resources, metadata",
    )
    .bind(AssistantId::generate())
    .bind(project)
    .bind(AsWritten(config))
    .bind(Json(tool_resources))
    .bind(Json(metadata))
    .fetch_one(db)
    .await?;
    Ok(assistant)
}

/// The assistant of this id.
pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &AssistantId,
) -> Result<Option<Assistant>, StoreError> {
    let assistant = sqlx::query_as(
        "select id, created_at, config, tool_resources, metadata from assistants
         where project_id = $1 and id = $2",
    )
    .bind(project)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(assistant)
}

/// A page of the project's assistants.
pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    request: &PageRequest,
) -> Result<Page<Assistant>, ListError> {
    let mut query = QueryBuilder::new(
        "select id, created_at, config, tool_resources, metadata from assistants where project_id = ",
    );
    query.push_bind(project);
    page::fetch(pool, query, "assistants", project, request).await
}

/// Replaces the settings named in `changes` and keeps the others; likewise each tool's resources,
/// and the metadata as a whole. `None` when there is no such assistant.
pub async fn update(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &AssistantId,
    changes: &Map<String, Value>,
    tool_resources: &ToolResources,
    metadata: Option<&Metadata>,
) -> Result<Option<Assistant>, StoreError> {
    let assistant = sqlx::query_as(
        "update assistants
         set config = (select json_object_agg(key, coalesce(changed.value, kept.value))
                       from json_each(config) kept full join json_each($3) changed using (key)),
             tool_resources = tool_resources || $4,
             metadata = coalesce($5, metadata)
         where project_id = $1 and id = $2 returning id, created_at, config, tool_resources, metadata",
    )
    .bind(project)
    .bind(id)
    .bind(AsWritten(changes))
    .bind(Json(tool_resources))
    .bind(metadata.map(Json))
    .fetch_optional(db)
    .await?;
    Ok(assistant)
}

/// Deletes the assistant; whether there was one. Its runs stay.
pub async fn delete(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &AssistantId,
) -> Result<bool, StoreError> {
    let done = sqlx::query("delete from assistants where project_id = $1 and id = $2")
        .bind(project)
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Stores assistants that exist already, with their ids and dates, in the given order. Ids that
/// are taken stay as they are; how many were not.
pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    assistants: &[Assistant],
) -> Result<u64, StoreError> {
    let row = |assistant: &Assistant| {
        json!({
            "id": assistant.id,
            "created_at": assistant.created_at,
            "config": assistant.config,
            "tool_resources": assistant.tool_resources,
            "metadata": assistant.metadata,
        })
    };
    let rows: Vec<Value> = assistants.iter().map(row).collect();
    let done = sqlx::query(
        "insert into assistants (id, project_id, created_at, config, tool_resources, metadata)
         select id, $1, created_at, config, tool_resources, metadata
         from rows from (json_to_recordset($2) as (id text, created_at timestamptz, config json,
                                                   tool_resources jsonb, metadata jsonb))
             with ordinality as given (id, created_at, config, tool_resources, metadata, n)
         order by n on conflict (id) do nothing",
    )
    .bind(project)
    .bind(AsWritten(&rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
