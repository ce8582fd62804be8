//! Table `runs`, which is also the queue.
//!
//! A run row is the job. `due_at` says when a worker must look at it next, whatever the reason:
//! it was just queued, its worker's lease ran out, or it expired while it waited for the caller.
//! So one query, [`claim`], is scheduler, reaper and expiry at once.
//!
//! Every transition is one statement with its guard inside, taken from
//! [`RunStatus::allowed_from`]. A worker shows its [`Lease`] to write anything.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder, Row};

use crate::domain::event::Seq;
use crate::domain::ids::{AssistantId, ProjectId, RunId, ThreadId};
use crate::domain::message::Message;
use crate::domain::page::{Page, PageRequest};
use crate::domain::run::{Run, RunConfig, RunState, RunStatus};
use crate::domain::run_step::{RunStep, StepDetails};
use crate::domain::tool::{ToolCall, ToolCallBody};
use crate::domain::usage::UsageEntry;
use crate::domain::{Metadata, Timestamp};
use crate::store::Pool;
use crate::store::run_events::Segment;
use crate::store::{AsWritten, StoreError, json, page, projects};

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

/// The right to write one run, until another worker takes it over. Made here only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub(super) run: RunId,
    pub(super) attempt: i32,
}

impl Lease {
    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// How often the run was taken up, this time included.
    pub fn attempt(&self) -> i32 {
        self.attempt
    }

    /// For tests of who works with leases.
    #[cfg(test)]
    pub fn of_attempt(run: &RunId, attempt: i32) -> Self {
        let run = run.clone();
        Self { run, attempt }
    }
}

/// The worker that takes a lease, and for how long.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// Names the process.
    pub owner: String,
    /// Time without a sign of life after which others may take the run.
    pub lease: Duration,
}

/// A run in a worker's hands.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The right to write it.
    pub lease: Lease,
    /// As it is now.
    pub run: Run,
    /// How it got here.
    pub origin: Origin,
}

/// How a run came into a worker's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is new.
    Created,
    /// The caller submitted tool outputs.
    Submitted {
        /// When the run was taken up before.
        started_at: Option<Timestamp>,
    },
    /// Its worker was lost; this is the how-manieth time.
    Recovered(i32),
}

/// What a client asks for when it creates a run.
#[derive(Debug, Clone)]
pub struct NewRun<'a> {
    /// The run's id, chosen beforehand so that its event feed can be opened first.
    pub id: RunId,
    /// The thread, which the caller knows to belong to the project.
    pub thread: &'a ThreadId,
    /// The assistant.
    pub assistant: &'a AssistantId,
    /// Settings.
    pub config: Arc<RunConfig>,
    /// What the client attaches to it.
    pub metadata: &'a Metadata,
    /// Life of the run.
    pub expires_after: Duration,
    /// Whether the thread must have a message, because nothing else tells the model what to do.
    pub needs_message: bool,
}

/// Stores a new run, queued; with a claimant, already in that worker's hands.
///
/// That saves the commit of a separate claim. `None` when there is no such thread, or it lacks the
/// message that the run needs; an active run on it breaks `runs_one_active_per_thread`.
pub async fn insert(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    new: &NewRun<'_>,
    claimant: Option<&Claimant>,
) -> Result<Option<(Run, Option<Lease>)>, StoreError> {
    let run: Option<Run> = sqlx::query_as(
        "insert into runs (id, project_id, thread_id, assistant_id, config, metadata, expires_at,
                           status, started_at, due_at, attempt, lease_owner)
         select $1, project_id, id, $4, $5, $6, now() + $7,
                case when $8::text is null then 'queued' else 'in_progress' end,
                case when $8 is not null then now() end,
                case when $8 is null then now() else now() + $9 end,
                case when $8 is null then 0 else 1 end, $8
         from threads where project_id = $2 and id = $3
             and (not $10 or exists (select from messages where thread_id = threads.id))
         returning id, project_id, thread_id, assistant_id, created_at, config, metadata, status,
                   started_at, expires_at, ended_at, outcome",
    )
    .bind(&new.id)
    .bind(project)
    .bind(new.thread)
    .bind(new.assistant)
    .bind(AsWritten(&*new.config))
    .bind(Json(new.metadata))
    .bind(new.expires_after)
    .bind(claimant.map(|claimant| &claimant.owner))
    .bind(claimant.map(|claimant| claimant.lease))
    .bind(new.needs_message)
    .fetch_optional(db)
    .await?;
    Ok(run.map(|run| {
        let lease = claimant.map(|_| Lease {
            run: run.id.clone(),
            attempt: 1,
        });
        (run, lease)
    }))
}

