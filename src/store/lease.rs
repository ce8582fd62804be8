//! Leases on runs.

use std::time::Duration;

use crate::domain::ids::RunId;

/// The right to write one run until it expires and another worker claims the run. Only the store
/// creates leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub(super) run: RunId,
    pub(super) attempt: i32,
}

impl Lease {
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The number of claims of the run so far: the fencing number of this lease.
    pub fn attempt(&self) -> i32 {
        self.attempt
    }

    #[cfg(test)]
    pub fn of_attempt(run: &RunId, attempt: i32) -> Self {
        let run = run.clone();
        Self { run, attempt }
    }
}

#[derive(Debug, Clone)]
pub struct Claimant {
    /// Unique name of the process.
    pub owner: String,
    /// Duration of a lease after its last renewal.
    pub lease: Duration,
}
