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
use crate::domain::ids::{AssistantId, ProjectId, RunId, StepId, ThreadId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::run::{Run, RunConfig, RunOutcome, RunState, RunStatus};
use crate::domain::run_step::StepDetails;
use crate::domain::tool::{ToolCall, ToolCallBody};
use crate::domain::{Metadata, Timestamp};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::batch::{Batch, by_place, found_in_order};
use crate::store::lease::{Claimant, Lease};
use crate::store::{JsonText, StoreError, json, page, projects};

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
pub struct NewRun {
    /// Chosen by the caller, so that the run's feed can be opened before the run is stored.
    pub id: RunId,
    pub project: ProjectId,
    pub thread: ThreadId,
    pub assistant: AssistantId,
    pub config: Arc<RunConfig>,
    pub metadata: Metadata,
    pub expires_after: Duration,
    /// Whether the thread must have a message, because there are no instructions.
    pub needs_message: bool,
    /// Whose lease the run is stored under, which saves the commit of a separate claim. Without one
    /// the run is queued.
    pub claimant: Option<Claimant>,
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
    Store(StoreError),
}

impl From<sqlx::Error> for CreateRunError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<StoreError> for CreateRunError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Constraint(name) if name == "runs_one_active_per_thread" => {
                Self::ThreadBusy
            }
            error => Self::Store(error),
        }
    }
}

impl Batch for NewRun {
    /// `None` if there is nothing to run on.
    type Output = Option<Run>;

    async fn execute(pool: &Pool, items: &[Self]) -> Result<Vec<Self::Output>, StoreError> {
        insert_all(pool, items).await
    }
}

/// Stores a new run, in one statement with those of other callers.
pub async fn insert(pool: &Pool, new: &NewRun) -> Result<(Run, Option<Lease>), CreateRunError> {
    with_lease(pool.batched(new.clone()).await?, new)
}

fn with_lease(run: Option<Run>, new: &NewRun) -> Result<(Run, Option<Lease>), CreateRunError> {
    let run = run.ok_or(CreateRunError::NothingToRun)?;
    let lease = new.claimant.as_ref().map(|_| Lease {
        run: run.id.clone(),
        attempt: 1,
    });
    Ok((run, lease))
}

async fn insert_all(
    db: impl PgExecutor<'_>,
    new: &[NewRun],
) -> Result<Vec<Option<Run>>, StoreError> {
    let ids: Vec<RunId> = new.iter().map(|new| new.id.clone()).collect();
    let text = |column: fn(&NewRun) -> &str| -> Vec<&str> { new.iter().map(column).collect() };
    let configs = new.iter().map(|new| serde_json::to_string(&*new.config));
    let configs: Vec<String> = configs.collect::<Result<_, _>>()?;
    let claimants = || new.iter().map(|new| new.claimant.as_ref());
    let owners: Vec<Option<&str>> = claimants().map(|it| it.map(|it| &*it.owner)).collect();
    let leases: Vec<Option<Duration>> = claimants().map(|it| it.map(|it| it.lease)).collect();
    let runs = sqlx::query_as(concat!(
        "insert into runs (id, project_id, thread_id, assistant_id, config, metadata, expires_at,
                           status, started_at, due_at, attempt, lease_owner)
         select new.id, threads.project_id, threads.id, new.assistant_id, new.config::json,
                new.metadata, now() + expires_after,
                case when owner is null then 'queued' else 'in_progress' end,
                case when owner is not null then now() end,
                case when owner is null then now() else now() + lease end,
                case when owner is null then 0 else 1 end, owner
         from unnest((select $1::text[]), $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[],
                     $7::interval[], $8::bool[], $9::text[], $10::interval[])
             as new (id, project_id, thread_id, assistant_id, config, metadata, expires_after,
                     needs_message, owner, lease)
         join threads on threads.project_id = new.project_id and threads.id = new.thread_id
         where not needs_message or exists (select from messages where thread_id = threads.id)
         -- One order in all statements, since two of them may wait for each other's threads.
         order by threads.id
         returning ",
        run_columns!()
    ))
    .bind(ids.iter().map(RunId::as_str).collect::<Vec<_>>())
    .bind(text(|new| new.project.as_str()))
    .bind(text(|new| new.thread.as_str()))
    .bind(text(|new| new.assistant.as_str()))
    .bind(configs)
    .bind(
        new.iter()
            .map(|new| Json(&new.metadata))
            .collect::<Vec<_>>(),
    )
    .bind(new.iter().map(|new| new.expires_after).collect::<Vec<_>>())
    .bind(new.iter().map(|new| new.needs_message).collect::<Vec<_>>())
    .bind(owners)
    .bind(leases)
    .fetch_all(db)
    .await?;
    Ok(found_in_order(&ids, runs, |run: &Run| &run.id))
}

