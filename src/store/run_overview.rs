//! Table `runs` over all threads of a project, for overviews.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgExecutor, Postgres, QueryBuilder, Row};

use crate::domain::ids::{ProjectId, RunId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::run::{Run, RunStatus};
use crate::domain::run_overview::{RunCounts, RunExecution, RunFilter, StepExecution};
use crate::store::runs::{run_columns, status_names};
use crate::store::{ListError, Pool, StoreError, json, page};

/// How many of the newest runs are counted.
pub const MAX_COUNTED: i64 = 10_000;

/// The bound of [`RunExecution::queued_before`].
const MAX_QUEUED_BEFORE: i64 = 1_000;

pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    filter: &RunFilter,
    request: &PageRequest,
) -> Result<Page<Run>, ListError> {
    let mut query = QueryBuilder::new(concat!(
        "select ",
        run_columns!(),
        " from runs where project_id = "
    ));
    query.push_bind(project);
    push_period(&mut query, filter);
    push_conditions(&mut query, filter);
    page::fetch(pool, query, "runs", project, request).await
}

/// Counts those of the project's newest [`MAX_COUNTED`] runs in the period that meet the filter.
pub async fn count(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    filter: &RunFilter,
) -> Result<RunCounts, StoreError> {
    let mut query = QueryBuilder::new(
        "with newest as (
             select status, assistant_id, config, metadata from runs where project_id = ",
    );
    query.push_bind(project);
    push_period(&mut query, filter);
    query
        .push(" order by created_at desc, seq desc limit ")
        .push_bind(MAX_COUNTED + 1)
        .push(
            ")
         select status, count(*), (select count(*) from newest) as considered
         from (select * from newest limit ",
        )
        .push_bind(MAX_COUNTED)
        .push(") as counted where true");
    push_conditions(&mut query, filter);
    query.push(" group by status");
    let rows: Vec<(RunStatus, i64, i64)> = query.build_query_as().fetch_all(db).await?;
    Ok(RunCounts {
        has_more: rows.first().is_some_and(|row| row.2 > MAX_COUNTED),
        by_status: rows.into_iter().map(|row| (row.0, row.1)).collect(),
    })
}

fn push_period(query: &mut QueryBuilder<Postgres>, filter: &RunFilter) {
    if let Some(after) = filter.created_after {
        query.push(" and created_at >= ").push_bind(after);
    }
    if let Some(before) = filter.created_before {
        query.push(" and created_at < ").push_bind(before);
    }
}

fn push_conditions(query: &mut QueryBuilder<Postgres>, filter: &RunFilter) {
    if !filter.statuses.is_empty() {
        query
            .push(" and status = any(")
            .push_bind(status_names(&filter.statuses))
            .push(")");
    }
    if let Some(assistant) = &filter.assistant {
        query
            .push(" and assistant_id = ")
            .push_bind(assistant.clone());
    }
    if let Some(model) = &filter.model {
        query
            .push(" and config ->> 'model' = ")
            .push_bind(model.clone());
    }
    if !filter.metadata.is_empty() {
        query
            .push(" and metadata @> ")
            .push_bind(Json(filter.metadata.clone()));
    }
}

impl FromRow<'_, PgRow> for RunExecution {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            run: row.try_get("id")?,
            thread: row.try_get("thread_id")?,
            status: row.try_get("status")?,
            created_at: row.try_get("created_at")?,
            started_at: row.try_get("started_at")?,
            ended_at: row.try_get("ended_at")?,
            attempts: row.try_get("attempt")?,
            recoveries: row.try_get("recoveries")?,
            is_leased: row.try_get("is_leased")?,
            due_at: row.try_get("due_at")?,
            queued_before: row.try_get("queued_before")?,
            steps: Vec::new(),
        })
    }
}

impl FromRow<'_, PgRow> for StepExecution {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            ended_at: row.try_get("ended_at")?,
            searches: json(row, "searches")?,
        })
    }
}

/// How the run is executed, with its steps, oldest first.
pub async fn execution(
    pool: &Pool,
    project: &ProjectId,
    id: &RunId,
) -> Result<Option<RunExecution>, StoreError> {
    let execution: Option<RunExecution> = sqlx::query_as(
        "select id, thread_id, status, created_at, started_at, ended_at, attempt, recoveries,
                lease_owner is not null as is_leased, due_at,
                case when status = 'queued' then
                    (select count(*) from (
                         select from runs as earlier
                         where earlier.due_at < runs.due_at and earlier.status = 'queued'
                         limit $3) as before)
                end as queued_before
         from runs where project_id = $1 and id = $2",
    )
    .bind(project)
    .bind(id)
    .bind(MAX_QUEUED_BEFORE)
    .fetch_optional(pool)
    .await?;
    let Some(mut execution) = execution else {
        return Ok(None);
    };
    execution.steps = sqlx::query_as(
        "select id, created_at, ended_at,
                (select coalesce(jsonb_object_agg(
                     call ->> 'id', call #>> '{file_search,arguments}'), '{}')
                 from jsonb_array_elements(details -> 'calls') as call
                 where call ? 'file_search') as searches
         from run_steps where run_id = $1 order by created_at, seq",
    )
    .bind(id)
    .fetch_all(pool)
    .await?;
    Ok(Some(execution))
}
