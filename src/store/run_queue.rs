//! Table `runs` as a queue: who executes which run, and until when.
//!
//! A run row is the job. `due_at` is when a worker must look at it next: it was queued, the lease
//! of its worker ran out, or it expired while it waited for the caller. So one query, [`claim`], is
//! scheduler, reaper and expiry at once.
//!
//! A worker writes through [`commit`] and [`abort`] only, and shows its [`Lease`] to do so.

use std::time::Duration;

use serde_json::value::{RawValue, to_raw_value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgExecutor, Row};

use crate::domain::Timestamp;
use crate::domain::ids::RunId;
use crate::domain::message::Message;
use crate::domain::run::{Run, RunOutcome, RunState, RunStatus};
use crate::domain::run_step::RunStep;
use crate::domain::usage::UsageEntry;
use crate::store::batch::Batch;
use crate::store::lease::{Claimant, Lease};
use crate::store::messages::MessageRow;
use crate::store::run_events::Segment;
use crate::store::run_steps::StepRow;
use crate::store::runs::{run_columns, status_names};
use crate::store::usage::amount_columns;
use crate::store::{Pool, StoreError, run_steps};

#[derive(Debug, Clone)]
pub struct Claimed {
    pub lease: Lease,
    /// The run after the claim.
    pub run: Run,
    pub origin: Origin,
}

/// Why a run was due when it was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Created,
    Submitted {
        /// When a worker had claimed the run before.
        started_at: Option<Timestamp>,
    },
    /// Recovered after a lost lease; the number of recoveries so far.
    Recovered(i32),
}

/// Claims up to `limit` due runs, the longest due first.
///
/// Queued runs become `in_progress`. Cancelled and expired ones keep their status for the worker to
/// terminate; with `only_ending`, only these are claimed. Claiming a run whose lease expired
/// without a release counts as a recovery.
pub async fn claim(
    db: impl PgExecutor<'_>,
    claimant: &Claimant,
    limit: i64,
    only_ending: bool,
) -> Result<Vec<Claimed>, StoreError> {
    let rows = sqlx::query(concat!(
        "with due as (
             select id as run_id, status as was, started_at as was_started_at,
                    lease_owner as lost_by,
                    status = any($4) and expires_at > now() as startable
             from runs where due_at <= now()
                 and (not $5 or status = 'cancelling' or expires_at <= now())
             order by due_at limit $3 for update skip locked
         )
         update runs set attempt = attempt + 1, lease_owner = $1, due_at = now() + $2,
             recoveries = recoveries + (due.lost_by is not null)::int,
             status = case when startable then 'in_progress' else status end,
             started_at = case when startable then now() else started_at end
         from due where runs.id = due.run_id
         returning ",
        run_columns!(),
        ", attempt, recoveries, was, was_started_at"
    ))
    .bind(&claimant.owner)
    .bind(claimant.lease)
    .bind(limit)
    .bind(status_names(RunStatus::InProgress.allowed_from()))
    .bind(only_ending)
    .fetch_all(db)
    .await?;
    // A run that this version cannot read must not block the others.
    let readable = |row: &PgRow| match claimed(row) {
        Ok(claimed) => Some(claimed),
        Err(error) => {
            tracing::error!(error.cause = %error, "skipped a due run whose row cannot be decoded: {error}");
            None
        }
    };
    Ok(rows.iter().filter_map(readable).collect())
}

fn claimed(row: &PgRow) -> Result<Claimed, sqlx::Error> {
    let run = Run::from_row(row)?;
    let attempt: i32 = row.try_get("attempt")?;
    let recoveries: i32 = row.try_get("recoveries")?;
    // An expired run keeps the status `queued` when it is claimed, so it may have been claimed
    // before.
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

/// What a worker commits: everything or, if the lease is lost, nothing.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    pub steps: Vec<&'a RunStep>,
    pub messages: Vec<&'a Message>,
    /// The new state of the run. Without one, the worker keeps its lease.
    pub state: Option<&'a RunState>,
    /// The events about all this, so that the log never lags behind the objects.
    pub events: Option<Segment>,
    pub used: Option<UsageEntry>,
}

