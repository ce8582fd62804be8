//! Releases a run whose worker stops without having terminated it.

use std::time::Duration;

use tokio::time::sleep;

use crate::engine::event_log;
use crate::engine::shared::Shared;
use crate::engine::stop::StopSignal;
use crate::events::feed::Unlogged;
use crate::events::notifications::Notification;
use crate::store::lease::Lease;
use crate::store::run_queue::{self, Backoff};
use crate::store::{self, StoreError};

/// Pause before the next attempt at a run whose worker stopped because the database was not
/// available.
const RESUME_AFTER: Duration = Duration::from_secs(1);

const TERMINATE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Longest pause before the next call of a database that is not available. Short enough for a
/// worker to notice in time that the process shuts down.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub(super) fn backoff(failures: u32) -> Duration {
    let pause = Duration::from_millis(100) * 2_u32.saturating_pow(failures.min(16));
    pause.min(BACKOFF_MAX)
}

pub(super) async fn immediately(shared: &Shared, lease: &Lease) {
    let pool = &shared.deps.pool;
    if let Err(error) = store::run_queue::release(pool, std::slice::from_ref(lease)).await {
        log_not_released(lease, &error);
    }
    shared.deps.notifier.notify(Notification::Due);
}

/// Writes the events of an attempt to the log and releases its run as soon as the database is
/// available. The lease is kept until then, so that the outage does not count as a recovery.
pub(super) async fn when_available(
    shared: &Shared,
    lease: &Lease,
    unlogged: impl Fn() -> Option<Unlogged>,
    stop_signal: impl Fn() -> Option<StopSignal>,
) {
    let pool = &shared.deps.pool;
    for failures in 0.. {
        event_log::write(shared, unlogged()).await;
        let Err(error) = run_queue::suspend(pool, lease, RESUME_AFTER).await else {
            return;
        };
        let must_stop = matches!(
            stop_signal(),
            Some(StopSignal::Drain | StopSignal::LeaseLost)
        );
        if must_stop || !error.is_transient() {
            log_not_released(lease, &error);
            return;
        }
        sleep(backoff(failures)).await;
    }
}

/// Releases a run that could not be terminated, with no recoveries left: the next attempts only
/// try to terminate it, after growing pauses.
pub(super) async fn exhausted(shared: &Shared, lease: &Lease, max_recoveries: i32) {
    let backoff = Backoff {
        first: TERMINATE_AGAIN_AFTER,
        max: shared.claimant.lease / 2,
    };
    let run = lease.run();
    let seconds = TERMINATE_AGAIN_AFTER.as_secs();
    tracing::error!(
        run.id = %run,
        "run {run}: the database refuses its final status; retrying in {seconds} s, then less often"
    );
    let pool = &shared.deps.pool;
    if let Err(error) = run_queue::exhaust(pool, lease, max_recoveries, backoff).await {
        log_not_released(lease, &error);
    }
}

fn log_not_released(lease: &Lease, error: &StoreError) {
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
        let pauses: Vec<Duration> = (0..6).map(backoff).collect();
        assert!(pauses.is_sorted() && pauses[0] < Duration::from_millis(200));
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