/// Stores a new run like [`insert`], unless the project has `max` runs at work.
///
/// Those are refused as [`StoreError::TooManyRuns`]. Exact, since the runs of one project are let in
/// one after the other; the next one gets its turn when the transaction ends.
pub async fn insert_within(
    conn: &mut PgConnection,
    project: &ProjectId,
    new: &NewRun<'_>,
    claimant: Option<&Claimant>,
    max: i32,
) -> Result<Option<(Run, Option<Lease>)>, StoreError> {
    projects::lock_runs(&mut *conn, project).await?;
    // A statement of its own, which sees what others have committed while this one waited.
    let at_work: i64 = sqlx::query_scalar(
        "select count(*) from (
             select from runs
             where project_id = $1 and status in ('queued', 'in_progress', 'cancelling')
             limit $2) as run",
    )
    .bind(project)
    .bind(max)
    .fetch_one(&mut *conn)
    .await?;
    // That the thread is busy is the better answer, and the insertion gives it.
    if at_work >= i64::from(max) && active_on(&mut *conn, project, new.thread).await?.is_none() {
        return Err(StoreError::TooManyRuns(max));
    }
    insert(conn, project, new, claimant).await
}

/// The run of this id on this thread.
pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
) -> Result<Option<Run>, StoreError> {
    let run = sqlx::query_as(
        "select id, project_id, thread_id, assistant_id, created_at, config, metadata, status,
                started_at, expires_at, ended_at, outcome
         from runs where project_id = $1 and thread_id = $2 and id = $3",
    )
    .bind(project)
    .bind(thread)
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(run)
}

/// A page of the thread's runs.
pub async fn list(
    pool: &Pool,
    project: &ProjectId,
    thread: &ThreadId,
    request: &PageRequest,
) -> Result<Page<Run>, StoreError> {
    let mut query = QueryBuilder::new(
        "select id, project_id, thread_id, assistant_id, created_at, config, metadata, status,
                started_at, expires_at, ended_at, outcome
         from runs where project_id = ",
    );
    query
        .push_bind(project)
        .push(" and thread_id = ")
        .push_bind(thread);
    page::fetch(pool, query, "runs", project, request).await
}

/// The run that keeps the thread busy, if one does.
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

/// Replaces the run's metadata if given, unless a worker is at it. `None` when there is no such
/// run or it is in progress.
pub async fn update(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
    metadata: Option<&Metadata>,
) -> Result<Option<Run>, StoreError> {
    let run = sqlx::query_as(
        "update runs set metadata = coalesce($4, metadata)
         where project_id = $1 and thread_id = $2 and id = $3 and status <> 'in_progress'
         returning id, project_id, thread_id, assistant_id, created_at, config, metadata, status,
                   started_at, expires_at, ended_at, outcome",
    )
    .bind(project)
    .bind(thread)
    .bind(id)
    .bind(metadata.map(Json))
    .fetch_optional(db)
    .await?;
    Ok(run)
}

