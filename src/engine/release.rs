//! How a run leaves a worker that could not end it.

use std::time::Duration;

use tokio::time::sleep;

use crate::engine::event_log;
use crate::engine::shared::Shared;
use crate::engine::stop::StopSignal;
use crate::events::feed::Unlogged;
use crate::events::notifications::Notification;
use crate::store;
use crate::store::lease::Lease;
use crate::store::run_queue::{self, Backoff};

/// Pause before another attempt at a run that was interrupted because the database was away.
const RESUME_AFTER: Duration = Duration::from_secs(1);

/// First pause before another attempt to end a run.
const END_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The longest pause between calls of a database that is away. Short enough that a process that is
/// about to stop notices in time.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long to wait for the database after so many failures in a row.
pub(super) fn pause(failures: u32) -> Duration {
    let pause = Duration::from_millis(100) * 2_u32.saturating_pow(failures.min(16));
    pause.min(PAUSE_MAX)
}

/// Releases a run at once for other processes to continue.
pub(super) async fn now(engine: &Shared, lease: &Lease) {
    let pool = &engine.deps.pool;
    if let Err(error) = store::run_queue::release(pool, std::slice::from_ref(lease)).await {
        log_kept(lease, &error);
    }
    engine.deps.notifier.notify(Notification::Due);
}

/// Logs what an attempt has published and releases its run, once the database is there again. Until
/// then the lease is kept, so that the outage costs the run no recovery.
pub(super) async fn when_available(
    engine: &Shared,
    lease: &Lease,
    unlogged: impl Fn() -> Option<Unlogged>,
    interrupt: impl Fn() -> Option<StopSignal>,
) {
    let pool = &engine.deps.pool;
    for failures in 0.. {
        event_log::write_now(engine, unlogged()).await;
        let Err(error) = run_queue::suspend(pool, lease, RESUME_AFTER).await else {
            return;
        };
        let stops = matches!(interrupt(), Some(StopSignal::Drain | StopSignal::LeaseLost));
        if stops || !error.is_transient() {
            log_kept(lease, &error);
            return;
        }
        sleep(pause(failures)).await;
    }
}

/// Releases a run that could not be ended, for an attempt that only tries to end it.
pub(super) async fn exhausted(engine: &Shared, lease: &Lease, max_recoveries: i32) {
    let backoff = Backoff {
        first: END_AGAIN_AFTER,
        max: engine.claimant.lease / 2,
    };
    let run = lease.run();
    tracing::error!(run.id = %run, "run {run}: could not be ended; trying again later");
    let pool = &engine.deps.pool;
    if let Err(error) = run_queue::exhaust(pool, lease, max_recoveries, backoff).await {
        log_kept(lease, &error);
    }
}

fn log_kept(lease: &Lease, error: &crate::store::StoreError) {
    let run = lease.run();
    tracing::warn!(
        run.id = %run,
        error.cause = %error,
        "run {run}: could not be released, waiting for its lease to expire: {error}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_short() {
        let pauses: Vec<Duration> = (0..6).map(pause).collect();
        assert!(pauses.is_sorted() && pauses[0] < Duration::from_millis(200));
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
