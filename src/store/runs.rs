//! Table `runs` as the API sees it. Workers read and write it through
//! [`run_queue`](crate::store::run_queue).
//!
//! Every transition is one statement with its guard inside, taken from
//! [`RunStatus::allowed_from`].

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder, Row};

use crate::domain::event::Seq;
use crate::domain::ids::{AssistantId, ProjectId, RunId, ThreadId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::run::{Run, RunConfig, RunState, RunStatus};
use crate::domain::run_step::StepDetails;
use crate::domain::tool::{ToolCall, ToolCallBody};
use crate::domain::{Metadata, Timestamp};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::lease::{Claimant, Lease};
use crate::store::{JsonText, StoreError, is_refused_by, json, page, projects, run_steps};

macro_rules! run_columns {
    () => {
        "id, project_id, thread_id, assistant_id, created_at, config, metadata, status, \
         started_at, expires_at, ended_at, outcome"
    };
}
pub(super) use run_columns;

impl FromRow<'_, PgRow> for Run {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            project: row.try_get("project_id")?,
            thread: row.try_get("thread_id")?,
            assistant: row.try_get("assistant_id")?,
            created_at: row.try_get("created_at")?,
            config: json::<Arc<RunConfig>>(row, "config")?,
            metadata: json(row, "metadata")?,
            state: RunState {
                status: row.try_get("status")?,
                started_at: row.try_get("started_at")?,
                expires_at: row.try_get("expires_at")?,
                ended_at: row.try_get("ended_at")?,
                outcome: json(row, "outcome")?,
            },
        })
    }
}

#[derive(Debug, Clone)]
pub struct NewRun<'a> {
    /// Chosen by the caller, so that the run's feed can be opened before the run is stored.
    pub id: RunId,
    pub thread: &'a ThreadId,
    pub assistant: &'a AssistantId,
    pub config: Arc<RunConfig>,
    pub metadata: &'a Metadata,
    pub expires_after: Duration,
    /// Whether the thread must have a message, because there are no instructions.
    pub needs_message: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateRunError {
    /// There is no such thread, or it has no message although the run needs one.
    #[error("there is nothing to run on")]
    NothingToRun,
    #[error("another run on the thread is active")]
    ThreadBusy,
    #[error("the project may have {0} runs at a time")]
    TooManyRuns(i32),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CreateRunError {
    fn from(error: sqlx::Error) -> Self {
        if is_refused_by(&error, "runs_one_active_per_thread") {
            return Self::ThreadBusy;
        }
        Self::Store(error.into())
    }
}

/// Stores a new run, queued, or leased to the claimant, which saves the commit of a separate claim.
pub async fn insert(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    new: &NewRun<'_>,
    claimant: Option<&Claimant>,
) -> Result<(Run, Option<Lease>), CreateRunError> {
    let run: Option<Run> = sqlx::query_as(concat!(
        "insert into runs (id, project_id, thread_id, assistant_id, config, metadata, expires_at,
                           status, started_at, due_at, attempt, lease_owner)
         select $1, project_id, id, $4, $5, $6, now() + $7,
                case when $8::text is null then 'queued' else 'in_progress' end,
                case when $8 is not null then now() end,
                case when $8 is null then now() else now() + $9 end,
                case when $8 is null then 0 else 1 end, $8
         from threads where project_id = $2 and id = $3
             and (not $10 or exists (select from messages where thread_id = threads.id))
         returning ",
        run_columns!()
    ))
    .bind(&new.id)
    .bind(project)
    .bind(new.thread)
    .bind(new.assistant)
    .bind(JsonText(&*new.config))
    .bind(Json(new.metadata))
    .bind(new.expires_after)
    .bind(claimant.map(|claimant| &claimant.owner))
    .bind(claimant.map(|claimant| claimant.lease))
    .bind(new.needs_message)
    .fetch_optional(db)
    .await?;
    let run = run.ok_or(CreateRunError::NothingToRun)?;
    let lease = claimant.map(|_| Lease {
        run: run.id.clone(),
        attempt: 1,
    });
    Ok((run, lease))
}