/// The changes of one worker as the statement takes them.
struct Commit {
    lease: Lease,
    lease_duration: Duration,
    status: Option<RunStatus>,
    outcome: Option<RunOutcome>,
    ended_at: Option<Timestamp>,
    steps: Vec<Box<RawValue>>,
    messages: Vec<Box<RawValue>>,
    events: Option<Segment>,
    used: Option<UsageEntry>,
}

impl Commit {
    fn new(
        claimant: &Claimant,
        lease: &Lease,
        changes: &Changes<'_>,
    ) -> Result<Self, serde_json::Error> {
        let steps = changes
            .steps
            .iter()
            .map(|step| to_raw_value(&StepRow::from(*step)));
        let messages = changes
            .messages
            .iter()
            .map(|message| to_raw_value(&MessageRow::from(*message)));
        Ok(Self {
            lease: lease.clone(),
            lease_duration: claimant.lease,
            status: changes.state.map(|state| state.status),
            outcome: changes.state.map(|state| state.outcome.clone()),
            ended_at: changes.state.and_then(|state| state.ended_at),
            steps: steps.collect::<Result<_, _>>()?,
            messages: messages.collect::<Result<_, _>>()?,
            events: changes.events.clone(),
            used: changes.used.clone(),
        })
    }

    /// The statuses in which the run may be, for SQL.
    fn allowed_statuses(&self) -> String {
        let from = match self.status {
            Some(status) => status.allowed_from(),
            None => &[RunStatus::InProgress, RunStatus::Cancelling],
        };
        status_names(from).join(",")
    }
}

impl Batch for Commit {
    /// Whether the lease was valid.
    type Output = bool;

    async fn execute(pool: &Pool, items: &[Self]) -> Result<Vec<bool>, StoreError> {
        commit_all(pool, items).await
    }
}

/// Commits what a worker did, in one statement with the commits of other workers.
pub async fn commit(
    pool: &Pool,
    claimant: &Claimant,
    lease: &Lease,
    changes: &Changes<'_>,
) -> Result<(), StoreError> {
    let commit = Commit::new(claimant, lease, changes)?;
    match pool.batched(commit).await? {
        true => Ok(()),
        false => Err(StoreError::LeaseLost),
    }
}

