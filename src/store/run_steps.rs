//! Table `run_steps`. Written by workers with a lease (`run_queue::commit`, `run_queue::abort`), by
//! `runs::submit` with tool outputs, and by imports of terminal runs.

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgExecutor, QueryBuilder, Row};

use crate::domain::Timestamp;
use crate::domain::ids::{AssistantId, ProjectId, RunId, StepId, ThreadId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::run::{RunError, RunState, Usage};
use crate::domain::run_step::{RunStep, StepDetails, StepStatus};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::{StoreError, json, json_or_null, page};

macro_rules! columns {
    () => {
        "id, run_id, thread_id, assistant_id, created_at, status, expires_at, ended_at, \
         last_error, details, usage"
    };
}

impl FromRow<'_, PgRow> for RunStep {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            run: row.try_get("run_id")?,
            thread: row.try_get("thread_id")?,
            assistant: row.try_get("assistant_id")?,
            created_at: row.try_get("created_at")?,
            status: row.try_get("status")?,
            expires_at: row.try_get("expires_at")?,
            ended_at: row.try_get("ended_at")?,
            last_error: json_or_null(row, "last_error")?,
            details: json(row, "details")?,
            usage: json_or_null(row, "usage")?,
        })
    }
}

#[derive(Debug, Serialize)]
pub(super) struct StepRow<'a> {
    id: &'a StepId,
    run_id: &'a RunId,
    thread_id: &'a ThreadId,
    assistant_id: &'a AssistantId,
    created_at: Timestamp,
    status: StepStatus,
    expires_at: Timestamp,
    ended_at: Option<Timestamp>,
    last_error: Option<&'a RunError>,
    details: &'a StepDetails,
    usage: Option<Usage>,
}

impl<'a> From<&'a RunStep> for StepRow<'a> {
    fn from(step: &'a RunStep) -> Self {
        Self {
            id: &step.id,
            run_id: &step.run,
            thread_id: &step.thread,
            assistant_id: &step.assistant,
            created_at: step.created_at,
            status: step.status,
            expires_at: step.expires_at,
            ended_at: step.ended_at,
            last_error: step.last_error.as_ref(),
            details: &step.details,
            usage: step.usage,
        }
    }
}

pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    run: &RunId,
    id: &StepId,
) -> Result<Option<RunStep>, StoreError> {
    let step = sqlx::query_as(concat!(
        "select ",
        columns!(),
        "
         from run_steps where project_id = $1 and thread_id = $2 and run_id = $3 and id = $4"
    ))
    .bind(project)
    .bind(thread)
    .bind(run)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(step)
}

/// The thread and the run of a step of which only the id is known.
pub async fn parents_of(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &StepId,
) -> Result<Option<(ThreadId, RunId)>, StoreError> {
    let parents =
        sqlx::query_as("select thread_id, run_id from run_steps where project_id = $1 and id = $2")
            .bind(project)
            .bind(id)
            .fetch_optional(db)
            .await?;
    Ok(parents)
}

pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    thread: &ThreadId,
    run: &RunId,
    request: &PageRequest,
) -> Result<Page<RunStep>, ListError> {
    let mut query = QueryBuilder::new(concat!(
        "select ",
        columns!(),
        "
         from run_steps where project_id = "
    ));
    query
        .push_bind(project)
        .push(" and thread_id = ")
        .push_bind(thread);
    query.push(" and run_id = ").push_bind(run);
    page::fetch(pool, query, "run_steps", project, request).await
}

/// All steps of a run, oldest first.
pub async fn list_all(db: impl PgExecutor<'_>, run: &RunId) -> Result<Vec<RunStep>, StoreError> {
    let steps = sqlx::query_as(concat!(
        "select ",
        columns!(),
        "
         from run_steps where run_id = $1 order by created_at, seq"
    ))
    .bind(run)
    .fetch_all(db)
    .await?;
    Ok(steps)
}

/// The steps with tool calls of the thread since a time, oldest first, for prompts.
pub async fn tool_calls_since(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    since: Option<Timestamp>,
) -> Result<Vec<RunStep>, StoreError> {
    let steps = sqlx::query_as(concat!(
        "select ",
        columns!(),
        "
         from run_steps
         where project_id = $1 and thread_id = $2 and details ->> 'type' = 'tool_calls'
             and created_at >= coalesce($3, '-infinity')
         order by created_at, seq"
    ))
    .bind(project)
    .bind(thread)
    .bind(since)
    .fetch_all(db)
    .await?;
    Ok(steps)
}

pub async fn has_run_code(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
) -> Result<bool, StoreError> {
    let has = sqlx::query_scalar(
        r#"select exists (
             select from run_steps
             where project_id = $1 and thread_id = $2 and details ->> 'type' = 'tool_calls'
                 and status = 'completed'
                 and details::jsonb @> '{"calls": [{"code_interpreter": {}}]}')"#,
    )
    .bind(project)
    .bind(thread)
    .fetch_one(db)
    .await?;
    Ok(has)
}

/// Ends the steps that are in progress when their run ends in this state.
pub async fn end_open(
    db: impl PgExecutor<'_>,
    run: &RunId,
    state: &RunState,
) -> Result<(), StoreError> {
    sqlx::query(
        "update run_steps set last_error = $4, ended_at = coalesce($3, now()),
             status = case when $2 in ('cancelled', 'expired') then $2 else 'failed' end
         where run_id = $1 and status = 'in_progress'",
    )
    .bind(run)
    .bind(state.status.as_str())
    .bind(state.ended_at)
    .bind(state.outcome.last_error.as_ref().map(Json))
    .execute(db)
    .await?;
    Ok(())
}

pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    steps: &[RunStep],
) -> Result<u64, StoreError> {
    let rows: Vec<StepRow<'_>> = steps.iter().map(StepRow::from).collect();
    let done = sqlx::query(concat!(
        "insert into run_steps (project_id, ",
        columns!(),
        ") select $1, ",
        columns!(),
        " from jsonb_populate_recordset(null::run_steps, $2) with ordinality
         order by ordinality on conflict (id) do nothing"
    ))
    .bind(project)
    .bind(Json(rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
