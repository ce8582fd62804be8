//! Takes runs: those that handlers of this process hand over, and those that are due in the
//! database.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::queue::{Job, Worker};
use crate::runner::{Engine, drive};
use crate::store;

/// How often the queue is looked at without a hint.
const POLL: Duration = Duration::from_millis(1_000);

/// How many runs are claimed in one statement.
const BATCH: usize = 32;

/// Claims until told to stop.
pub(super) async fn run(
    engine: Arc<Engine>,
    mut worker: Worker,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let start = |job: Job| {
        let span = tracing::info_span!(
            "run",
            run.id = %job.claimed.run.id,
            run.attempt = job.claimed.lease.attempt(),
        );
        tasks.spawn(drive::drive(engine.clone(), job).instrument(span));
    };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(job) = worker.jobs.recv() => {
                start(job);
                continue;
            }
            () = worker.due.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        match claim(&engine, &worker).await {
            Ok(jobs) => {
                // A full batch means that there may be more.
                if jobs.len() >= BATCH {
                    worker.due.notify_one();
                }
                jobs.into_iter().for_each(start);
            }
            Err(error) => {
                tracing::warn!(error.cause = %error, "the queue cannot be read: {error}");
                tokio::time::sleep(POLL).await;
            }
        }
    }
    // What was handed over before the handlers were stopped is still driven.
    worker.jobs.close();
    while let Some(job) = worker.jobs.recv().await {
        start(job);
    }
}

async fn claim(engine: &Engine, worker: &Worker) -> Result<Vec<Job>, store::StoreError> {
    let pool = &engine.deps.pool;
    let wanted = worker.slots.available_permits().min(BATCH);
    let permits: Vec<_> = (0..wanted)
        .map_while(|_| worker.slots.clone().try_acquire_owned().ok())
        .collect();
    // Without a free slot, runs that only have to be ended are taken all the same.
    let ending = permits.is_empty();
    let limit = if ending { BATCH } else { permits.len() };
    let limit = i64::try_from(limit).unwrap_or(1);
    let claimed = store::runs::claim(pool, &worker.claimant, limit, ending).await?;
    let mut permits = permits.into_iter();
    let job = |claimed: store::runs::Claimed| {
        let publisher = engine.deps.feed.open(&claimed.lease);
        Job {
            claimed,
            publisher,
            slot: permits.next(),
        }
    };
    Ok(claimed.into_iter().map(job).collect())
}