/// The rows of one table, each with the number of its commit, counted from 1.
fn numbered<'a, T: 'a>(
    commits: &'a [Commit],
    rows: impl Fn(&'a Commit) -> &'a [T],
) -> (Vec<i64>, Vec<&'a T>) {
    let of_commit = |(n, commit): (i64, &'a Commit)| rows(commit).iter().map(move |row| (n, row));
    (1..).zip(commits).flat_map(of_commit).unzip()
}

async fn commit_all(db: impl PgExecutor<'_>, commits: &[Commit]) -> Result<Vec<bool>, StoreError> {
    let each = || commits.iter();
    let (of_steps, steps) = numbered(commits, |commit| &commit.steps);
    let (of_messages, messages) = numbered(commits, |commit| &commit.messages);
    let (of_events, events) = numbered(commits, |commit| commit.events.as_slice());
    let (of_used, used) = numbered(commits, |commit| commit.used.as_slice());
    let held: Vec<i64> = sqlx::query_scalar(concat!(
        "with held as (
             update runs set
                 status = coalesce(change.status, runs.status),
                 outcome = coalesce(change.outcome, runs.outcome),
                 ended_at = change.ended_at,
                 lease_owner = case when change.status is null then lease_owner end,
                 due_at = case when change.ended_at is not null then null
                               when change.status is null then now() + change.lease
                               else expires_at end
             from (
                 select * from unnest((select $1::text[]), $2::int[], $3::interval[], $4::text[],
                                      $5::jsonb[], $6::timestamptz[], $7::text[]) with ordinality
                     as change (run_id, attempt, lease, status, outcome, ended_at, from_statuses, n)
                 -- One order in all statements that write several runs, against deadlocks.
                 order by run_id
             ) as change
             where runs.id = change.run_id and runs.attempt = change.attempt
                 and runs.status = any (string_to_array(change.from_statuses, ','))
             returning change.n, runs.id, project_id, thread_id, assistant_id
         ), steps as (
             insert into run_steps (id, project_id, run_id, thread_id, assistant_id, created_at,
                                    status, expires_at, ended_at, last_error, details, usage)
             select step.id, held.project_id, held.id, held.thread_id, held.assistant_id,
                    step.created_at, step.status, step.expires_at, step.ended_at,
                    step.last_error, step.details, step.usage
             from unnest((select $8::bigint[]), $9::jsonb[]) as written (n, row) join held using (n),
             jsonb_populate_record(null::run_steps, row) as step
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
             from unnest((select $10::bigint[]), $11::jsonb[]) as written (n, row) join held using (n),
             jsonb_populate_record(null::messages, row) as message
         ), events as (
             insert into run_events (run_id, first_seq, last_seq, events)
             select held.id, first_seq, last_seq, events
             from unnest((select $12::bigint[]), $13::bigint[], $14::bigint[], $15::text[])
                 as segment (n, first_seq, last_seq, events)
             join held using (n)
             on conflict (run_id, first_seq) do update
                 set last_seq = excluded.last_seq, events = excluded.events
         ), used as (
             insert into usage_entries (project_id, at, id, model, ",
        amount_columns!(),
        ")
             select held.project_id, at, used.id, model, ",
        amount_columns!(),
        "
             from unnest((select $16::bigint[]), $17::jsonb[]) as written (n, row) join held using (n),
             jsonb_populate_record(null::usage_entries, row) as used
             on conflict (project_id, at, id) do nothing
         )
         select n from held"
    ))
    .bind(
        each()
            .map(|commit| commit.lease.run.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        each()
            .map(|commit| commit.lease.attempt)
            .collect::<Vec<_>>(),
    )
    .bind(
        each()
            .map(|commit| commit.lease_duration)
            .collect::<Vec<_>>(),
    )
    .bind(
        each()
            .map(|commit| commit.status.map(RunStatus::as_str))
            .collect::<Vec<_>>(),
    )
    .bind(
        each()
            .map(|commit| commit.outcome.as_ref().map(Json))
            .collect::<Vec<_>>(),
    )
    .bind(each().map(|commit| commit.ended_at).collect::<Vec<_>>())
    .bind(each().map(Commit::allowed_statuses).collect::<Vec<_>>())
    .bind(of_steps)
    .bind(steps.iter().map(|row| Json(&***row)).collect::<Vec<_>>())
    .bind(of_messages)
    .bind(messages.iter().map(|row| Json(&***row)).collect::<Vec<_>>())
    .bind(of_events)
    .bind(
        events
            .iter()
            .map(|segment| segment.first)
            .collect::<Vec<_>>(),
    )
    .bind(
        events
            .iter()
            .map(|segment| segment.last)
            .collect::<Vec<_>>(),
    )
    .bind(
        events
            .iter()
            .map(|segment| segment.json.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(of_used)
    .bind(used.into_iter().map(Json).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    Ok((1_i64..)
        .zip(commits)
        .map(|(n, _)| held.contains(&n))
        .collect())
}

/// Ends a run together with its steps in progress: everything or, if the lease is lost, nothing.
/// The changes must not hold what the run has produced, which the database may refuse.
pub async fn abort(
    pool: &Pool,
    claimant: &Claimant,
    lease: &Lease,
    changes: &Changes<'_>,
) -> Result<(), StoreError> {
    let commit = Commit::new(claimant, lease, changes)?;
    let mut tx = pool.begin().await?;
    if !commit_all(&mut *tx, &[commit]).await?.contains(&true) {
        return Err(StoreError::LeaseLost);
    }
    if let Some(state) = changes.state {
        run_steps::end_open(&mut *tx, lease.run(), state).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The run's status while the lease is valid; `None` if it is lost. Explains a refused commit.
pub async fn status_under_lease(
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

/// Renews leases in one statement. Returns the runs whose leases are still valid.
pub async fn renew(
    db: impl PgExecutor<'_>,
    claimant: &Claimant,
    leases: &[Lease],
) -> Result<Vec<RunId>, StoreError> {
    let runs: Vec<&str> = leases.iter().map(|lease| lease.run.as_str()).collect();
    let attempts: Vec<i32> = leases.iter().map(|lease| lease.attempt).collect();
    let held = sqlx::query_scalar(
        "update runs set due_at = now() + $3
         from (select * from unnest($1::text[], $2::int[]) as lease (run_id, attempt)
               order by run_id) as lease
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

/// Releases runs at shutdown: they are due at once, and it does not count as a recovery.
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

pub async fn list_cancelling(
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

/// The leases that the process holds according to the database.
pub async fn list_leases(
    db: impl PgExecutor<'_>,
    claimant: &Claimant,
) -> Result<Vec<Lease>, StoreError> {
    // Every leased run has a `due_at`, and the index of due runs is small.
    let rows: Vec<(RunId, i32)> = sqlx::query_as(
        "select id, attempt from runs where due_at is not null and lease_owner = $1",
    )
    .bind(&claimant.owner)
    .fetch_all(db)
    .await?;
    let lease = |(run, attempt)| Lease { run, attempt };
    Ok(rows.into_iter().map(lease).collect())
}

/// Makes runs due that are leased to the process but executed by none of its workers. Returns how
/// many still were.
///
/// The first time they are due at once, since most of them were never executed; then with back-off,
/// since the run itself may be what ends its workers.
pub async fn release_orphans(
    db: impl PgExecutor<'_>,
    claimant: &Claimant,
    orphans: &[Lease],
) -> Result<u64, StoreError> {
    let runs: Vec<&str> = orphans.iter().map(|lease| lease.run.as_str()).collect();
    let attempts: Vec<i32> = orphans.iter().map(|lease| lease.attempt).collect();
    let released = sqlx::query(
        "update runs set lease_owner = null, recoveries = recoveries + 1,
             due_at = now() + case when recoveries > 0
                 then least(interval '1 second' * power(2, least(recoveries, 16)), $4)
                 else interval '0' end
         from unnest($2::text[], $3::int[]) as orphan (run_id, attempt)
         where runs.id = orphan.run_id and runs.attempt = orphan.attempt
             and runs.lease_owner = $1",
    )
    .bind(&claimant.owner)
    .bind(runs)
    .bind(attempts)
    .bind(claimant.lease / 2)
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}

/// Makes all leased runs due at once, as after lost leases. Returns their number. Only for a
/// process that knows that no other one is running.
pub async fn release_all(db: impl PgExecutor<'_>) -> Result<u64, StoreError> {
    let released = sqlx::query(
        "update runs set due_at = now(), lease_owner = null, recoveries = recoveries + 1
         where due_at is not null and lease_owner is not null",
    )
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}

/// Releases a run that was interrupted because the database was unavailable. It is due after
/// `pause`, and the attempt does not count as a recovery.
pub async fn suspend(
    db: impl PgExecutor<'_>,
    lease: &Lease,
    pause: Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "update runs set due_at = now() + $3, lease_owner = null
         where id = $1 and attempt = $2 and lease_owner is not null",
    )
    .bind(lease.run())
    .bind(lease.attempt())
    .bind(pause)
    .execute(db)
    .await?;
    Ok(())
}

/// When a run that could not be terminated is due again.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The first pause; each one is twice as long as the previous one.
    pub first: Duration,
    pub max: Duration,
}

/// Releases a run that could not be terminated. Its recoveries then exceed `max_recoveries`, so
/// later attempts only try to terminate it: no model is called and no code is executed again.
pub async fn exhaust(
    db: impl PgExecutor<'_>,
    lease: &Lease,
    max_recoveries: i32,
    backoff: Backoff,
) -> Result<(), StoreError> {
    sqlx::query(
        "update runs set lease_owner = null, recoveries = greatest(recoveries, $3) + 1,
             due_at = now() + least($4 * power(2, greatest(least(recoveries - $3, 30), 0)), $5)
         where id = $1 and attempt = $2 and lease_owner is not null",
    )
    .bind(lease.run())
    .bind(lease.attempt())
    .bind(max_recoveries)
    .bind(backoff.first)
    .bind(backoff.max)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn backlog(db: impl PgExecutor<'_>) -> Result<i64, StoreError> {
    let depth = sqlx::query_scalar("select count(*) from runs where due_at <= now()")
        .fetch_one(db)
        .await?;
    Ok(depth)
}
