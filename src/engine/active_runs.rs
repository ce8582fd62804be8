//! The runs that this process executes, with their leases and the way to stop them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::ids::RunId;
use crate::engine::stop::StopSignal;
use crate::store::lease::Lease;

#[derive(Default)]
pub(super) struct ActiveRuns(Mutex<HashMap<RunId, ActiveRun>>);

struct ActiveRun {
    lease: Lease,
    stop: watch::Sender<Option<StopSignal>>,
}

/// Keeps a run registered, and its lease renewed, until it is dropped. A panic of the worker drops
/// it, too: then the lease expires, and the run is recovered.
pub(super) struct Registration {
    active: Arc<ActiveRuns>,
    lease: Lease,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut runs = self.active.0.lock();
        if runs
            .get(self.lease.run())
            .is_some_and(|run| run.lease == self.lease)
        {
            runs.remove(self.lease.run());
        }
        measure(&runs);
    }
}

fn measure(runs: &HashMap<RunId, ActiveRun>) {
    metrics::gauge!("assistd_runs_in_progress").set(runs.len() as f64);
}

impl ActiveRuns {
    pub(super) fn register(
        self: &Arc<Self>,
        lease: &Lease,
    ) -> (Registration, watch::Receiver<Option<StopSignal>>) {
        let (stop, receiver) = watch::channel(None);
        let run = ActiveRun {
            lease: lease.clone(),
            stop,
        };
        let mut runs = self.0.lock();
        runs.insert(lease.run().clone(), run);
        measure(&runs);
        drop(runs);
        let registration = Registration {
            active: self.clone(),
            lease: lease.clone(),
        };
        (registration, receiver)
    }

    pub(super) fn contains(&self, lease: &Lease) -> bool {
        let runs = self.0.lock();
        runs.get(lease.run()).is_some_and(|run| run.lease == *lease)
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        let runs = self.0.lock();
        runs.values().map(|run| run.lease.clone()).collect()
    }

    pub(super) fn stop(&self, run: &RunId, signal: StopSignal) {
        if let Some(run) = self.0.lock().get(run) {
            run.stop.send_replace(Some(signal));
        }
    }

    /// Signals the worker that holds this lease that it is lost. A worker that has claimed the run
    /// again since, under a lease of its own, is not affected.
    pub(super) fn lose(&self, lease: &Lease) {
        let runs = self.0.lock();
        let holder = runs.get(lease.run()).filter(|run| run.lease == *lease);
        if let Some(run) = holder {
            run.stop.send_replace(Some(StopSignal::LeaseLost));
        }
    }

    pub(super) fn stop_all(&self, signal: StopSignal) -> usize {
        let runs = self.0.lock();
        for run in runs.values() {
            run.stop.send_replace(Some(signal));
        }
        runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_claimed_again_does_not_lose_its_new_lease_with_the_old_one() {
        let active = Arc::new(ActiveRuns::default());
        let run = RunId::generate();
        let (old, new) = (Lease::of_attempt(&run, 1), Lease::of_attempt(&run, 2));
        let (first, first_signal) = active.register(&old);
        active.lose(&old);
        assert_eq!(*first_signal.borrow(), Some(StopSignal::LeaseLost));
        let (second, second_signal) = active.register(&new);
        drop(first);
        active.lose(&old);
        assert_eq!(*second_signal.borrow(), None);
        assert_eq!(active.leases(), std::slice::from_ref(&new));
        active.lose(&new);
        assert_eq!(*second_signal.borrow(), Some(StopSignal::LeaseLost));
        drop(second);
        assert_eq!(active.len(), 0);
    }
}
