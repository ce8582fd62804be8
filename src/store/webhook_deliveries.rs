//! Tables `webhook_events` and `webhook_deliveries`. Triggers fill them (migration 7); this is the
//! queue of deliveries.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgExecutor, Row};

use crate::domain::audit::Actor;
use crate::domain::ids::{
    AssistantId, BatchId, EndpointId, EventId, FileId, ProjectId, RunId, ThreadId, VectorStoreId,
};
use crate::domain::page::Page;
use crate::domain::run::{Run, RunConfig, RunState};
use crate::domain::vector_store::{
    Attributes, Batch, Chunking, FileCounts, FileStatus, IndexError, VectorStoreFile,
};
use crate::domain::webhook::{DeliveryRecord, EventType, Subject};
use crate::domain::{Metadata, Timestamp};
use crate::store::webhook_endpoints::{self, Target};
use crate::store::{Pool, StoreError};

/// A claimed delivery: an event on its way to one endpoint.
#[derive(Debug, Clone)]
pub struct Delivery {
    seq: i64,
    attempt: i32,
    /// The row that the event is about, as it was then, in JSON.
    snapshot: String,
    /// The same for every endpoint and every attempt.
    pub event: EventId,
    pub kind: String,
    pub created_at: Timestamp,
    /// Time since `created_at`, by the database's clock.
    pub age: Duration,
    /// Failed attempts so far.
    pub failures: i32,
    pub target: Target,
}

impl FromRow<'_, PgRow> for Delivery {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let age: f64 = row.try_get("age")?;
        Ok(Self {
            seq: row.try_get("seq")?,
            attempt: row.try_get("attempt")?,
            snapshot: row.try_get("snapshot")?,
            event: row.try_get("event_id")?,
            kind: row.try_get("type")?,
            created_at: row.try_get("created_at")?,
            age: Duration::try_from_secs_f64(age).unwrap_or_default(),
            failures: row.try_get("failures")?,
            target: Target::from_row(row)?,
        })
    }
}

impl Delivery {
    /// Earlier attempts without a recorded result.
    pub fn unrecorded_attempts(&self) -> i32 {
        self.attempt - 1 - self.failures
    }

    pub fn subject(&self) -> Result<Subject, StoreError> {
        let snapshot = &self.snapshot;
        Ok(if self.is_test() {
            Subject::Test(self.target.endpoint.clone())
        } else if self.kind.starts_with("thread.run.") {
            Subject::Run(Box::new(serde_json::from_str::<RunRow>(snapshot)?.into()))
        } else if self.kind.starts_with("vector_store.file_batch.") {
            Subject::Batch(serde_json::from_str::<BatchRow>(snapshot)?.into())
        } else {
            Subject::File(Box::new(serde_json::from_str::<FileRow>(snapshot)?.into()))
        })
    }

    pub fn is_test(&self) -> bool {
        self.kind == EventType::TEST.as_str()
    }
}

#[derive(Deserialize)]
struct RunRow {
    id: RunId,
    project_id: ProjectId,
    thread_id: ThreadId,
    assistant_id: AssistantId,
    created_at: Timestamp,
    config: Arc<RunConfig>,
    metadata: Metadata,
    #[serde(flatten)]
    state: RunState,
}

impl From<RunRow> for Run {
    fn from(row: RunRow) -> Self {
        Self {
            id: row.id,
            project: row.project_id,
            thread: row.thread_id,
            assistant: row.assistant_id,
            created_at: row.created_at,
            config: row.config,
            metadata: row.metadata,
            state: row.state,
        }
    }
}

#[derive(Deserialize)]
struct FileRow {
    file_id: FileId,
    vector_store_id: VectorStoreId,
    created_at: Timestamp,
    status: FileStatus,
    last_error: Option<IndexError>,
    usage_bytes: i64,
    chunk_tokens: i32,
    chunk_overlap: i32,
    attributes: Attributes,
}

impl From<FileRow> for VectorStoreFile {
    fn from(row: FileRow) -> Self {
        Self {
            file: row.file_id,
            vector_store: row.vector_store_id,
            created_at: row.created_at,
            status: row.status,
            last_error: row.last_error,
            usage_bytes: row.usage_bytes,
            chunking: Chunking {
                max_tokens: row.chunk_tokens,
                overlap_tokens: row.chunk_overlap,
            },
            attributes: row.attributes,
        }
    }
}