/// Asks an active run to stop. A run that no worker has becomes due at once, so that one ends it.
/// `None` when there is no such run or its status does not allow it.
pub async fn cancel(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
) -> Result<Option<Run>, StoreError> {
    let run = sqlx::query_as(
        "update runs set status = 'cancelling', outcome = '{}',
             due_at = case when lease_owner is null then now() else due_at end
         where project_id = $1 and thread_id = $2 and id = $3 and status = any($4)
         returning id, project_id, thread_id, assistant_id, created_at, config, metadata, status,
                   started_at, expires_at, ended_at, outcome",
    )
    .bind(project)
    .bind(thread)
    .bind(id)
    .bind(names(RunStatus::Cancelling.allowed_from()))
    .fetch_optional(db)
    .await?;
    Ok(run)
}

/// Why tool outputs were not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// No such run.
    #[error("no such run")]
    NotFound,
    /// The run does not wait for outputs, or no longer.
    #[error("the run is {0:?}")]
    WrongStatus(RunStatus),
    /// Not exactly the outputs that are awaited.
    #[error("expected outputs for {expected:?}")]
    WrongCalls {
        /// Ids of the awaited calls, in order.
        expected: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for SubmitError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A run whose caller has answered.
#[derive(Debug)]
pub struct Submitted {
    /// The run, queued again or already in the claimant's hands.
    pub run: Run,
    /// The claimant's right to it.
    pub lease: Option<Lease>,
    /// Where the events that follow begin.
    pub after: Seq,
    /// When the run was taken up before.
    pub started_at: Option<Timestamp>,
}

/// Takes the outputs of all awaited calls, ends their step, and queues the run again; with a
/// claimant, hands it straight to that worker. All of it or nothing.
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
    let complete = expected.len() == outputs.len()
        && expected
            .iter()
            .all(|id| outputs.iter().any(|(answered, _)| answered == id));
    if !complete {
        return Err(SubmitError::WrongCalls { expected });
    }

    let step: RunStep = sqlx::query_as(
        "select id, run_id, thread_id, assistant_id, created_at, status, expires_at, ended_at,
                last_error, details, usage
         from run_steps where run_id = $1 and status = 'in_progress'",
    )
    .bind(id)
    .fetch_one(&mut *connection)
    .await?;
    let details = with_outputs(step.details, outputs);
    sqlx::query(
        "update run_steps set details = $2, status = 'completed', ended_at = clock_timestamp()
         where id = $1",
    )
    .bind(&step.id)
    .bind(Json(&details))
    .execute(&mut *connection)
    .await?;

    let attempt: i32 = row.try_get("attempt")?;
    let run: Run = sqlx::query_as(
        "update runs set outcome = '{}', lease_owner = $2,
             status = case when $2 is null then 'queued' else 'in_progress' end,
             started_at = case when $2 is null then started_at else now() end,
             due_at = case when $2 is null then now() else now() + $3 end,
             attempt = case when $2 is null then attempt else attempt + 1 end
         where id = $1
         returning id, project_id, thread_id, assistant_id, created_at, config, metadata, status,
                   started_at, expires_at, ended_at, outcome",
    )
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

/// Takes up to `limit` due runs, the longest due first.
///
/// Queued ones become `in_progress`; those that are to be cancelled or are past their time keep
/// their status for the worker to end. With `only_ending`, takes only these last. A lease that was
/// never released counts as a recovery.
pub async fn claim(
    db: impl PgExecutor<'_>,
    claimant: &Claimant,
    limit: i64,
    only_ending: bool,
) -> Result<Vec<Claimed>, StoreError> {
    let rows = sqlx::query(
        "with due as (
             select id, status as was, started_at as was_started_at, lease_owner as lost_by,
                    status = any($4) and expires_at > now() as startable
             from runs where due_at <= now()
                 and (not $5 or status = 'cancelling' or expires_at <= now())
             order by due_at limit $3 for update skip locked
         )
         update runs set attempt = attempt + 1, lease_owner = $1, due_at = now() + $2,
             recoveries = recoveries + (due.lost_by is not null)::int,
             status = case when startable then 'in_progress' else status end,
             started_at = case when startable then now() else started_at end
         from due where runs.id = due.id
         returning runs.id, project_id, thread_id, assistant_id, created_at, config, metadata,
                   status, started_at, expires_at, ended_at, outcome, attempt, recoveries,
                   due.was, due.was_started_at",
    )
    .bind(&claimant.owner)
    .bind(claimant.lease)
    .bind(limit)
    .bind(names(RunStatus::InProgress.allowed_from()))
    .bind(only_ending)
    .fetch_all(db)
    .await?;
    // A run that this version cannot read must not keep the others from being driven.
    let readable = |row: &PgRow| match claimed(row) {
        Ok(claimed) => Some(claimed),
        Err(error) => {
            tracing::error!(error.cause = %error, "a claimed run cannot be read: {error}");
            None
        }
    };
    Ok(rows.iter().filter_map(readable).collect())
}

