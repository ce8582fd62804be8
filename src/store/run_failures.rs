//! Attempts at runs that did not reach an end of their own: when the next one is due, and how a run
//! ends whose content the database refuses.

use std::time::Duration;

use sqlx::PgExecutor;

use crate::store::runs::{self, Changes, Claimant, Lease};
use crate::store::{Pool, StoreError, run_steps};

/// Releases a run that was interrupted because the database was away. It is due after `pause`, and
/// the attempt does not count as a recovery.
pub async fn suspend(
    db: impl PgExecutor<'_>,
    lease: &Lease,
    pause: Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "update runs set due_at = now() + $3, lease_owner = null
         where id = $1 and attempt = $2 and lease_owner is not null",
    )
    .bind(lease.run())
    .bind(lease.attempt())
    .bind(pause)
    .execute(db)
    .await?;
    Ok(())
}

/// When a run is due again that could not be ended.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The first pause; each is twice as long as the one before.
    pub first: Duration,
    /// The longest pause.
    pub max: Duration,
}

/// Releases a run that could not be ended. Its recoveries are used up, more than `max_recoveries`:
/// what follows may only try to end it, so that neither a model is called nor code is run again.
pub async fn exhaust(
    db: impl PgExecutor<'_>,
    lease: &Lease,
    max_recoveries: i32,
    backoff: Backoff,
) -> Result<(), StoreError> {
    sqlx::query(
        "update runs set lease_owner = null, recoveries = greatest(recoveries, $3) + 1,
             due_at = now() + least($4 * power(2, greatest(least(recoveries - $3, 30), 0)), $5)
         where id = $1 and attempt = $2 and lease_owner is not null",
    )
    .bind(lease.run())
    .bind(lease.attempt())
    .bind(max_recoveries)
    .bind(backoff.first)
    .bind(backoff.max)
    .execute(db)
    .await?;
    Ok(())
}

/// Ends a run together with the steps that were left in progress: all of it or, when the lease is
/// lost, nothing. For changes that hold nothing of what the run produced.
pub async fn abort(
    pool: &Pool,
    claimant: &Claimant,
    lease: &Lease,
    changes: &Changes<'_>,
) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    runs::commit(&mut *tx, claimant, lease, changes).await?;
    if let Some(state) = changes.state {
        run_steps::end_open(&mut *tx, lease.run(), state).await?;
    }
    tx.commit().await?;
    Ok(())
}
