//! The right of a process to work on a run.

use std::time::Duration;

use crate::domain::ids::RunId;

/// The right to write one run, until another worker takes it over. Made here only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub(super) run: RunId,
    pub(super) attempt: i32,
}

impl Lease {
    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// How often the run was taken up, this time included.
    pub fn attempt(&self) -> i32 {
        self.attempt
    }

    /// For tests of who works with leases.
    #[cfg(test)]
    pub fn of_attempt(run: &RunId, attempt: i32) -> Self {
        let run = run.clone();
        Self { run, attempt }
    }
}

/// The worker that takes a lease, and for how long.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// Names the process.
    pub owner: String,
    /// Time without a sign of life after which others may take the run.
    pub lease: Duration,
}
