//! The durable loop that executes runs. Knows nothing of HTTP.
//!
//! A run may be driven twice if a lease runs out, so every step is safe to repeat: what counts is
//! what is committed, and only the holder of the lease commits.

mod active;
mod annotate;
mod claim;
mod code;
mod drive;
mod end;
mod hints;
mod history;
mod housekeeping;
mod prompt;
mod record;
mod release;
mod search;
mod tools;
mod turn;
mod write;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::active::ActiveRuns;
use crate::events::dispatch::{Dispatches, Worker};
use crate::events::feed::Feed;
use crate::files::blobs::Blobs;
use crate::models::Upstreams;
use crate::retrieval::Retrieval;
use crate::sandbox_client::SandboxPool;
use crate::store;
use crate::store::Pool;
use crate::store::notifications::Hint;
use crate::store::runs::{Claimant, Lease};

/// What the engine works with.
#[derive(Clone)]
pub struct Deps {
    /// The database.
    pub pool: Pool,
    /// The same database for what need not survive a crash of the machine: the log, hints and
    /// renewed leases.
    pub background: Pool,
    /// File contents.
    pub blobs: Blobs,
    /// Where events go.
    pub feed: Feed,
    /// Models.
    pub upstreams: Upstreams,
    /// What finds passages in vector stores.
    pub retrieval: Retrieval,
    /// Where code runs.
    pub sandbox: SandboxPool,
    /// Most bytes that the stored pictures of a prompt have together.
    pub prompt_picture_bytes: u64,
    /// Events of ended runs are kept this long.
    pub event_retention: Duration,
}

/// The engine of this process.
pub struct Runner {
    engine: Arc<Engine>,
    tasks: TaskTracker,
    stop: CancellationToken,
    background: CancellationToken,
}

/// What all parts of the engine share.
struct Engine {
    deps: Deps,
    claimant: Claimant,
    dispatches: Dispatches,
    active: Arc<ActiveRuns>,
}

/// Why a driver has to stop before the run has ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interrupt {
    /// A client cancelled the run.
    Cancel,
    /// The run is past its time.
    Expire,
    /// Another worker has the run, or it was deleted.
    LeaseLost,
    /// The process stops; others go on with the run.
    Drain,
}

impl Runner {
    /// Starts to claim and drive runs.
    pub fn start(deps: Deps, worker: Worker, hints: mpsc::UnboundedReceiver<Hint>) -> Self {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let Worker {
            slots,
            jobs,
            due,
            dispatches,
            claimant,
        } = worker;
        let engine = Arc::new(Engine {
            deps,
            claimant,
            dispatches,
            active: Arc::default(),
        });
        let background = CancellationToken::new();
        tasks.spawn(claim::take_handed_over(
            engine.clone(),
            jobs,
            tasks.clone(),
            stop.clone(),
        ));
        tasks.spawn(claim::take_due(
            engine.clone(),
            slots,
            due.clone(),
            tasks.clone(),
            stop.clone(),
        ));
        tasks.spawn(hints::send(engine.clone(), hints, background.clone()));
        tasks.spawn(hints::listen(engine.clone(), due, background.clone()));
        tasks.spawn(record::run(engine.clone(), background.clone()));
        tasks.spawn(record::keep_leases(engine.clone(), background.clone()));
        tasks.spawn(housekeeping::run(engine.clone(), background.clone()));
        Self {
            engine,
            tasks,
            stop,
            background,
        }
    }

    /// Takes no more runs, lets those under way finish for up to `grace`, then gives them back.
    /// So long, what other workers do is told to those who follow it here, until there are no
    /// more `followers`.
    pub async fn drain(self, grace: Duration, followers: impl Future<Output = ()>) {
        self.stop.cancel();
        self.tasks.close();
        let done = async {
            followers.await;
            self.finish().await;
        };
        if tokio::time::timeout(grace, done).await.is_ok() {
            return;
        }
        let left = self.engine.active.interrupt_all(Interrupt::Drain);
        if left > 0 {
            tracing::info!(
                runs = left,
                "{left} runs are still under way; giving them back"
            );
        }
        if tokio::time::timeout(Duration::from_secs(5), self.finish())
            .await
            .is_err()
        {
            tracing::warn!("some runs could not be given back; their leases will run out");
        }
    }

    /// Leases are renewed and events recorded until the last run has left.
    async fn finish(&self) {
        while self.engine.active.len() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.background.cancel();
        self.tasks.wait().await;
    }
}

impl Engine {
    /// Gives a run back for others to go on with.
    async fn release(&self, lease: &Lease) {
        if let Err(error) = store::runs::release(&self.deps.pool, std::slice::from_ref(lease)).await
        {
            tracing::warn!(run.id = %lease.run(), %error, "a run could not be given back: {error}");
        }
        self.deps.feed.hint(Hint::Due);
    }
}