/// Stores a new run, unless `max` runs of the project are queued or in progress.
///
/// The bound is exact: an advisory lock, held until the transaction ends, admits the runs of a
/// project one after the other.
pub async fn insert_in_transaction(
    connection: &mut PgConnection,
    new: &NewRun,
    max: Option<i32>,
) -> Result<(Run, Option<Lease>), CreateRunError> {
    if let Some(max) = max {
        admit_within(connection, new, max).await?;
    }
    let runs = insert_all(&mut *connection, std::slice::from_ref(new)).await?;
    with_lease(runs.into_iter().flatten().next(), new)
}

async fn admit_within(
    connection: &mut PgConnection,
    new: &NewRun,
    max: i32,
) -> Result<(), CreateRunError> {
    let project = &new.project;
    projects::lock_run_creation(&mut *connection, project).await?;
    // A separate statement sees what others have committed while this one waited for the lock.
    let active: i64 = sqlx::query_scalar(
        "select count(*) from (
             select from runs
             where project_id = $1 and status in ('queued', 'in_progress', 'cancelling')
             limit $2) as run",
    )
    .bind(project)
    .bind(max)
    .fetch_one(&mut *connection)
    .await?;
    // If the thread is busy, the insertion is refused for that reason, which takes precedence.
    let is_full = active >= i64::from(max);
    if is_full
        && active_on(&mut *connection, project, &new.thread)
            .await?
            .is_none()
    {
        return Err(CreateRunError::TooManyRuns(max));
    }
    Ok(())
}

struct Find {
    project: ProjectId,
    thread: ThreadId,
    id: RunId,
}

impl Batch for Find {
    type Output = Option<Run>;

