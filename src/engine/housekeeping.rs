//! What has to be done now and then: old events and files go, gauges are set.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::engine::shared::Shared;
use crate::files;
use crate::store;
use crate::store::Pool;
use crate::store::StoreError;

/// How often the queue is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// How often what is too old goes.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How often threads are deleted that their projects no longer keep.
const RETIRE_EVERY: Duration = Duration::from_secs(600);

/// Threads deleted in one transaction.
const THREADS: i64 = 100;

/// Entries of usage that are summed up in one transaction.
const ENTRIES: i64 = 10_000;

/// Keeps house until told to stop.
pub(super) async fn run(engine: Arc<Shared>, stop: CancellationToken) {
    let pool = &engine.deps.pool;
    let mut forgotten = Instant::now();
    let mut retired: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
        metrics::gauge!("assistd_runs_in_progress").set(engine.active.len() as f64);
        match store::run_queue::backlog(pool).await {
            Ok(depth) => metrics::gauge!("assistd_queue_depth").set(depth as f64),
            Err(error) => tracing::debug!(%error, "the queue was not measured: {error}"),
        }
        if retired.is_none_or(|at| at.elapsed() >= RETIRE_EVERY) {
            retired = Some(Instant::now());
            // As below: any number of threads may have become too old.
            let deleted = tokio::select! {
                () = stop.cancelled() => return,
                deleted = retire(pool) => deleted,
            };
            if let Err(error) = deleted {
                tracing::warn!(error.cause = %error, "idle threads were not deleted: {error}");
            }
        }
        if forgotten.elapsed() < FORGET_EVERY {
            continue;
        }
        forgotten = Instant::now();
        if let Err(error) = store::run_events::forget(pool, engine.deps.event_retention).await {
            tracing::warn!(error.cause = %error, "old events were not deleted: {error}");
        }
        if let Err(error) = sum_up_usage(pool).await {
            tracing::warn!(error.cause = %error, "usage was not summed up: {error}");
        }
        // May have much to delete; stopping in the middle of it is harmless.
        let swept = tokio::select! {
            () = stop.cancelled() => return,
            swept = files::sweep(pool, &engine.deps.blobs) => swept,
        };
        if let Err(error) = swept {
            tracing::warn!(error.cause = %error, "expired files were not deleted: {error}");
        }
    }
}

/// Deletes threads that have been idle for longer than their projects keep such.
async fn retire(pool: &Pool) -> Result<(), StoreError> {
    let mut all = 0;
    loop {
        let mut tx = pool.begin().await?;
        let deleted = store::threads::delete_idle(&mut tx, THREADS).await?;
        tx.commit().await?;
        all += deleted;
        if deleted == 0 {
            break;
        }
    }
    if all > 0 {
        tracing::info!(
            threads = all,
            "deleted {all} threads that were idle for too long"
        );
    }
    Ok(())
}

/// Makes sums by day of what was used.
async fn sum_up_usage(pool: &Pool) -> Result<(), StoreError> {
    while store::usage::sum_up(pool, ENTRIES).await? == ENTRIES {}
    Ok(())
}
