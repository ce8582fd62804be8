//! Hands runs from request handlers to the engine of the same process.
//!
//! Without it, a run would be queued in the database and claimed from there. Dispatching saves the
//! commit of the claim, and the run's events reach the client through memory.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::domain::ids::RunId;
use crate::events::feed::Publisher;
use crate::store::lease::Claimant;
use crate::store::run_queue::Claimed;

#[derive(Debug)]
pub struct Assignment {
    pub claimed: Claimed,
    pub publisher: Publisher,
    /// Held while a worker executes the run. `None` for a run that only has to be terminated.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Held until the engine has registered the run. `None` for a run that the engine claimed.
    pub dispatch: Option<PendingDispatch>,
}

/// The runs that handlers of this process are about to store under its lease, or have stored and
/// not dispatched yet. The engine must not take them for orphans.
#[derive(Debug, Clone, Default)]
pub struct PendingDispatches(Arc<Mutex<HashSet<RunId>>>);

impl PendingDispatches {
    fn begin(&self, run: &RunId) -> Option<PendingDispatch> {
        self.0.lock().insert(run.clone()).then(|| PendingDispatch {
            all: self.clone(),
            run: run.clone(),
        })
    }

    pub fn contains(&self, run: &RunId) -> bool {
        self.0.lock().contains(run)
    }
}

/// Keeps a run among the [`PendingDispatches`] until it is dropped.
#[derive(Debug)]
pub struct PendingDispatch {
    all: PendingDispatches,
    run: RunId,
}

impl Drop for PendingDispatch {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.run);
    }
}

#[derive(Debug, Clone)]
pub struct Dispatcher {
    slots: Arc<Semaphore>,
    assignments: mpsc::UnboundedSender<Assignment>,
    due: Arc<Notify>,
    pending: PendingDispatches,
    claimant: Claimant,
}

#[derive(Debug)]
pub struct Inbox {
    /// One permit for each further run that this process may execute.
    pub slots: Arc<Semaphore>,
    pub assignments: mpsc::UnboundedReceiver<Assignment>,
    /// Notified when a run became due that any process may claim.
    pub due: Arc<Notify>,
    pub pending: PendingDispatches,
    pub claimant: Claimant,
}

/// Capacity for one more run in this process, reserved for a certain run.
#[derive(Debug)]
pub struct Slot {
    permit: OwnedSemaphorePermit,
    dispatch: PendingDispatch,
    dispatcher: Dispatcher,
    reserved_at: Instant,
}

/// Creates the handlers' side and the engine's side. The process executes at most `slots` runs at a
/// time.
pub fn channel(slots: usize, claimant: Claimant) -> (Dispatcher, Inbox) {
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by the slots: each assignment holds one"
    )]
    let (sender, assignments) = mpsc::unbounded_channel();
    let slots = Arc::new(Semaphore::new(slots));
    let due = Arc::new(Notify::new());
    let pending = PendingDispatches::default();
    let dispatcher = Dispatcher {
        slots: slots.clone(),
        assignments: sender,
        due: due.clone(),
        pending: pending.clone(),
        claimant: claimant.clone(),
    };
    let inbox = Inbox {
        slots,
        assignments,
        due,
        pending,
        claimant,
    };
    (dispatcher, inbox)
}

impl Dispatcher {
    /// Reserves a slot for this run. `None` if no slot is free, the engine is stopping, or another
    /// handler holds a slot for the same run.
    pub fn reserve(&self, run: &RunId) -> Option<Slot> {
        let permit = self.slots.clone().try_acquire_owned().ok()?;
        if self.assignments.is_closed() {
            return None;
        }
        Some(Slot {
            permit,
            dispatch: self.pending.begin(run)?,
            dispatcher: self.clone(),
            reserved_at: Instant::now(),
        })
    }

    pub fn claimant(&self) -> &Claimant {
        &self.claimant
    }

    pub fn notify_due(&self) {
        self.due.notify_one();
    }
}

impl Slot {
    /// The claimant under whose lease the run must be stored.
    pub fn claimant(&self) -> &Claimant {
        self.dispatcher.claimant()
    }

    pub fn reserved_at(&self) -> Instant {
        self.reserved_at
    }

    /// Hands the run to the engine. If the engine stopped meanwhile, another worker claims the run
    /// when its lease has expired.
    pub fn start(self, claimed: Claimed, publisher: Publisher) {
        let run = claimed.run.id.clone();
        let assignment = Assignment {
            claimed,
            publisher,
            permit: Some(self.permit),
            dispatch: Some(self.dispatch),
        };
        if self.dispatcher.assignments.send(assignment).is_err() {
            tracing::warn!(
                run.id = %run,
                "run {run}: the engine stopped before it was dispatched; waiting for its lease to \
                 expire"
            );
        }
    }
}
