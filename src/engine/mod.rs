//! The engine: executes runs, and survives the loss of its process at any point.
//!
//! A run may be executed again after a lost lease, so every step can be repeated: only what is
//! committed counts, and only the holder of the lease can commit.

mod active_runs;
mod annotate;
mod budget;
mod claim;
mod clock;
mod close;
mod event_log;
mod finish;
mod heartbeat;
mod history;
mod model_call;
mod progress;
mod prompt;
mod recover;
mod release;
mod run_loop;
mod session;
mod shared;
mod stop;
mod tools;
mod truncate;
mod turn;
mod usage_meter;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::shared::Shared;
use crate::engine::stop::StopSignal;
use crate::events::dispatch::Inbox;
use crate::events::notifications::{self, Notification, Outbox};

pub use crate::engine::shared::Deps;

/// How long runs may take to be released at shutdown, once the grace period is over.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

const IDLE_POLL: Duration = Duration::from_millis(20);

pub struct Engine {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends what active runs need: lease renewal, the event log, notifications.
    stop_background: CancellationToken,
}

impl Engine {
    pub fn start(deps: Deps, inbox: Inbox, outbox: Outbox) -> Self {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let stop_background = CancellationToken::new();
        let Inbox {
            slots,
            assignments,
            due,
            pending,
            claimant,
        } = inbox;
        let shared = Arc::new(Shared {
            deps,
            claimant,
            pending_dispatches: pending,
            active: Arc::default(),
        });
        // So that the metric exists before the first run.
        metrics::gauge!("assistd_runs_in_progress").set(0.0);
        tasks.spawn(claim::start_dispatched(
            shared.clone(),
            assignments,
            tasks.clone(),
            stop.clone(),
        ));
        tasks.spawn(claim::claim_due_runs(
            shared.clone(),
            slots,
            due.clone(),
            tasks.clone(),
            stop.clone(),
        ));
        tasks.spawn(notifications::send(
            shared.deps.background.clone(),
            outbox,
            stop_background.clone(),
        ));
        let receive = {
            let shared = shared.clone();
            move |notification| match notification {
                Notification::Due => due.notify_one(),
                Notification::Cancel(run) => shared.active.stop(&run, StopSignal::Cancel),
                Notification::Events(run) => shared.deps.feed.wake(&run),
            }
        };
        tasks.spawn(notifications::listen(
            shared.deps.pool.clone(),
            receive,
            stop_background.clone(),
        ));
        tasks.spawn(event_log::run(shared.clone(), stop_background.clone()));
        tasks.spawn(heartbeat::run(shared.clone(), stop_background.clone()));
        Self {
            shared,
            tasks,
            stop,
            stop_background,
        }
    }

    /// Stops claiming, lets active runs finish for up to `grace`, then releases them for other
    /// processes. Until `followers` resolves, this process keeps relaying the events of other
    /// processes' runs to its readers, for up to `grace`, too.
    pub async fn drain(self, grace: Duration, followers: impl Future<Output = ()>) {
        self.stop.cancel();
        self.tasks.close();
        let finished = async {
            followers.await;
            self.finish().await;
        };
        if tokio::time::timeout(grace, finished).await.is_ok() {
            return;
        }
        let unfinished = self.shared.active.stop_all(StopSignal::Drain);
        if unfinished > 0 {
            tracing::info!(
                runs = unfinished,
                "shutdown: releasing {unfinished} unfinished runs"
            );
        }
        let released = tokio::time::timeout(RELEASE_TIMEOUT, self.finish()).await;
        if released.is_err() {
            tracing::warn!(
                "shutdown: some runs could not be released; waiting for their leases to expire"
            );
        }
    }

    /// Background tasks are stopped last: active runs need them until then.
    async fn finish(&self) {
        while self.shared.active.len() > 0 {
            tokio::time::sleep(IDLE_POLL).await;
        }
        self.stop_background.cancel();
        self.tasks.wait().await;
    }
}