    async fn execute(pool: &Pool, items: &[Self]) -> Result<Vec<Self::Output>, StoreError> {
        let rows = sqlx::query(concat!(
            "select ",
            run_columns!(),
            ", n from unnest((select $1::text[]), $2::text[], $3::text[]) with ordinality
                 as asked (project, thread, id, n)
             join runs using (id) where project_id = project and thread_id = thread"
        ))
        .bind(
            items
                .iter()
                .map(|it| it.project.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            items
                .iter()
                .map(|it| it.thread.as_str())
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
    thread: &ThreadId,
    id: &RunId,
) -> Result<Option<Run>, StoreError> {
    let (project, thread, id) = (project.clone(), thread.clone(), id.clone());
    pool.batched(Find {
        project,
        thread,
        id,
    })
    .await
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

/// The process that executes a run.
#[derive(Debug)]
pub struct Holder {
    /// As in [`Claimant::owner`].
    pub owner: String,
    /// Time since the run was claimed.
    pub held_for: Duration,
}

macro_rules! holder_columns {
    () => {
        "lease_owner, extract(epoch from clock_timestamp() - started_at)::float8 as held_for"
    };
}

fn holder(row: &PgRow) -> Result<Option<Holder>, sqlx::Error> {
    let owner: Option<String> = row.try_get("lease_owner")?;
    let seconds: Option<f64> = row.try_get("held_for")?;
    Ok(owner.map(|owner| Holder {
        owner,
        held_for: Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default(),
    }))
}

#[derive(Debug)]
pub struct ActiveRun {
    pub id: RunId,
    pub holder: Option<Holder>,
}

/// The active run of the thread.
pub async fn active_on(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    thread: &ThreadId,
) -> Result<Option<ActiveRun>, StoreError> {
    let row = sqlx::query(concat!(
        "select id, ",
        holder_columns!(),
        " from runs where project_id = $1 and thread_id = $2 and
             status in ('queued', 'in_progress', 'requires_action', 'cancelling')"
    ))
    .bind(project)
    .bind(thread)
    .fetch_optional(db)
    .await?;
    let active = |row: PgRow| -> Result<_, sqlx::Error> {
        Ok(ActiveRun {
            id: row.try_get("id")?,
            holder: holder(&row)?,
        })
    };
    Ok(row.map(active).transpose()?)
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
) -> Result<Option<(Run, Option<Holder>)>, StoreError> {
    let row = sqlx::query(concat!(
        "update runs set status = 'cancelling', outcome = '{}',
             due_at = case when lease_owner is null then now() else due_at end
         where project_id = $1 and thread_id = $2 and id = $3 and status = any($4)
         returning ",
        run_columns!(),
        ", ",
        holder_columns!()
    ))
    .bind(project)
    .bind(thread)
    .bind(id)
    .bind(status_names(RunStatus::Cancelling.allowed_from()))
    .fetch_optional(db)
    .await?;
    let cancelled =
        |row: PgRow| -> Result<_, sqlx::Error> { Ok((Run::from_row(&row)?, holder(&row)?)) };
    Ok(row.map(cancelled).transpose()?)
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

/// A run that waits for tool outputs.
struct Waiting {
    attempt: i32,
    started_at: Option<Timestamp>,
    step: StepId,
    details: StepDetails,
}

/// Stores the outputs of all required calls, completes their step, and queues the run again or
/// leases it to the claimant.
///
/// `None` if the run has changed at the same time, so that it must be tried again.
pub async fn submit(
    pool: &Pool,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
    outputs: &[(String, String)],
    claimant: Option<&Claimant>,
) -> Result<Option<Submitted>, SubmitError> {
    let waiting = find_waiting(pool, project, thread, id, outputs).await?;
    let details = with_outputs(waiting.details, outputs);
    let run: Option<Run> = sqlx::query_as(concat!(
        "with submitted as (
             update runs set outcome = '{}', lease_owner = $3,
                 status = case when $3 is null then 'queued' else 'in_progress' end,
                 started_at = case when $3 is null then started_at else now() end,
                 due_at = case when $3 is null then now() else now() + $4 end,
                 attempt = case when $3 is null then attempt else attempt + 1 end
             where id = $1 and attempt = $2 and status = 'requires_action' and expires_at > now()
             returning ",
        run_columns!(),
        "), step as (
             update run_steps set details = $6, status = 'completed', ended_at = clock_timestamp()
             where id = $5 and exists (select from submitted)
         )
         select * from submitted"
    ))
    .bind(id)
    .bind(waiting.attempt)
    .bind(claimant.map(|claimant| &claimant.owner))
    .bind(claimant.map(|claimant| claimant.lease))
    .bind(&waiting.step)
    .bind(Json(&details))
    .fetch_optional(pool)
    .await?;
    let attempt = waiting.attempt + 1;
    Ok(run.map(|run| Submitted {
        run,
        lease: claimant.map(|_| Lease {
            run: id.clone(),
            attempt,
        }),
        after: Seq::before_attempt(attempt),
        started_at: waiting.started_at,
    }))
}

/// Finds a run that waits for exactly these outputs.
async fn find_waiting(
    pool: &Pool,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
    outputs: &[(String, String)],
) -> Result<Waiting, SubmitError> {
    let row = sqlx::query(
        "select runs.status, runs.expires_at <= now() as expired, outcome, attempt, started_at,
                step.id as step, details
         from runs left join run_steps as step
             on step.run_id = runs.id and step.status = 'in_progress'
         where runs.project_id = $1 and runs.thread_id = $2 and runs.id = $3",
    )
    .bind(project)
    .bind(thread)
    .bind(id)
    .fetch_optional(pool)
    .await?
    .ok_or(SubmitError::NotFound)?;
    let status: RunStatus = row.try_get("status")?;
    if status != RunStatus::RequiresAction {
        return Err(SubmitError::WrongStatus(status));
    }
    if row.try_get("expired")? {
        return Err(SubmitError::WrongStatus(RunStatus::Expired));
    }
    let outcome: RunOutcome = json(&row, "outcome")?;
    let calls = outcome.required_calls.into_iter();
    let expected: Vec<String> = calls.map(|call| call.id).collect();
    let is_complete = expected.len() == outputs.len()
        && expected
            .iter()
            .all(|id| outputs.iter().any(|(call, _)| call == id));
    if !is_complete {
        return Err(SubmitError::WrongCalls { expected });
    }
    Ok(Waiting {
        attempt: row.try_get("attempt")?,
        started_at: row.try_get("started_at")?,
        step: row.try_get("step")?,
        details: json(&row, "details")?,
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