/// Stores a new run as [`insert`] does, unless `max` runs of the project are queued or in progress.
///
/// The bound is exact: an advisory lock, held until the transaction ends, admits the runs of a
/// project one after the other.
pub async fn insert_within(
    conn: &mut PgConnection,
    project: &ProjectId,
    new: &NewRun<'_>,
    claimant: Option<&Claimant>,
    max: i32,
) -> Result<(Run, Option<Lease>), CreateRunError> {
    projects::lock_run_creation(&mut *conn, project).await?;
    // A separate statement sees what others have committed while this one waited for the lock.
    let active: i64 = sqlx::query_scalar(
        "select count(*) from (
             select from runs
             where project_id = $1 and status in ('queued', 'in_progress', 'cancelling')
             limit $2) as run",
    )
    .bind(project)
    .bind(max)
    .fetch_one(&mut *conn)
    .await?;
    // If the thread is busy, the insertion fails with that error, which takes precedence.
    if active >= i64::from(max) && active_on(&mut *conn, project, new.thread).await?.is_none() {
        return Err(CreateRunError::TooManyRuns(max));
    }
    insert(conn, project, new, claimant).await
}

pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
) -> Result<Option<Run>, StoreError> {
    let run = sqlx::query_as(concat!(
        "select ",
        run_columns!(),
        "
         from runs where project_id = $1 and thread_id = $2 and id = $3"
    ))
    .bind(project)
    .bind(thread)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(run)
}

/// The thread of a run of which only the id is known.
pub async fn thread_of(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    id: &RunId,
) -> Result<Option<ThreadId>, StoreError> {
    let thread = sqlx::query_scalar("select thread_id from runs where project_id = $1 and id = $2")
        .bind(project)
        .bind(id)
        .fetch_optional(db)
        .await?;
    Ok(thread)
}

pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    thread: &ThreadId,
    request: &PageRequest,
) -> Result<Page<Run>, ListError> {
    let mut query = QueryBuilder::new(concat!(
        "select ",
        run_columns!(),
        "
         from runs where project_id = "
    ));
    query
        .push_bind(project)
        .push(" and thread_id = ")
        .push_bind(thread);
    page::fetch(pool, query, "runs", project, request).await
}

pub async fn active_on(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
) -> Result<Option<RunId>, StoreError> {
    let run = sqlx::query_scalar(
        "select id from runs where project_id = $1 and thread_id = $2 and
             status in ('queued', 'in_progress', 'requires_action', 'cancelling')",
    )
    .bind(project)
    .bind(thread)
    .fetch_optional(db)
    .await?;
    Ok(run)
}

/// Replaces the metadata, if given. `None` if the run does not exist or is in progress.
pub async fn update(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
    metadata: Option<&Metadata>,
) -> Result<Option<Run>, StoreError> {
    let run = sqlx::query_as(concat!(
        "update runs set metadata = coalesce($4, metadata)
         where project_id = $1 and thread_id = $2 and id = $3 and status <> 'in_progress'
         returning ",
        run_columns!()
    ))
    .bind(project)
    .bind(thread)
    .bind(id)
    .bind(metadata.map(Json))
    .fetch_optional(db)
    .await?;
    Ok(run)
}

/// Requests the cancellation of an active run. A run without a worker becomes due at once, so that
/// a worker terminates it. `None` if the run does not exist or its status does not allow it.
pub async fn cancel(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
) -> Result<Option<Run>, StoreError> {
    let run = sqlx::query_as(concat!(
        "update runs set status = 'cancelling', outcome = '{}',
             due_at = case when lease_owner is null then now() else due_at end
         where project_id = $1 and thread_id = $2 and id = $3 and status = any($4)
         returning ",
        run_columns!()
    ))
    .bind(project)
    .bind(thread)
    .bind(id)
    .bind(status_names(RunStatus::Cancelling.allowed_from()))
    .fetch_optional(db)
    .await?;
    Ok(run)
}

