//! Periodic maintenance: deletes what has expired or belongs to nothing, sums up usage, and
//! measures the queues. Any number of processes may do so at a time; each step may be interrupted.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use metrics::gauge;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::files;
use crate::files::blobs::Blobs;
use crate::store::{
    Pool, StoreError, run_events, run_queue, threads, usage, vector_store_jobs, webhook_deliveries,
};

const MEASUREMENTS: Schedule = Schedule::every(Duration::from_secs(5));

/// When expired rows and unreferenced blobs are deleted.
const DELETIONS: Schedule = Schedule::every(Duration::from_secs(60));

/// When threads are deleted that were idle for longer than their projects retain such.
const THREAD_DELETIONS: Schedule = Schedule {
    first: Duration::from_secs(5),
    interval: Duration::from_secs(600),
};

/// When chunks are deleted whose files were removed from their vector stores.
const CHUNK_DELETIONS: Schedule = Schedule {
    first: Duration::ZERO,
    interval: Duration::from_secs(5),
};

/// How many threads are deleted, usage entries summed up, or chunks deleted in one transaction.
const THREAD_BATCH: i64 = 100;

const USAGE_BATCH: i64 = 10_000;

const CHUNK_BATCH: i64 = 2_000;

/// Pause between batches of chunks, so that deleting a large vector store does not slow searches.
const CHUNK_BATCH_PAUSE: Duration = Duration::from_millis(20);

/// How long webhook events are kept after their last delivery has ended.
const WEBHOOK_EVENT_RETENTION: Duration = Duration::from_hours(24);

pub struct MaintenanceDeps {
    pub pool: Pool,
    pub blobs: Blobs,
    /// How long the events of ended runs are kept.
    pub event_retention: Duration,
    pub webhook_retry_for: Duration,
}

pub struct Maintenance {
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Clone, Copy)]
struct Schedule {
    first: Duration,
    /// Pause after each run.
    interval: Duration,
}

impl Schedule {
    const fn every(interval: Duration) -> Self {
        Self {
            first: interval,
            interval,
        }
    }
}

impl Maintenance {
    pub fn start(deps: MaintenanceDeps) -> Self {
        let maintenance = Self {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let deps = Arc::new(deps);
        let schedule = |schedule, purpose, step| maintenance.spawn(&deps, schedule, purpose, step);
        schedule(MEASUREMENTS, "measure the queues", |deps| {
            measure_queues(deps).boxed()
        });
        schedule(DELETIONS, "delete old run events", |deps| {
            delete_run_events(deps).boxed()
        });
        schedule(DELETIONS, "sum up usage", |deps| sum_up_usage(deps).boxed());
        schedule(DELETIONS, "delete expired files", |deps| {
            delete_files(deps).boxed()
        });
        schedule(DELETIONS, "delete old webhook events", |deps| {
            delete_webhook_events(deps).boxed()
        });
        schedule(THREAD_DELETIONS, "delete idle threads", |deps| {
            delete_threads(deps).boxed()
        });
        schedule(CHUNK_DELETIONS, "delete removed chunks", |deps| {
            delete_chunks(deps).boxed()
        });
        maintenance
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn spawn(
        &self,
        deps: &Arc<MaintenanceDeps>,
        schedule: Schedule,
        purpose: &'static str,
        step: Step,
    ) {
        let (deps, stop) = (deps.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let repeated = repeat(deps, schedule, purpose, step);
            stop.run_until_cancelled(repeated).await;
        });
    }
}

type Step = fn(Arc<MaintenanceDeps>) -> BoxFuture<'static, Result<(), StoreError>>;

async fn repeat(deps: Arc<MaintenanceDeps>, schedule: Schedule, purpose: &str, step: Step) {
    sleep(schedule.first).await;
    loop {
        if let Err(error) = step(deps.clone()).await {
            let seconds = schedule.interval.as_secs();
            tracing::warn!(
                error.cause = %error,
                "maintenance: could not {purpose}: {error}; retrying in {seconds} s"
            );
        }
        sleep(schedule.interval).await;
    }
}

async fn measure_queues(deps: Arc<MaintenanceDeps>) -> Result<(), StoreError> {
    let pool = &deps.pool;
    gauge!("assistd_queue_depth").set(run_queue::backlog(pool).await? as f64);
    gauge!("assistd_files_to_index").set(vector_store_jobs::count_pending(pool).await? as f64);
    gauge!("assistd_webhooks_waiting").set(webhook_deliveries::count_pending(pool).await? as f64);
    Ok(())
}

async fn delete_run_events(deps: Arc<MaintenanceDeps>) -> Result<(), StoreError> {
    run_events::forget(&deps.pool, deps.event_retention).await?;
    Ok(())
}

async fn sum_up_usage(deps: Arc<MaintenanceDeps>) -> Result<(), StoreError> {
    while usage::sum_up(&deps.pool, USAGE_BATCH).await? == USAGE_BATCH {}
    Ok(())
}

async fn delete_files(deps: Arc<MaintenanceDeps>) -> Result<(), StoreError> {
    files::sweep(&deps.pool, &deps.blobs).await
}

async fn delete_webhook_events(deps: Arc<MaintenanceDeps>) -> Result<(), StoreError> {
    let (retention, retry_for) = (WEBHOOK_EVENT_RETENTION, deps.webhook_retry_for);
    webhook_deliveries::delete_old_events(&deps.pool, retention, retry_for).await
}

async fn delete_threads(deps: Arc<MaintenanceDeps>) -> Result<(), StoreError> {
    let mut count = 0;
    loop {
        let mut tx = deps.pool.begin().await?;
        let deleted = threads::delete_idle(&mut tx, THREAD_BATCH).await?;
        tx.commit().await?;
        count += deleted;
        if deleted == 0 {
            break;
        }
    }
    if count > 0 {
        tracing::info!(threads = count, "maintenance: deleted {count} idle threads");
    }
    Ok(())
}

async fn delete_chunks(deps: Arc<MaintenanceDeps>) -> Result<(), StoreError> {
    while vector_store_jobs::delete_dropped_chunks(&deps.pool, CHUNK_BATCH).await? {
        sleep(CHUNK_BATCH_PAUSE).await;
    }
    Ok(())
}
