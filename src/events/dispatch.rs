//! Where handlers and the run engine of one process meet, besides the database.
//!
//! A handler that creates a run may hand it straight to a free slot of its own process, which
//! saves the claim's commit and lets events reach the client through memory.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::domain::ids::RunId;
use crate::events::feed::Publisher;
use crate::store::runs::{Claimant, Claimed};

/// A run together with what a worker needs to drive it.
#[derive(Debug)]
pub struct Job {
    /// The run and the right to write it.
    pub claimed: Claimed,
    /// Where its events go.
    pub publisher: Publisher,
    /// Held until the run leaves the worker's hands. Runs that only have to be ended need none.
    pub slot: Option<OwnedSemaphorePermit>,
    /// Held until the engine has registered the run, if a handler handed it over.
    pub dispatch: Option<Dispatch>,
}

/// The runs that handlers of this process are about to store under its lease, or have stored and
/// not yet handed over.
#[derive(Debug, Clone, Default)]
pub struct Dispatches(Arc<Mutex<HashSet<RunId>>>);

impl Dispatches {
    fn begin(&self, run: &RunId) -> Option<Dispatch> {
        self.0.lock().insert(run.clone()).then(|| Dispatch {
            dispatches: self.clone(),
            run: run.clone(),
        })
    }

    /// Whether a handler is at work on this run.
    pub fn contains(&self, run: &RunId) -> bool {
        self.0.lock().contains(run)
    }
}

/// A run on its way from a handler to the engine, until it is dropped.
#[derive(Debug)]
pub struct Dispatch {
    dispatches: Dispatches,
    run: RunId,
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        self.dispatches.0.lock().remove(&self.run);
    }
}

/// The handlers' side.
#[derive(Debug, Clone)]
pub struct Queue {
    slots: Arc<Semaphore>,
    jobs: mpsc::UnboundedSender<Job>,
    due: Arc<Notify>,
    dispatches: Dispatches,
    claimant: Claimant,
}

/// The run engine's side.
#[derive(Debug)]
pub struct Worker {
    /// Free slots.
    pub slots: Arc<Semaphore>,
    /// Runs handed over.
    pub jobs: mpsc::UnboundedReceiver<Job>,
    /// Rings when some run of this process became due.
    pub due: Arc<Notify>,
    /// Runs on their way here.
    pub dispatches: Dispatches,
    /// Who this process is.
    pub claimant: Claimant,
}

/// Room for one more run in this process.
#[derive(Debug)]
pub struct Slot {
    permit: OwnedSemaphorePermit,
    dispatch: Dispatch,
    queue: Queue,
}

/// Makes both sides; the process drives at most `slots` runs at a time.
pub fn new(slots: usize, claimant: Claimant) -> (Queue, Worker) {
    let (sender, jobs) = mpsc::unbounded_channel();
    let slots = Arc::new(Semaphore::new(slots));
    let due = Arc::new(Notify::new());
    let dispatches = Dispatches::default();
    let queue = Queue {
        slots: slots.clone(),
        jobs: sender,
        due: due.clone(),
        dispatches: dispatches.clone(),
        claimant: claimant.clone(),
    };
    (
        queue,
        Worker {
            slots,
            jobs,
            due,
            dispatches,
            claimant,
        },
    )
}

impl Queue {
    /// A slot for this run, if one is free, the engine still takes work, and no other handler is
    /// at work on the run.
    pub fn reserve(&self, run: &RunId) -> Option<Slot> {
        let permit = self.slots.clone().try_acquire_owned().ok()?;
        if self.jobs.is_closed() {
            return None;
        }
        Some(Slot {
            permit,
            dispatch: self.dispatches.begin(run)?,
            queue: self.clone(),
        })
    }

    /// Says that a run is due; the engine claims it when it has a free slot.
    pub fn hint(&self) {
        self.due.notify_one();
    }
}

impl Slot {
    /// In whose name the run is to be stored.
    pub fn claimant(&self) -> &Claimant {
        &self.queue.claimant
    }

    /// Hands the run over. Should the engine have stopped just now, another worker takes the run
    /// when the lease has run out.
    pub fn start(self, claimed: Claimed, publisher: Publisher) {
        let job = Job {
            claimed,
            publisher,
            slot: Some(self.permit),
            dispatch: Some(self.dispatch),
        };
        if self.queue.jobs.send(job).is_err() {
            tracing::warn!("the run engine stopped before it took a run; its lease will run out");
        }
    }
}
