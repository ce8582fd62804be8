//! Renews the leases of all active runs of this process, and notices cancellations.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::engine::shared::Shared;
use crate::engine::stop::StopSignal;
use crate::store;

/// How often cancellations are checked for, in case a notification was lost.
const CHECK_CANCELLED_EVERY: Duration = Duration::from_millis(500);

/// Renews leases well before they expire, and signals workers whose run was cancelled or whose
/// lease is lost, until `stop`. Uses the background connections, which are never busy with
/// requests, so that a process under load keeps its runs.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let renew_every = shared.claimant.lease / 3;
    let mut renewed_at = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CHECK_CANCELLED_EVERY.min(renew_every)) => {}
        }
        let leases = shared.active.leases();
        if leases.is_empty() {
            continue;
        }
        let pool = &shared.deps.background;
        match store::run_queue::list_cancelling(pool, &shared.claimant).await {
            Ok(runs) => {
                for run in &runs {
                    shared.active.stop(run, StopSignal::Cancel);
                }
            }
            Err(error) => {
                tracing::debug!(
                    error.cause = %error,
                    "could not check for cancelled runs: {error}"
                );
            }
        }
        if renewed_at.elapsed() < renew_every {
            continue;
        }
        match store::run_queue::renew(pool, &shared.claimant, &leases).await {
            Ok(renewed) => {
                renewed_at = Instant::now();
                let renewed: HashSet<_> = renewed.into_iter().collect();
                for lease in leases.iter().filter(|lease| !renewed.contains(lease.run())) {
                    shared.active.lose(lease);
                }
            }
            Err(error) => {
                tracing::warn!(
                    error.cause = %error,
                    "could not renew {} leases; retrying: {error}",
                    leases.len()
                );
            }
        }
    }
}
