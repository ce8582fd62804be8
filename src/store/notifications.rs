//! `LISTEN` and `NOTIFY`.
//!
//! Notifications are sent by statements of their own after the commit they announce: a NOTIFY
//! inside the writing transaction would serialize all commits of the database.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{PgExecutor, PgPool};

use crate::domain::ids::RunId;
use crate::store::Pool;
use crate::store::StoreError;

const CHANNEL: &str = "assistd";

const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What one process announces to all others. Serialized as the payload of `NOTIFY`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notification {
    Due,
    /// The run was cancelled, or deleted with its thread.
    Cancel(RunId),
    Events(RunId),
}

pub async fn notify(
    db: impl PgExecutor<'_>,
    notifications: &[Notification],
) -> Result<(), StoreError> {
    let payloads = notifications
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<Vec<_>, _>>()?;
    sqlx::query("select pg_notify($1, payload) from unnest($2::text[]) as payload")
        .bind(CHANNEL)
        .bind(payloads)
        .execute(db)
        .await?;
    Ok(())
}

/// The one connection of a process that receives notifications. It reconnects by itself;
/// notifications sent meanwhile are lost.
#[derive(Debug)]
pub struct Listener {
    listener: PgListener,
    /// The listener reconnects by itself, for which it needs a pool of sqlx's kind.
    session: PgPool,
}

impl Listener {
    pub async fn connect(pool: &Pool) -> Result<Self, StoreError> {
        let session = PgPoolOptions::new().max_connections(1);
        let session = session.connect_lazy_with(pool.options().clone());
        let mut listener = PgListener::connect_with(&session).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self { listener, session })
    }

    /// Closes the connection. Without this, sqlx returns it to its pool in a task of its own, which
    /// warns if the database has been stopped meanwhile.
    pub async fn close(self) {
        let Self { listener, session } = self;
        drop(listener);
        drop(tokio::time::timeout(CLOSE_TIMEOUT, session.close()).await);
    }

    /// Waits for the next notification. Those that this version does not know, as sent by a newer
    /// one, are skipped.
    pub async fn next(&mut self) -> Result<Notification, StoreError> {
        loop {
            let payload = self.listener.recv().await?;
            if let Ok(notification) = serde_json::from_str(payload.payload()) {
                return Ok(notification);
            }
        }
    }
}
