//! Hints to and from other processes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Interrupt};
use crate::store;
use crate::store::notifications::{Hint, Listener};

/// How many hints go out in one statement.
const BATCH: usize = 256;

/// How long hints about events wait for company; readers of the log are not in a hurry.
const GATHER: Duration = Duration::from_millis(20);

/// Pause before the connection for hints is opened again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Sends hints, those that pile up meanwhile in one statement.
pub(super) async fn send(
    engine: Arc<Engine>,
    mut hints: mpsc::UnboundedReceiver<Hint>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        let more = tokio::select! {
            () = stop.cancelled() => return,
            count = hints.recv_many(&mut batch, BATCH) => count > 0,
        };
        if !more {
            return;
        }
        if batch.iter().all(|hint| matches!(hint, Hint::Events(_))) {
            tokio::time::sleep(GATHER).await;
            while batch.len() < BATCH
                && let Ok(hint) = hints.try_recv()
            {
                batch.push(hint);
            }
        }
        let mut seen = HashSet::new();
        batch.retain(|hint| seen.insert(hint.clone()));
        if let Err(error) = store::notifications::notify(&engine.deps.background, &batch).await {
            // Whoever waits for a hint also polls.
            tracing::debug!(%error, "hints were not sent: {error}");
        }
    }
}

/// Hears hints and passes them on within this process.
pub(super) async fn listen(engine: Arc<Engine>, due: Arc<Notify>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = hear(&engine, &due) => heard,
        };
        if let Err(error) = heard {
            tracing::warn!(error.cause = %error, "hints cannot be heard for now: {error}");
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn hear(engine: &Engine, due: &Notify) -> Result<(), store::StoreError> {
    let mut listener = Listener::connect(&engine.deps.pool).await?;
    // Whatever was said before is lost.
    due.notify_one();
    loop {
        match listener.next().await? {
            Hint::Due => due.notify_one(),
            Hint::Cancel(run) => engine.active.interrupt(&run, Interrupt::Cancel),
            Hint::Events(run) => engine.deps.feed.wake(&run),
        }
    }
}
