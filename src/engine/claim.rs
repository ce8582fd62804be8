//! Takes runs: those that handlers of this process hand over, and those that are due in the
//! database. The two do not wait for each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::engine::{Engine, drive};
use crate::events::dispatch::Job;
use crate::store::notifications::Hint;
use crate::store::{self, StoreError};

/// How often the queue is looked at without a hint.
const POLL: Duration = Duration::from_secs(1);

/// How often the process looks for runs that carry its lease but have no worker.
const CHECK_ORPHANS_EVERY: Duration = Duration::from_secs(2);

/// How many runs are claimed in one statement.
const BATCH: usize = 32;

/// Starts what handlers hand over, until told to stop.
pub(super) async fn take_handed_over(
    engine: Arc<Engine>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => start(&engine, &tasks, job),
                None => return,
            },
            () = stop.cancelled(), if !jobs.is_closed() => {
                // What was handed over already is still driven.
                jobs.close();
            }
        }
    }
}

/// Claims due runs, when hinted and now and then, until told to stop.
pub(super) async fn take_due(
    engine: Arc<Engine>,
    slots: Arc<Semaphore>,
    due: Arc<Notify>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut checked = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = due.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        match claim(&engine, &slots).await {
            Ok(jobs) => {
                // A full batch means that there may be more.
                if jobs.len() >= BATCH {
                    due.notify_one();
                }
                for job in jobs {
                    start(&engine, &tasks, job);
                }
            }
            Err(error) => {
                tracing::warn!(error.cause = %error, "the queue cannot be read: {error}");
                tokio::time::sleep(POLL).await;
            }
        }
        // Never beside a claim, whose runs are not registered yet.
        if checked.elapsed() >= CHECK_ORPHANS_EVERY {
            checked = Instant::now();
            if let Err(error) = release_orphans(&engine).await {
                tracing::warn!(error.cause = %error, "could not check for orphaned runs: {error}");
            }
        }
    }
}

fn start(engine: &Arc<Engine>, tasks: &TaskTracker, job: Job) {
    let span = tracing::info_span!(
        "run",
        run.id = %job.claimed.run.id,
        run.attempt = job.claimed.lease.attempt(),
    );
    // Before the next look for orphans, which is made by a task that claims.
    let registered = engine.active.register(&job.claimed.lease);
    tasks.spawn(drive::drive(engine.clone(), job, registered).instrument(span));
}

/// Makes the runs due again that carry a lease of this process although nobody here executes them:
/// their handler was interrupted after it had stored them, or never heard that it had.
async fn release_orphans(engine: &Engine) -> Result<(), StoreError> {
    let pool = &engine.deps.pool;
    let mut orphans = store::run_queue::leased_to(pool, &engine.claimant).await?;
    // In the order in which a run passes from a handler to a worker. One that has ended since it was
    // read no longer has this lease.
    orphans
        .retain(|lease| !engine.dispatches.contains(lease.run()) && !engine.active.contains(lease));
    if orphans.is_empty() {
        return Ok(());
    }
    let released = store::run_queue::release_orphans(pool, &engine.claimant, &orphans).await?;
    if released > 0 {
        tracing::warn!(
            runs = released,
            "{released} runs had a lease of this process but no worker; they are due again"
        );
        engine.deps.feed.hint(Hint::Due);
    }
    Ok(())
}

async fn claim(engine: &Engine, slots: &Arc<Semaphore>) -> Result<Vec<Job>, StoreError> {
    let wanted = slots.available_permits().min(BATCH);
    let permits: Vec<_> = (0..wanted)
        .map_while(|_| slots.clone().try_acquire_owned().ok())
        .collect();
    // Without a free slot, runs that only have to be ended are taken all the same.
    let ending = permits.is_empty();
    let limit = if ending { BATCH } else { permits.len() };
    let limit = i64::try_from(limit).unwrap_or(1);
    let pool = &engine.deps.pool;
    let claimed = store::runs::claim(pool, &engine.claimant, limit, ending).await?;
    let mut permits = permits.into_iter();
    let job = |claimed: store::runs::Claimed| {
        let publisher = engine.deps.feed.open(&claimed.lease);
        Job {
            claimed,
            publisher,
            slot: permits.next(),
            dispatch: None,
        }
    };
    Ok(claimed.into_iter().map(job).collect())
}
