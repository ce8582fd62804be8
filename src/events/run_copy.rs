//! Copies of the runs that this process executes, so that polling them costs the database nothing.
//!
//! While a run is in progress, only its worker changes it, except for a cancellation and the
//! deletion of its thread. A copy is dropped before its worker writes a new status, and before this
//! process cancels the run or deletes the thread. Another process that does so waits until no copy
//! can be valid any more, before it responds. So a poll never shows less than was committed and
//! acknowledged, whichever process answers it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::ids::ThreadId;
use crate::domain::run::Run;

/// How long a copy is valid after its run was claimed. Other processes wait this long at most.
pub const MAX_AGE: Duration = Duration::from_secs(1);

/// Threads whose changes are remembered before those that matter no more are removed.
const MAX_CHANGES: usize = 1_000;

#[derive(Debug)]
pub(super) struct RunCopy {
    run: Run,
    /// A time before the run was claimed.
    claimed_after: Instant,
}

impl RunCopy {
    pub(super) fn new(run: Run, claimed_after: Instant) -> Self {
        Self { run, claimed_after }
    }
}

/// When this process last cancelled a run of a thread, or deleted the thread.
#[derive(Debug, Default)]
pub(super) struct Changes(Mutex<HashMap<ThreadId, Instant>>);

impl Changes {
    pub(super) fn note(&self, thread: &ThreadId) {
        let mut changes = self.0.lock();
        if changes.len() >= MAX_CHANGES {
            changes.retain(|_, at| at.elapsed() < MAX_AGE);
        }
        changes.insert(thread.clone(), Instant::now());
    }

    /// The run, if the copy is valid.
    pub(super) fn valid(&self, copy: &RunCopy) -> Option<Run> {
        let is_young = copy.claimed_after.elapsed() < MAX_AGE;
        let changed_at = || self.0.lock().get(&copy.run.thread).copied();
        let is_valid = is_young && changed_at().is_none_or(|at| at < copy.claimed_after);
        is_valid.then(|| copy.run.clone())
    }
}