fn claimed(row: &PgRow) -> Result<Claimed, sqlx::Error> {
    let run = Run::from_row(row)?;
    let attempt: i32 = row.try_get("attempt")?;
    let recoveries: i32 = row.try_get("recoveries")?;
    // Past its time, a run keeps this status when it is claimed, and may have been claimed before.
    let is_new = run.state.status == RunStatus::InProgress || recoveries == 0;
    let origin = match row.try_get("was")? {
        RunStatus::Queued if is_new => match row.try_get("was_started_at")? {
            None => Origin::Created,
            started_at @ Some(_) => Origin::Submitted { started_at },
        },
        RunStatus::Queued
        | RunStatus::InProgress
        | RunStatus::RequiresAction
        | RunStatus::Cancelling
        | RunStatus::Cancelled
        | RunStatus::Failed
        | RunStatus::Completed
        | RunStatus::Incomplete
        | RunStatus::Expired => Origin::Recovered(recoveries),
    };
    Ok(Claimed {
        lease: Lease {
            run: run.id.clone(),
            attempt,
        },
        run,
        origin,
    })
}

/// How many runs are due: the queue's depth.
pub async fn backlog(db: impl PgExecutor<'_>) -> Result<i64, StoreError> {
    let depth = sqlx::query_scalar("select count(*) from runs where due_at <= now()")
        .fetch_one(db)
        .await?;
    Ok(depth)
}

/// What a worker writes in one go: all of it or, when the lease is lost, nothing.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// New steps, and new versions of steps written before.
    pub steps: Vec<&'a RunStep>,
    /// New messages.
    pub messages: Vec<&'a Message>,
    /// The status the run takes; without one it stays in the worker's hands.
    pub state: Option<&'a RunState>,
    /// The events that tell of all this, so that the log never lags behind the objects.
    pub events: Option<Segment>,
    /// What all this took.
    pub used: Option<UsageEntry>,
}

#[derive(Serialize)]
struct MessageRow<'a> {
    id: &'a str,
    created_at: Timestamp,
    status: crate::domain::message::MessageStatus,
    incomplete_reason: Option<crate::domain::message::IncompleteReason>,
    ended_at: Option<Timestamp>,
    content: &'a [crate::domain::message::Content],
    attachments: &'a [crate::domain::message::Attachment],
}

