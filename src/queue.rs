//! Where handlers and the run engine of one process meet, besides the database.
//!
//! A handler that creates a run may hand it straight to a free slot of its own process, which
//! saves the claim's commit and lets events reach the client through memory.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::feed::Publisher;
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
}

/// The handlers' side.
#[derive(Debug, Clone)]
pub struct Queue {
    slots: Arc<Semaphore>,
    jobs: mpsc::UnboundedSender<Job>,
    due: Arc<Notify>,
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
    /// Who this process is.
    pub claimant: Claimant,
}

/// Room for one more run in this process.
#[derive(Debug)]
pub struct Slot {
    permit: OwnedSemaphorePermit,
    queue: Queue,
}

/// Makes both sides; the process drives at most `slots` runs at a time.
pub fn new(slots: usize, claimant: Claimant) -> (Queue, Worker) {
    let (sender, jobs) = mpsc::unbounded_channel();
    let slots = Arc::new(Semaphore::new(slots));
    let due = Arc::new(Notify::new());
    let queue = Queue {
        slots: slots.clone(),
        jobs: sender,
        due: due.clone(),
        claimant: claimant.clone(),
    };
    (
        queue,
        Worker {
            slots,
            jobs,
            due,
            claimant,
        },
    )
}

impl Queue {
    /// A slot, if one is free and the engine still takes work.
    pub fn reserve(&self) -> Option<Slot> {
        let permit = self.slots.clone().try_acquire_owned().ok()?;
        (!self.jobs.is_closed()).then(|| Slot {
            permit,
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

    /// Hands the run over. Should the engine have stopped just now, the lease runs out and
    /// another worker takes the run.
    pub fn start(self, claimed: Claimed, publisher: Publisher) {
        let job = Job {
            claimed,
            publisher,
            slot: Some(self.permit),
        };
        if self.queue.jobs.send(job).is_err() {
            tracing::warn!("the run engine stopped before it took a run; its lease will run out");
        }
    }
}