/// The snapshot that [`create_batch_events`] takes of a batch.
#[derive(Deserialize)]
struct BatchRow {
    id: BatchId,
    vector_store_id: VectorStoreId,
    created_at: Timestamp,
    is_cancelled: bool,
    completed: i64,
    failed: i64,
    cancelled: i64,
}

impl From<BatchRow> for Batch {
    fn from(row: BatchRow) -> Self {
        Self {
            id: row.id,
            vector_store: row.vector_store_id,
            created_at: row.created_at,
            is_cancelled: row.is_cancelled,
            file_counts: FileCounts {
                in_progress: 0,
                completed: row.completed,
                failed: row.failed,
                cancelled: row.cancelled,
            },
        }
    }
}

/// How many more deliveries a process may claim.
#[derive(Debug, Clone)]
pub struct Capacity<'a> {
    pub free: usize,
    /// Most deliveries in flight for one endpoint, so that a slow one does not hold up the others.
    pub per_endpoint: i64,
    pub in_flight: Vec<(&'a EndpointId, i64)>,
}

/// Claims due deliveries, the longest due first.
///
/// A delivery waits until all earlier ones about the same object to the same endpoint have ended.
pub async fn claim(
    db: impl PgExecutor<'_>,
    owner: &str,
    lease: Duration,
    capacity: &Capacity<'_>,
) -> Result<Vec<Delivery>, StoreError> {
    let in_flight = capacity.in_flight.iter();
    let (endpoints, counts): (Vec<&str>, Vec<i64>) = in_flight
        .map(|(endpoint, count)| (endpoint.as_str(), *count))
        .unzip();
    let deliveries = sqlx::query_as(
        "with due as (
             select due.seq
             from webhook_endpoints as e
             left join unnest($5::text[], $6::bigint[]) as in_flight (endpoint_id, n)
                 on in_flight.endpoint_id = e.id
             cross join lateral (
                 select seq, due_at from webhook_deliveries as d
                 where endpoint_id = e.id and due_at <= now() and not exists (
                     select from webhook_deliveries as earlier
                     where earlier.endpoint_id = d.endpoint_id and earlier.subject = d.subject
                         and earlier.seq < d.seq and earlier.due_at is not null)
                 order by due_at, seq limit greatest($4 - coalesce(in_flight.n, 0), 0)
                 for update skip locked) as due
             where e.disabled_at is null
             order by due.due_at, due.seq limit $3),
         claimed as (
             update webhook_deliveries as d
             set attempt = attempt + 1, lease_owner = $1, due_at = now() + $2
             from due where d.seq = due.seq
             returning d.*)
         select claimed.seq, attempt, failures, event_id, v.type, v.created_at,
                v.snapshot::text as snapshot,
                extract(epoch from now() - v.created_at)::double precision as age,
                endpoint_id, e.url, array_remove(
                    array[secret, case when old_secret_until > now() then old_secret end], null)
                    as secrets
         from claimed join webhook_events as v on v.id = event_id
         join webhook_endpoints as e on e.id = endpoint_id
         order by claimed.seq",
    )
    .bind(owner)
    .bind(lease)
    .bind(i64::try_from(capacity.free).unwrap_or(i64::MAX))
    .bind(capacity.per_endpoint)
    .bind(endpoints)
    .bind(counts)
    .fetch_all(db)
    .await?;
    Ok(deliveries)
}

impl FromRow<'_, PgRow> for DeliveryRecord {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            number: row.try_get("seq")?,
            event: row.try_get("event_id")?,
            kind: row.try_get("type")?,
            subject: row.try_get("subject")?,
            created_at: row.try_get("created_at")?,
            attempts: row.try_get("attempt")?,
            due_at: row.try_get("due_at")?,
            delivered_at: row.try_get("delivered_at")?,
            last_error: row.try_get("last_error")?,
        })
    }
}

/// The stored deliveries to an endpoint, newest first, after the one with this number.
pub async fn list(
    db: impl PgExecutor<'_>,
    endpoint: &EndpointId,
    after: Option<i64>,
    limit: i64,
) -> Result<Page<DeliveryRecord>, StoreError> {
    let mut data: Vec<DeliveryRecord> = sqlx::query_as(
        "select d.seq, d.event_id, v.type, d.subject, v.created_at, d.attempt, d.due_at,
                d.delivered_at, d.last_error
         from webhook_deliveries as d join webhook_events as v on v.id = d.event_id
         where d.endpoint_id = $1 and d.seq < coalesce($2, 9223372036854775807)
         order by d.seq desc limit $3 + 1",
    )
    .bind(endpoint)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let limit = usize::try_from(limit).unwrap_or(0);
    let has_more = data.len() > limit;
    data.truncate(limit);
    Ok(Page { data, has_more })
}

