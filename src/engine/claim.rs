//! Starts a worker for each run that a handler of this process dispatches, and for each due run
//! that it claims from the database. Neither waits for the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::engine::run_loop;
use crate::engine::shared::Shared;
use crate::events::dispatch::Assignment;
use crate::events::notifications::Notification;
use crate::store::{self, StoreError};

const POLL: Duration = Duration::from_secs(1);

/// How often the database is checked for orphans: runs with a lease of this process that none of
/// its workers executes.
const CHECK_ORPHANS_EVERY: Duration = Duration::from_secs(2);

const BATCH: usize = 32;

/// Starts dispatched runs until `stop`. Those that were dispatched before are still started.
pub(super) async fn start_dispatched(
    shared: Arc<Shared>,
    mut assignments: mpsc::UnboundedReceiver<Assignment>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            assignment = assignments.recv() => match assignment {
                Some(assignment) => start(&shared, &tasks, assignment),
                None => return,
            },
            () = stop.cancelled(), if !assignments.is_closed() => assignments.close(),
        }
    }
}

pub(super) async fn claim_due_runs(
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    due: Arc<Notify>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut orphans_checked_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = due.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        match claim(&shared, &slots).await {
            Ok(assignments) => {
                if assignments.len() >= BATCH {
                    due.notify_one();
                }
                for assignment in assignments {
                    start(&shared, &tasks, assignment);
                }
            }
            Err(error) => {
                tracing::warn!(
                    error.cause = %error,
                    "could not claim due runs: {error}; retrying in {} s",
                    POLL.as_secs()
                );
                tokio::time::sleep(POLL).await;
            }
        }
        // Never while a claim is in progress: its runs are not registered yet.
        if orphans_checked_at.elapsed() >= CHECK_ORPHANS_EVERY {
            orphans_checked_at = Instant::now();
            if let Err(error) = release_orphans(&shared).await {
                tracing::warn!(error.cause = %error, "could not check for orphaned runs, retrying in 2 s: {error}");
            }
        }
    }
}

fn start(shared: &Arc<Shared>, tasks: &TaskTracker, assignment: Assignment) {
    let span = tracing::info_span!(
        "run",
        run.id = %assignment.claimed.run.id,
        run.attempt = assignment.claimed.lease.attempt(),
    );
    // Before the next check for orphans, which would release an unregistered run.
    let registered = shared.active.register(&assignment.claimed.lease);
    tasks.spawn(run_loop::execute(shared.clone(), assignment, registered).instrument(span));
}

/// Makes orphans due again. Their handler was interrupted after it had stored them, or did not
/// learn that the commit had succeeded.
async fn release_orphans(shared: &Shared) -> Result<(), StoreError> {
    let pool = &shared.deps.pool;
    let mut orphans = store::run_queue::list_leases(pool, &shared.claimant).await?;
    // Checked in the order in which a run passes from a handler to a worker, so that none slips
    // through. A run that has ended since the query no longer has its lease.
    orphans.retain(|lease| {
        !shared.pending_dispatches.contains(lease.run()) && !shared.active.contains(lease)
    });
    if orphans.is_empty() {
        return Ok(());
    }
    let released = store::run_queue::release_orphans(pool, &shared.claimant, &orphans).await?;
    if released > 0 {
        tracing::warn!(
            runs = released,
            "released {released} runs that were leased by this process but had no worker"
        );
        shared.deps.notifier.notify(Notification::Due);
    }
    Ok(())
}

async fn claim(shared: &Shared, slots: &Arc<Semaphore>) -> Result<Vec<Assignment>, StoreError> {
    let wanted = slots.available_permits().min(BATCH);
    let permits: Vec<_> = (0..wanted)
        .map_while(|_| slots.clone().try_acquire_owned().ok())
        .collect();
    // Without a free slot, only runs that have to be terminated are claimed: that takes no slot.
    let only_ending = permits.is_empty();
    let limit = if only_ending { BATCH } else { permits.len() };
    let limit = i64::try_from(limit).unwrap_or(1);
    let pool = &shared.deps.pool;
    let claimed = store::run_queue::claim(pool, &shared.claimant, limit, only_ending).await?;
    let mut permits = permits.into_iter();
    let assignment = |claimed: store::run_queue::Claimed| {
        let publisher = shared.deps.feed.open(&claimed.lease);
        Assignment {
            claimed,
            publisher,
            permit: permits.next(),
            dispatch: None,
        }
    };
    Ok(claimed.into_iter().map(assignment).collect())
}
