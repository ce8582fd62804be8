//! What is done for all runs of the process at once: events go to the log, leases are renewed,
//! cancellations are noticed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::engine::shared::Shared;
use crate::engine::stop::StopSignal;
use crate::events::feed::Unlogged;
use crate::events::notifications::Notification;
use crate::store::{self, StoreError};

/// How often events are written to the log.
const RECORD_EVERY: Duration = Duration::from_millis(250);

/// How often runs are checked for cancellation, in case a hint was lost.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Writes new events of all runs to the log, in batches.
pub(super) async fn run(engine: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RECORD_EVERY) => {}
        }
        let unlogged = engine.deps.feed.unlogged();
        if unlogged.is_empty() {
            continue;
        }
        write_now(&engine, unlogged).await;
    }
}

/// Writes these events to the log. While the database is away they stay unlogged and come with the
/// next batch, if there is one. Those of a run that it refuses are left out, and hold up no others.
pub(super) async fn write_now(engine: &Shared, unlogged: impl IntoIterator<Item = Unlogged>) {
    let unlogged: Vec<Unlogged> = unlogged.into_iter().collect();
    if unlogged.is_empty() {
        return;
    }
    match write(engine, &unlogged).await {
        Ok(()) => logged(engine, unlogged),
        Err(error) if error.is_transient() => {
            tracing::warn!(error.cause = %error, "events were not logged: {error}");
        }
        Err(_) => {
            for one in unlogged {
                match write(engine, std::slice::from_ref(&one)).await {
                    Err(error) if error.is_transient() => {
                        tracing::warn!(error.cause = %error, "events were not logged: {error}");
                        return;
                    }
                    Err(error) => {
                        let run = one.lease.run().clone();
                        tracing::error!(
                            run.id = %run,
                            error.cause = %error,
                            "run {run}: events refused, the log goes on without them: {error}"
                        );
                        one.mark_logged();
                    }
                    Ok(()) => logged(engine, [one]),
                }
            }
        }
    }
}

fn logged(engine: &Shared, unlogged: impl IntoIterator<Item = Unlogged>) {
    for unlogged in unlogged {
        let run = unlogged.lease.run().clone();
        engine.deps.notifier.notify(Notification::Events(run));
        unlogged.mark_logged();
    }
}

async fn write(engine: &Shared, unlogged: &[Unlogged]) -> Result<(), StoreError> {
    let segments: Vec<_> = unlogged
        .iter()
        .map(|unlogged| (unlogged.lease.clone(), unlogged.segment.clone()))
        .collect();
    store::run_events::append(&engine.deps.background, &segments).await
}

/// Renews the leases of all runs under way, well before they run out, and tells drivers of runs
/// that are lost or cancelled. Never waits for a connection behind requests: a process that is busy
/// keeps its runs.
pub(super) async fn keep_leases(engine: Arc<Shared>, stop: CancellationToken) {
    let renew_every = engine.claimant.lease / 3;
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CHECK_EVERY.min(renew_every)) => {}
        }
        let leases = engine.active.leases();
        if leases.is_empty() {
            continue;
        }
        let pool = &engine.deps.background;
        match store::run_queue::cancelling_of(pool, &engine.claimant).await {
            Ok(runs) => runs
                .iter()
                .for_each(|run| engine.active.stop(run, StopSignal::Cancel)),
            Err(error) => tracing::debug!(%error, "cancellations were not checked: {error}"),
        }
        if renewed.elapsed() < renew_every {
            continue;
        }
        match store::run_queue::renew(pool, &engine.claimant, &leases).await {
            Ok(held) => {
                renewed = Instant::now();
                let held: HashSet<_> = held.into_iter().collect();
                for lease in leases.iter().filter(|lease| !held.contains(lease.run())) {
                    // A run that has just ended is no longer active, and then nothing happens.
                    engine.active.lose(lease);
                }
            }
            Err(error) => {
                tracing::warn!(error.cause = %error, "leases were not renewed: {error}");
            }
        }
    }
}