/// Makes a delivery due that no worker holds, also one that was delivered or abandoned. Returns
/// whether there is such a delivery.
pub async fn redeliver(
    pool: &Pool,
    actor: &Actor,
    endpoint: &EndpointId,
    number: i64,
) -> Result<bool, StoreError> {
    // All attempts so far count as recorded failures, since their results are known.
    let redelivered = sqlx::query(
        "update webhook_deliveries
         set due_at = now(), delivered_at = null, failures = attempt
         where seq = $1 and endpoint_id = $2 and lease_owner is null",
    )
    .bind(number)
    .bind(endpoint);
    let details = json!({"delivery": number});
    let action = "webhook.redelivered";
    webhook_endpoints::change(pool, actor, action, endpoint, &details, redelivered).await
}

pub async fn record_success(
    db: impl PgExecutor<'_>,
    delivery: &Delivery,
) -> Result<(), StoreError> {
    sqlx::query(
        "with done as (
             update webhook_deliveries
             set due_at = null, lease_owner = null, delivered_at = now(), last_error = null
             where seq = $1 and attempt = $2 and due_at is not null returning endpoint_id)
         update webhook_endpoints as e set failing_since = null
         from done where e.id = done.endpoint_id and failing_since is not null",
    )
    .bind(delivery.seq)
    .bind(delivery.attempt)
    .execute(db)
    .await?;
    Ok(())
}

#[derive(Debug, Clone)]
pub struct Failure {
    pub error: String,
    /// Pause before the next attempt; `None` abandons the delivery.
    pub retry_after: Option<Duration>,
    /// Whether the endpoint asked for no further deliveries (410).
    pub is_gone: bool,
    /// How long an endpoint may fail before it is disabled.
    pub disable_after: Duration,
}

/// Records a failed attempt. Returns the reason if that disables the endpoint.
pub async fn record_failure(
    db: impl PgExecutor<'_>,
    delivery: &Delivery,
    failure: &Failure,
) -> Result<Option<String>, StoreError> {
    // Later deliveries about the same object become due with this one, not before.
    let reason: Option<Option<String>> = sqlx::query_scalar(
        "with failed as (
             update webhook_deliveries
             set due_at = now() + $4, lease_owner = null, failures = failures + 1, last_error = $3
             where seq = $1 and attempt = $2 and due_at is not null
             returning endpoint_id, subject, due_at),
         waiting as (
             update webhook_deliveries as d set due_at = failed.due_at from failed
             where d.endpoint_id = failed.endpoint_id and d.subject = failed.subject
                 and d.seq > $1 and d.due_at is not null and failed.due_at is not null)
         update webhook_endpoints as e
         set failing_since = coalesce(failing_since, now()),
             disabled_at = case when $5 or failing_since < now() - $6 then now() end,
             disabled_reason = case
                 when $5 then 'the endpoint answered 410 Gone'
                 when failing_since < now() - $6
                     then 'nothing could be delivered for too long; last: ' || $3
             end
         from failed where e.id = failed.endpoint_id and disabled_at is null
         returning disabled_reason",
    )
    .bind(delivery.seq)
    .bind(delivery.attempt)
    .bind(&failure.error)
    .bind(failure.retry_after)
    .bind(failure.is_gone)
    .bind(failure.disable_after)
    .fetch_optional(db)
    .await?;
    Ok(reason.flatten())
}

/// Abandons a delivery without counting it as a failure of the endpoint.
pub async fn abandon(
    db: impl PgExecutor<'_>,
    delivery: &Delivery,
    error: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "update webhook_deliveries set due_at = null, lease_owner = null, last_error = $3
         where seq = $1 and attempt = $2",
    )
    .bind(delivery.seq)
    .bind(delivery.attempt)
    .bind(error)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn release(db: impl PgExecutor<'_>, delivery: &Delivery) -> Result<(), StoreError> {
    sqlx::query(
        "update webhook_deliveries set due_at = now(), lease_owner = null
         where seq = $1 and attempt = $2 and due_at is not null",
    )
    .bind(delivery.seq)
    .bind(delivery.attempt)
    .execute(db)
    .await?;
    Ok(())
}

