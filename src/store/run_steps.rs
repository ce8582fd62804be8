//! Table `run_steps`. Only a lease writes it (`run_queue::commit`, `run_queue::abort`), a caller's
//! tool outputs (`runs::submit`), and an import of runs that are over.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgExecutor, QueryBuilder, Row};

use crate::domain::Timestamp;
use crate::domain::ids::{ProjectId, RunId, StepId, ThreadId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::run::RunState;
use crate::domain::run_step::RunStep;
use crate::store::ListError;
use crate::store::Pool;
use crate::store::{StoreError, json, json_or_null, page};

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

/// The step of this id in this run.
pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    run: &RunId,
    id: &StepId,
) -> Result<Option<RunStep>, StoreError> {
    let step = sqlx::query_as(
        "select id, run_id, thread_id, assistant_id, created_at, status, expires_at, ended_at,
                last_error, details, usage
         from run_steps where project_id = $1 and thread_id = $2 and run_id = $3 and id = $4",
    )
    .bind(project)
    .bind(thread)
    .bind(run)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(step)
}

/// A page of the run's steps.
pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    thread: &ThreadId,
    run: &RunId,
    request: &PageRequest,
) -> Result<Page<RunStep>, ListError> {
    let mut query = QueryBuilder::new(
        "select id, run_id, thread_id, assistant_id, created_at, status, expires_at, ended_at,
                last_error, details, usage
         from run_steps where project_id = ",
    );
    query
        .push_bind(project)
        .push(" and thread_id = ")
        .push_bind(thread);
    query.push(" and run_id = ").push_bind(run);
    page::fetch(pool, query, "run_steps", project, request).await
}

/// All steps of a run, oldest first.
pub async fn of_run(db: impl PgExecutor<'_>, run: &RunId) -> Result<Vec<RunStep>, StoreError> {
    let steps = sqlx::query_as(
        "select id, run_id, thread_id, assistant_id, created_at, status, expires_at, ended_at,
                last_error, details, usage
         from run_steps where run_id = $1 order by created_at, seq",
    )
    .bind(run)
    .fetch_all(db)
    .await?;
    Ok(steps)
}

/// The thread's tool calls since a point, oldest first: what a prompt is built from.
pub async fn tool_calls_since(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    since: Option<Timestamp>,
) -> Result<Vec<RunStep>, StoreError> {
    let steps = sqlx::query_as(
        "select id, run_id, thread_id, assistant_id, created_at, status, expires_at, ended_at,
                last_error, details, usage
         from run_steps
         where project_id = $1 and thread_id = $2 and details ->> 'type' = 'tool_calls'
             and created_at >= coalesce($3, '-infinity')
         order by created_at, seq",
    )
    .bind(project)
    .bind(thread)
    .bind(since)
    .fetch_all(db)
    .await?;
    Ok(steps)
}

/// Whether code has run on this thread.
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

/// Ends the steps that a run left in progress when it took this final state. What they did since
/// they were stored is lost.
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

/// Stores steps of runs that exist already, with their ids and dates, in the given order. Ids that
/// are taken stay as they are; how many were not. The caller knows the runs to be the project's,
/// and over.
pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    steps: &[RunStep],
) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "insert into run_steps (id, project_id, run_id, thread_id, assistant_id, created_at, status,
                                expires_at, ended_at, last_error, details, usage)
         select id, $1, run, thread, assistant, created_at, status, expires_at, ended_at,
                last_error, details, usage
         from rows from (jsonb_to_recordset($2) as (id text, run text, thread text, assistant text,
                 created_at timestamptz, status text, expires_at timestamptz, ended_at timestamptz,
                 last_error jsonb, details jsonb, usage jsonb))
             with ordinality as given (id, run, thread, assistant, created_at, status, expires_at,
                                       ended_at, last_error, details, usage, n)
         order by n on conflict (id) do nothing",
    )
    .bind(project)
    .bind(Json(steps))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
