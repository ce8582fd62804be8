//! Writes the events of all runs of this process to the event log.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::shared::Shared;
use crate::events::feed::Unlogged;
use crate::events::notifications::Notification;
use crate::store::{self, StoreError};

const WRITE_EVERY: Duration = Duration::from_millis(250);

pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WRITE_EVERY) => {}
        }
        write(&shared, shared.deps.feed.unlogged()).await;
    }
}

/// While the database is not available the events stay unlogged, to be written with the next batch.
/// Events that the database refuses stay missing in the log, without keeping those of other runs
/// out of it.
pub(super) async fn write(shared: &Shared, unlogged: impl IntoIterator<Item = Unlogged>) {
    let unlogged: Vec<Unlogged> = unlogged.into_iter().collect();
    if unlogged.is_empty() {
        return;
    }
    match append(shared, &unlogged).await {
        Ok(()) => mark_logged(shared, unlogged),
        Err(error) if error.is_transient() => log_unavailable(&error),
        Err(_) => write_one_by_one(shared, unlogged).await,
    }
}

async fn write_one_by_one(shared: &Shared, unlogged: Vec<Unlogged>) {
    for events in unlogged {
        match append(shared, std::slice::from_ref(&events)).await {
            Ok(()) => mark_logged(shared, [events]),
            Err(error) if error.is_transient() => {
                log_unavailable(&error);
                return;
            }
            Err(error) => {
                let run = events.lease.run();
                tracing::error!(
                    run.id = %run,
                    error.cause = %error,
                    "run {run}: the database refuses its events, dropping them from the event log: \
                     {error}"
                );
                events.mark_logged();
            }
        }
    }
}

async fn append(shared: &Shared, unlogged: &[Unlogged]) -> Result<(), StoreError> {
    let segments: Vec<_> = unlogged
        .iter()
        .map(|unlogged| (unlogged.lease.clone(), unlogged.segment.clone()))
        .collect();
    store::run_events::append(&shared.deps.background, &segments).await
}

fn mark_logged(shared: &Shared, unlogged: impl IntoIterator<Item = Unlogged>) {
    for events in unlogged {
        let run = events.lease.run().clone();
        shared.deps.notifier.notify(Notification::Events(run));
        events.mark_logged();
    }
}

fn log_unavailable(error: &StoreError) {
    tracing::warn!(error.cause = %error, "could not write to the event log; retrying: {error}");
}