/// Ends all leases and returns their number. Only for a process that knows that no other one is alive.
pub async fn release_all(db: impl PgExecutor<'_>) -> Result<u64, StoreError> {
    let released = sqlx::query(
        "update webhook_deliveries set due_at = now(), lease_owner = null
         where due_at is not null and lease_owner is not null",
    )
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestState {
    Unclaimed,
    InFlight,
    Delivered,
    Failed(String),
}

pub async fn insert_test(
    db: impl PgExecutor<'_>,
    endpoint: &EndpointId,
) -> Result<EventId, StoreError> {
    let event = EventId::generate();
    sqlx::query(
        "with event as (
             insert into webhook_events (id, type, subject, snapshot) values ($1, $2, $1, 'null'))
         insert into webhook_deliveries (event_id, endpoint_id, subject, due_at)
         values ($1, $3, $1, now())",
    )
    .bind(&event)
    .bind(EventType::TEST.as_str())
    .bind(endpoint)
    .execute(db)
    .await?;
    Ok(event)
}

pub async fn test_state(db: impl PgExecutor<'_>, event: &EventId) -> Result<TestState, StoreError> {
    let row = sqlx::query(
        "select attempt, delivered_at is not null as is_delivered, last_error
         from webhook_deliveries where event_id = $1",
    )
    .bind(event)
    .fetch_one(db)
    .await?;
    let error: Option<String> = row.try_get("last_error")?;
    Ok(match (row.try_get("is_delivered")?, error) {
        (true, _) => TestState::Delivered,
        (false, Some(error)) => TestState::Failed(error),
        (false, None) if row.try_get::<i32, _>("attempt")? > 0 => TestState::InFlight,
        (false, None) => TestState::Unclaimed,
    })
}

pub async fn delete_event(db: impl PgExecutor<'_>, event: &EventId) -> Result<(), StoreError> {
    sqlx::query("delete from webhook_events where id = $1")
        .bind(event)
        .execute(db)
        .await?;
    Ok(())
}

/// Counts the deliveries that have not ended, except those of disabled endpoints.
pub async fn count_pending(db: impl PgExecutor<'_>) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar(
        "select count(*) from webhook_deliveries as d
         join webhook_endpoints as e on e.id = d.endpoint_id
         where d.due_at is not null and e.disabled_at is null",
    );
    Ok(count.fetch_one(db).await?)
}

/// Creates the events of file batches in which the last file has ended. As long as an event is kept,
/// there is no second one of the same type for its batch.
pub async fn create_batch_events(db: impl PgExecutor<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "with checked as (
             delete from webhook_batch_checks where seq in (
                 select seq from webhook_batch_checks order by seq limit 10000
                 for update skip locked)
             returning batch_id),
         ended as (
             select b.project_id, b.id, b.vector_store_id, b.created_at,
                    b.cancelled_at is not null as is_cancelled,
                    count(*) filter (where status = 'completed') as completed,
                    count(*) filter (where status = 'failed') as failed,
                    count(*) filter (where status = 'cancelled') as cancelled
             from vector_store_batches as b left join vector_store_files as f on f.batch_id = b.id
             where b.id in (select batch_id from checked) group by b.id
             having count(*) filter (where status = 'in_progress') = 0),
         named as (
             select project_id, id, row_to_json(ended) as snapshot,
                    'vector_store.file_batch.' || case
                        when is_cancelled then 'cancelled'
                        when failed > 0 and completed + cancelled = 0 then 'failed'
                        else 'completed' end as happened
             from ended)
         select tell_webhooks(project_id, happened, id, snapshot) from named
         where exists (select from webhooks_wanting(project_id, happened))",
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes events that are older than `retention` and have no pending delivery. Pending deliveries of
/// disabled endpoints protect an event for `retry_for` only.
pub async fn delete_old_events(
    db: impl PgExecutor<'_>,
    retention: Duration,
    retry_for: Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "delete from webhook_events as v
         where created_at < now() - $1 and not exists (
             select from webhook_deliveries as d
             join webhook_endpoints as e on e.id = d.endpoint_id
             where d.event_id = v.id and d.due_at is not null
                 and (e.disabled_at is null or v.created_at > now() - $2))",
    )
    .bind(retention)
    .bind(retry_for)
    .execute(db)
    .await?;
    Ok(())
}