/// Writes what a worker did. This is the only way a worker writes.
pub async fn commit(
    db: impl PgExecutor<'_>,
    claimant: &Claimant,
    lease: &Lease,
    changes: &Changes<'_>,
) -> Result<(), StoreError> {
    let from = match changes.state {
        Some(state) => state.status.allowed_from(),
        None => &[RunStatus::InProgress, RunStatus::Cancelling],
    };
    let messages: Vec<MessageRow<'_>> = changes
        .messages
        .iter()
        .map(|message| MessageRow {
            id: message.id.as_str(),
            created_at: message.created_at,
            status: message.status,
            incomplete_reason: message.incomplete_reason,
            ended_at: message.ended_at,
            content: &message.content,
            attachments: &message.attachments,
        })
        .collect();
    let held = sqlx::query(
        "with held as (
             update runs set
                 status = coalesce($4, status),
                 outcome = coalesce($5, outcome),
                 ended_at = $6,
                 lease_owner = case when $4 is null then lease_owner end,
                 due_at = case when $6 is not null then null
                               when $4 is null then now() + $3
                               else expires_at end
             where id = $1 and attempt = $2 and status = any($7)
             returning id, project_id, thread_id, assistant_id
         ), steps as (
             insert into run_steps (id, project_id, run_id, thread_id, assistant_id, created_at,
                                    status, expires_at, ended_at, last_error, details, usage)
             select step.id, held.project_id, held.id, held.thread_id, held.assistant_id,
                    step.created_at, step.status, step.expires_at, step.ended_at,
                    step.last_error, step.details, step.usage
             from held, jsonb_to_recordset($8) as step (id text, created_at timestamptz,
                 status text, expires_at timestamptz, ended_at timestamptz, last_error jsonb,
                 details jsonb, usage jsonb)
             on conflict (id) do update set status = excluded.status,
                 ended_at = excluded.ended_at, last_error = excluded.last_error,
                 details = excluded.details, usage = excluded.usage
         ), messages as (
             insert into messages (id, project_id, thread_id, created_at, status,
                                   incomplete_reason, ended_at, role, content, attachments,
                                   assistant_id, run_id)
             select message.id, held.project_id, held.thread_id, message.created_at,
                    message.status, message.incomplete_reason, message.ended_at, 'assistant',
                    message.content, message.attachments, held.assistant_id, held.id
             from held, jsonb_to_recordset($9) as message (id text, created_at timestamptz,
                 status text, incomplete_reason text, ended_at timestamptz, content jsonb,
                 attachments jsonb)
         ), events as (
             insert into run_events (run_id, first_seq, last_seq, events)
             select held.id, $10, $11, $12 from held where $12::text is not null
             on conflict (run_id, first_seq) do update
                 set last_seq = excluded.last_seq, events = excluded.events
         ), used as (
             insert into usage_entries (project_id, at, id, model, runs, model_calls,
                                        prompt_tokens, completion_tokens, code_calls,
                                        search_calls, function_calls, sandbox_ms)
             select held.project_id, used.*
             from held, jsonb_to_recordset($13) as used (at timestamptz, id uuid, model text,
                 runs integer, model_calls integer, prompt_tokens bigint,
                 completion_tokens bigint, code_calls integer, search_calls integer,
                 function_calls integer, sandbox_ms bigint)
             on conflict (project_id, at, id) do nothing
         )
         select from held",
    )
    .bind(&lease.run)
    .bind(lease.attempt)
    .bind(claimant.lease)
    .bind(changes.state.map(|state| state.status.as_str()))
    .bind(changes.state.map(|state| Json(&state.outcome)))
    .bind(changes.state.and_then(|state| state.ended_at))
    .bind(names(from))
    .bind(Json(&changes.steps))
    .bind(Json(&messages))
    .bind(changes.events.as_ref().map(|events| events.first))
    .bind(changes.events.as_ref().map(|events| events.last))
    .bind(changes.events.as_ref().map(|events| events.json.as_str()))
    .bind(Json(changes.used.as_slice()))
    .fetch_optional(db)
    .await?;
    held.map(drop).ok_or(StoreError::LeaseLost)
}

/// The run's status as long as the lease holds; `None` when it is lost. Tells a worker whose
/// write was refused why.
pub async fn standing(
    db: impl PgExecutor<'_>,
    lease: &Lease,
) -> Result<Option<RunStatus>, StoreError> {
    let status = sqlx::query_scalar("select status from runs where id = $1 and attempt = $2")
        .bind(&lease.run)
        .bind(lease.attempt)
        .fetch_optional(db)
        .await?;
    Ok(status)
}

