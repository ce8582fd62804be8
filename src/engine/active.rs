//! The runs that this process drives, and how their drivers are reached.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::ids::RunId;
use crate::engine::Interrupt;
use crate::store::runs::Lease;

/// All of them. Their leases are kept as long as they are here.
#[derive(Default)]
pub(super) struct ActiveRuns(Mutex<HashMap<RunId, Active>>);

struct Active {
    lease: Lease,
    interrupt: watch::Sender<Option<Interrupt>>,
}

/// Keeps a run's lease. Dropped even if its driver panics: then the lease runs out, and another
/// worker takes the run.
pub(super) struct Registered {
    active: Arc<ActiveRuns>,
    lease: Lease,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut active = self.active.0.lock();
        if active
            .get(self.lease.run())
            .is_some_and(|active| active.lease == self.lease)
        {
            active.remove(self.lease.run());
        }
    }
}

impl ActiveRuns {
    /// Puts a run among them until the guard is dropped. The driver listens to the receiver.
    pub fn register(
        self: &Arc<Self>,
        lease: &Lease,
    ) -> (Registered, watch::Receiver<Option<Interrupt>>) {
        let (interrupt, receiver) = watch::channel(None);
        let active = Active {
            lease: lease.clone(),
            interrupt,
        };
        self.0.lock().insert(lease.run().clone(), active);
        let registered = Registered {
            active: self.clone(),
            lease: lease.clone(),
        };
        (registered, receiver)
    }

    /// Whether a worker of this process executes the run under this lease.
    pub fn contains(&self, lease: &Lease) -> bool {
        let active = self.0.lock();
        active
            .get(lease.run())
            .is_some_and(|active| active.lease == *lease)
    }

    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// What all of them are held by.
    pub fn leases(&self) -> Vec<Lease> {
        let active = self.0.lock();
        active.values().map(|active| active.lease.clone()).collect()
    }

    /// Tells whoever drives the run, if it is driven here.
    pub fn interrupt(&self, run: &RunId, interrupt: Interrupt) {
        if let Some(active) = self.0.lock().get(run) {
            active.interrupt.send_replace(Some(interrupt));
        }
    }

    /// Tells the driver that holds this lease that it no longer does. One that has taken the run
    /// since, under a lease of its own, is left alone.
    pub fn lose(&self, lease: &Lease) {
        let active = self.0.lock();
        let holder = active.get(lease.run());
        if let Some(active) = holder.filter(|active| active.lease == *lease) {
            active.interrupt.send_replace(Some(Interrupt::LeaseLost));
        }
    }

    /// Tells all drivers; how many there are.
    pub fn interrupt_all(&self, interrupt: Interrupt) -> usize {
        let active = self.0.lock();
        for active in active.values() {
            active.interrupt.send_replace(Some(interrupt));
        }
        active.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_taken_again_does_not_lose_its_new_lease_with_the_old_one() {
        let active = Arc::new(ActiveRuns::default());
        let run = RunId::generate();
        let (old, new) = (Lease::of_attempt(&run, 1), Lease::of_attempt(&run, 2));
        let (first, told_first) = active.register(&old);
        active.lose(&old);
        assert_eq!(*told_first.borrow(), Some(Interrupt::LeaseLost));
        let (second, told_second) = active.register(&new);
        drop(first);
        active.lose(&old);
        assert_eq!(*told_second.borrow(), None);
        assert_eq!(active.leases(), std::slice::from_ref(&new));
        active.lose(&new);
        assert_eq!(*told_second.borrow(), Some(Interrupt::LeaseLost));
        drop(second);
        assert_eq!(active.len(), 0);
    }
}
