//! Sends and receives notifications between the processes that share a database.
//!
//! A notification may be lost, so everything that waits for one also polls.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use crate::store::notifications::Notification;
use crate::store::notifications::{self, Listener};
use crate::store::{Pool, StoreError};

const BATCH: usize = 256;

/// How long notifications about events are delayed, so that one statement sends more of them.
const BATCH_DELAY: Duration = Duration::from_millis(20);

const RECONNECT_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Notifier(mpsc::UnboundedSender<Notification>);

#[derive(Debug)]
pub struct Outbox(mpsc::UnboundedReceiver<Notification>);

pub fn channel() -> (Notifier, Outbox) {
    #[expect(
        clippy::disallowed_methods,
        reason = "senders must not block; the outbox is emptied as fast as the database answers"
    )]
    let (sender, receiver) = mpsc::unbounded_channel();
    (Notifier(sender), Outbox(receiver))
}

impl Notifier {
    /// Sends a notification to all processes soon, this one included. Never blocks.
    pub fn notify(&self, notification: Notification) {
        // The outbox is closed only while the process stops; then others find out by polling.
        let _ = self.0.send(notification);
    }
}

/// Sends notifications until `stop`, those that have accumulated in one statement.
pub async fn send(pool: Pool, mut outbox: Outbox, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = outbox.0.recv_many(&mut batch, BATCH) => received,
        };
        if received == 0 {
            return;
        }
        // Readers of the log can wait for a batch to fill; due and cancelled runs cannot.
        if batch
            .iter()
            .all(|notification| matches!(notification, Notification::Events(_)))
        {
            tokio::time::sleep(BATCH_DELAY).await;
            while batch.len() < BATCH
                && let Ok(notification) = outbox.0.try_recv()
            {
                batch.push(notification);
            }
        }
        let mut unique = HashSet::new();
        batch.retain(|notification| unique.insert(notification.clone()));
        if let Err(error) = notifications::notify(&pool, &batch).await {
            tracing::debug!(error.cause = %error, "NOTIFY failed: {error}");
        }
    }
}

/// Passes notifications of all processes to `receive` until `stop`. After every connect `receive`
/// gets [`Notification::Due`], since notifications sent before are lost.
pub async fn listen(pool: Pool, receive: impl Fn(Notification), stop: CancellationToken) {
    loop {
        match receive_until_stop(&pool, &receive, &stop).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(
                error.cause = %error,
                "LISTEN connection failed; reconnecting in {} s: {error}",
                RECONNECT_AFTER.as_secs()
            ),
        }
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

async fn receive_until_stop(
    pool: &Pool,
    receive: &impl Fn(Notification),
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let mut listener = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        listener = Listener::connect(pool) => listener?,
    };
    receive(Notification::Due);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            notification = listener.next() => receive(notification?),
        }
    }
    listener.close().await;
    Ok(())
}
