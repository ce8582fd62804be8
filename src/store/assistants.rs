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
use crate::store::batch::{Batch, by_place};
use crate::store::{JsonText, StoreError, json, page};

macro_rules! columns {
    () => {
        "id, created_at, config, tool_resources, metadata"
    };
}

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

pub async fn insert(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    config: &AssistantConfig,
    tool_resources: &ToolResources,
    metadata: &Metadata,
) -> Result<Assistant, StoreError> {
    let assistant = sqlx::query_as(concat!(
        "insert into assistants (id, project_id, config, tool_resources, metadata)
         values ($1, $2, $3, $4, $5)
         returning ",
        columns!()
    ))
    .bind(AssistantId::generate())
    .bind(project)
    .bind(JsonText(config))
    .bind(Json(tool_resources))
    .bind(Json(metadata))
    .fetch_one(db)
    .await?;
    Ok(assistant)
}

struct Find {
    project: ProjectId,
    id: AssistantId,
}

impl Batch for Find {
    type Output = Option<Assistant>;

    async fn execute(pool: &Pool, items: &[Self]) -> Result<Vec<Self::Output>, StoreError> {
        let rows = sqlx::query(concat!(
            "select ",
            columns!(),
            ", n from unnest((select $1::text[]), $2::text[]) with ordinality as asked (project, id, n)
             join assistants using (id) where project_id = project"
        ))
        .bind(
            items
                .iter()
                .map(|it| it.project.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(items.iter().map(|it| it.id.as_str()).collect::<Vec<_>>())
        .fetch_all(pool)
        .await?;
        by_place(items.len(), &rows)
    }
}

pub async fn find(
    pool: &Pool,
    project: &ProjectId,
    id: &AssistantId,
) -> Result<Option<Assistant>, StoreError> {
    let (project, id) = (project.clone(), id.clone());
    pool.batched(Find { project, id }).await
}

pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    request: &PageRequest,
) -> Result<Page<Assistant>, ListError> {
    let mut query = QueryBuilder::new(concat!(
        "select ",
        columns!(),
        " from assistants where project_id = "
    ));
    query.push_bind(project);
    page::fetch(pool, query, "assistants", project, request).await
}

/// Replaces the settings named in `changes`, the resources of the tools in `tool_resources`, and
/// the metadata as a whole.
pub async fn update(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &AssistantId,
    changes: &Map<String, Value>,
    tool_resources: &ToolResources,
    metadata: Option<&Metadata>,
) -> Result<Option<Assistant>, StoreError> {
    let assistant = sqlx::query_as(concat!(
        "update assistants
         set config = (select json_object_agg(key, coalesce(changed.value, kept.value))
                       from json_each(config) kept full join json_each($3) changed using (key)),
             tool_resources = tool_resources || $4,
             metadata = coalesce($5, metadata)
         where project_id = $1 and id = $2 returning ",
        columns!()
    ))
    .bind(project)
    .bind(id)
    .bind(JsonText(changes))
    .bind(Json(tool_resources))
    .bind(metadata.map(Json))
    .fetch_optional(db)
    .await?;
    Ok(assistant)
}

/// Deletes the assistant, but not its runs.
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
    let done = sqlx::query(concat!(
        "insert into assistants (project_id, ",
        columns!(),
        ") select $1, ",
        columns!(),
        " from json_populate_recordset(null::assistants, $2) with ordinality
         order by ordinality on conflict (id) do nothing"
    ))
    .bind(project)
    .bind(JsonText(&rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
