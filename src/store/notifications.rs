//! Hints between processes, by `LISTEN` and `NOTIFY`.
//!
//! Hints are sent as statements of their own, after the commit they tell of: inside the writing
//! transaction a NOTIFY makes all commits of the database wait for each other. A hint may be
//! lost; everybody who waits for one also polls.

use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;
use sqlx::postgres::{PgListener, PgPoolOptions};

use crate::domain::ids::RunId;
use crate::store::Pool;
use crate::store::StoreError;

const CHANNEL: &str = "assistd";

/// What one process tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// A run is due.
    Due,
    /// The run was asked to stop.
    Cancel(RunId),
    /// The run's log has grown.
    Events(RunId),
}

/// Sends hints to all processes, this one included.
pub async fn notify(db: impl PgExecutor<'_>, hints: &[Hint]) -> Result<(), StoreError> {
    let payloads = hints
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

/// The one connection of a process that hears hints. It reconnects by itself; what was sent
/// meanwhile is lost.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// Begins to listen.
    pub async fn connect(pool: &Pool) -> Result<Self, StoreError> {
        // The listener reconnects by itself, for which it needs a pool of sqlx's kind.
        let session = PgPoolOptions::new().max_connections(1);
        let session = session.connect_lazy_with(pool.options().clone());
        let mut listener = PgListener::connect_with(&session).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self(listener))
    }

    /// The next hint that this version understands.
    pub async fn next(&mut self) -> Result<Hint, StoreError> {
        loop {
            let notification = self.0.recv().await?;
            if let Ok(hint) = serde_json::from_str(notification.payload()) {
                return Ok(hint);
            }
        }
    }
}
