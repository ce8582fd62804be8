//! Table `runs` as a queue: leases that nobody works under, and attempts that reached no end.

use std::time::Duration;

use sqlx::PgExecutor;

use crate::domain::ids::RunId;
use crate::store::runs::{self, Changes, Claimant, Lease};
use crate::store::{Pool, StoreError, run_steps};

/// The leases that the process holds by the database's account.
pub async fn leased_to(
    db: impl PgExecutor<'_>,
    claimant: &Claimant,
) -> Result<Vec<Lease>, StoreError> {
    // A leased run is always due at some time, and the index of due runs is small.
    let rows: Vec<(RunId, i32)> = sqlx::query_as(
        "select id, attempt from runs where due_at is not null and lease_owner = $1",
    )
    .bind(&claimant.owner)
    .fetch_all(db)
    .await?;
    let lease = |(run, attempt)| Lease { run, attempt };
    Ok(rows.into_iter().map(lease).collect())
}

/// Makes runs due whose lease the process holds without a worker that executes them; how many still
/// were.
///
/// At once the first time, since most of them were never executed; then later each time, since the
/// run itself may be what ends its workers.
pub async fn release_orphans(
    db: impl PgExecutor<'_>,
    claimant: &Claimant,
    orphans: &[Lease],
) -> Result<u64, StoreError> {
    let runs: Vec<&str> = orphans.iter().map(|lease| lease.run.as_str()).collect();
    let attempts: Vec<i32> = orphans.iter().map(|lease| lease.attempt).collect();
    let released = sqlx::query(
        "update runs set lease_owner = null, recoveries = recoveries + 1,
             due_at = now() + case when recoveries > 0
                 then least(interval '1 second' * power(2, least(recoveries, 16)), $4)
                 else interval '0' end
         from unnest($2::text[], $3::int[]) as orphan (run_id, attempt)
         where runs.id = orphan.run_id and runs.attempt = orphan.attempt
             and runs.lease_owner = $1",
    )
    .bind(&claimant.owner)
    .bind(runs)
    .bind(attempts)
    .bind(claimant.lease / 2)
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}

/// Makes all leased runs due at once, as after a lost lease; how many there were. Only for a process
/// that knows that no other one is alive.
pub async fn release_all(db: impl PgExecutor<'_>) -> Result<u64, StoreError> {
    let released = sqlx::query(
        "update runs set due_at = now(), lease_owner = null, recoveries = recoveries + 1
         where due_at is not null and lease_owner is not null",
    )
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}

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