/// Renews all leases of a process in one statement; answers with those that still hold.
pub async fn renew(
    db: impl PgExecutor<'_>,
    claimant: &Claimant,
    leases: &[Lease],
) -> Result<Vec<RunId>, StoreError> {
    let runs: Vec<&str> = leases.iter().map(|lease| lease.run.as_str()).collect();
    let attempts: Vec<i32> = leases.iter().map(|lease| lease.attempt).collect();
    let held = sqlx::query_scalar(
        "update runs set due_at = now() + $3
         from unnest($1::text[], $2::int[]) as lease (run_id, attempt)
         where runs.id = lease.run_id and runs.attempt = lease.attempt and runs.ended_at is null
             and lease_owner is not null
         returning runs.id",
    )
    .bind(runs)
    .bind(attempts)
    .bind(claimant.lease)
    .fetch_all(db)
    .await?;
    Ok(held)
}

/// Releases runs at once: a worker that stops in an orderly way lets others go on with them. That
/// is no recovery.
pub async fn release(db: impl PgExecutor<'_>, leases: &[Lease]) -> Result<(), StoreError> {
    let runs: Vec<&str> = leases.iter().map(|lease| lease.run.as_str()).collect();
    let attempts: Vec<i32> = leases.iter().map(|lease| lease.attempt).collect();
    sqlx::query(
        "update runs set due_at = now(), lease_owner = null
         from unnest($1::text[], $2::int[]) as lease (run_id, attempt)
         where runs.id = lease.run_id and runs.attempt = lease.attempt
             and lease_owner is not null",
    )
    .bind(runs)
    .bind(attempts)
    .execute(db)
    .await?;
    Ok(())
}

/// The runs of this process that were asked to stop.
pub async fn cancelling_of(
    db: impl PgExecutor<'_>,
    claimant: &Claimant,
) -> Result<Vec<RunId>, StoreError> {
    let runs =
        sqlx::query_scalar("select id from runs where status = 'cancelling' and lease_owner = $1")
            .bind(&claimant.owner)
            .fetch_all(db)
            .await?;
    Ok(runs)
}

/// The database's time, which alone dates what workers write.
pub async fn now(db: impl PgExecutor<'_>) -> Result<Timestamp, StoreError> {
    Ok(sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(db)
        .await?)
}

/// Stores runs that are over, with their ids and dates, in the given order. Ids that are taken stay
/// as they are; how many were not. The caller knows their threads to be the project's.
///
/// A run that is not over breaks a constraint: nobody here could go on with it.
pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    runs: &[Run],
) -> Result<u64, StoreError> {
    let row = |run: &Run| {
        serde_json::json!({
            "id": run.id,
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
    let done = sqlx::query(
        "insert into runs (id, project_id, thread_id, assistant_id, created_at, config, metadata,
                           status, started_at, expires_at, ended_at, outcome)
         select id, $1, thread_id, assistant_id, created_at, config, metadata, status, started_at,
                expires_at, ended_at, outcome
         from rows from (json_to_recordset($2) as (id text, thread_id text, assistant_id text,
                 created_at timestamptz, config json, metadata jsonb, status text,
                 started_at timestamptz, expires_at timestamptz, ended_at timestamptz,
                 outcome jsonb))
             with ordinality as given (id, thread_id, assistant_id, created_at, config, metadata,
                                       status, started_at, expires_at, ended_at, outcome, n)
         order by n on conflict (id) do nothing",
    )
    .bind(project)
    .bind(AsWritten(&rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

fn names(statuses: &[RunStatus]) -> Vec<&'static str> {
    statuses.iter().map(|status| status.as_str()).collect()
}

/// Whether the run does nothing by itself any more: it is over, or waits for the caller. `None`
/// when there is no such run.
pub async fn rests(db: impl PgExecutor<'_>, run: &RunId) -> Result<Option<bool>, StoreError> {
    let rests = sqlx::query_scalar(
        "select ended_at is not null or status = 'requires_action' from runs where id = $1",
    )
    .bind(run)
    .fetch_optional(db)
    .await?;
    Ok(rests)
}