#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("no such run")]
    NotFound,
    #[error("the run is {0:?}")]
    WrongStatus(RunStatus),
    #[error("expected outputs for {expected:?}")]
    WrongCalls {
        /// Ids of the required calls, in order.
        expected: Vec<String>,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for SubmitError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

#[derive(Debug)]
pub struct Submitted {
    pub run: Run,
    pub lease: Option<Lease>,
    /// Events of the next attempt follow this sequence number.
    pub after: Seq,
    pub started_at: Option<Timestamp>,
}

/// Stores the outputs of all required calls, completes their step, and queues the run again or
/// leases it to the claimant. Must be called in a transaction.
pub async fn submit(
    connection: &mut PgConnection,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
    outputs: &[(String, String)],
    claimant: Option<&Claimant>,
) -> Result<Submitted, SubmitError> {
    let row = sqlx::query(
        "select status, expires_at <= now() as expired, outcome, attempt, started_at
         from runs where project_id = $1 and thread_id = $2 and id = $3 for update",
    )
    .bind(project)
    .bind(thread)
    .bind(id)
    .fetch_optional(&mut *connection)
    .await?
    .ok_or(SubmitError::NotFound)?;
    let status: RunStatus = row.try_get("status")?;
    if status != RunStatus::RequiresAction {
        return Err(SubmitError::WrongStatus(status));
    }
    if row.try_get("expired")? {
        return Err(SubmitError::WrongStatus(RunStatus::Expired));
    }
    let outcome: crate::domain::run::RunOutcome = json(&row, "outcome")?;
    let expected: Vec<String> = outcome
        .required_calls
        .into_iter()
        .map(|call| call.id)
        .collect();
    let is_complete = expected.len() == outputs.len()
        && expected
            .iter()
            .all(|id| outputs.iter().any(|(call, _)| call == id));
    if !is_complete {
        return Err(SubmitError::WrongCalls { expected });
    }

    let step = run_steps::find_open(&mut *connection, id).await?;
    let details = with_outputs(step.details, outputs);
    run_steps::complete(&mut *connection, &step.id, &details).await?;

    let attempt: i32 = row.try_get("attempt")?;
    let run: Run = sqlx::query_as(concat!(
        "update runs set outcome = '{}', lease_owner = $2,
             status = case when $2 is null then 'queued' else 'in_progress' end,
             started_at = case when $2 is null then started_at else now() end,
             due_at = case when $2 is null then now() else now() + $3 end,
             attempt = case when $2 is null then attempt else attempt + 1 end
         where id = $1
         returning ",
        run_columns!()
    ))
    .bind(id)
    .bind(claimant.map(|claimant| &claimant.owner))
    .bind(claimant.map(|claimant| claimant.lease))
    .fetch_one(&mut *connection)
    .await?;
    let lease = claimant.map(|_| Lease {
        run: id.clone(),
        attempt: attempt + 1,
    });
    let started_at = row.try_get("started_at")?;
    Ok(Submitted {
        run,
        lease,
        after: Seq::before_attempt(attempt + 1),
        started_at,
    })
}

fn with_outputs(details: StepDetails, outputs: &[(String, String)]) -> StepDetails {
    let answer = |mut call: ToolCall| {
        let output = outputs.iter().find(|(id, _)| *id == call.id);
        if let (ToolCallBody::Function(function), Some((_, output))) = (&mut call.body, output) {
            function.output = Some(output.clone());
        }
        call
    };
    match details {
        StepDetails::ToolCalls { calls } => StepDetails::ToolCalls {
            calls: calls.into_iter().map(answer).collect(),
        },
        StepDetails::MessageCreation { message } => StepDetails::MessageCreation { message },
    }
}

/// A run that is not terminal violates a constraint.
pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    runs: &[Run],
) -> Result<u64, StoreError> {
    let row = |run: &Run| {
        serde_json::json!({
            "id": run.id,
            "project_id": project,
            "thread_id": run.thread,
            "assistant_id": run.assistant,
            "created_at": run.created_at,
            "config": run.config,
            "metadata": run.metadata,
            "status": run.state.status,
            "started_at": run.state.started_at,
            "expires_at": run.state.expires_at,
            "ended_at": run.state.ended_at,
            "outcome": run.state.outcome,
        })
    };
    let rows: Vec<serde_json::Value> = runs.iter().map(row).collect();
    let done = sqlx::query(concat!(
        "insert into runs (",
        run_columns!(),
        ") select ",
        run_columns!(),
        " from json_populate_recordset(null::runs, $1) with ordinality
         order by ordinality on conflict (id) do nothing"
    ))
    .bind(JsonText(&rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub(super) fn status_names(statuses: &[RunStatus]) -> Vec<&'static str> {
    statuses.iter().map(|status| status.as_str()).collect()
}

/// Whether the run is terminal or waits for tool outputs. `None` if it does not exist.
pub async fn is_idle(db: impl PgExecutor<'_>, run: &RunId) -> Result<Option<bool>, StoreError> {
    let is_idle = sqlx::query_scalar(
        "select ended_at is not null or status = 'requires_action' from runs where id = $1",
    )
    .bind(run)
    .fetch_optional(db)
    .await?;
    Ok(is_idle)
}
