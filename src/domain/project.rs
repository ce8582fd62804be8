//! Projects: whose everything is, and how much of it they may have.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::ids::ProjectId;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// What people call it; no two have the same.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// What it may use.
    pub limits: ProjectLimits,
}

/// What a project may use; `None` is as much as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectLimits {
    /// Runs that are queued or at work at a time. Those that wait for the caller do not count.
    pub max_concurrent_runs: Option<i32>,
    /// Requests of any kind per minute.
    pub requests_per_minute: Option<i32>,
    /// Prompt and completion tokens per minute, after which no run begins.
    pub tokens_per_minute: Option<i64>,
    /// Bytes in files, and in parts of uploads that are not complete.
    pub storage_bytes: Option<i64>,
}

impl ProjectLimits {
    /// Highest number that each limit may be set to, in the order of the fields. A minute is divided
    /// into requests by the microsecond, so these cannot be many more.
    pub const MAX: [i64; 4] = [1_000_000, 1_000_000, 1_000_000_000_000, 1 << 60];
}

/// New limits: the outer `None` leaves one as it is, the inner one lifts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitChanges {
    /// See [`ProjectLimits::max_concurrent_runs`].
    pub max_concurrent_runs: Option<Option<i32>>,
    /// See [`ProjectLimits::requests_per_minute`].
    pub requests_per_minute: Option<Option<i32>>,
    /// See [`ProjectLimits::tokens_per_minute`].
    pub tokens_per_minute: Option<Option<i64>>,
    /// See [`ProjectLimits::storage_bytes`].
    pub storage_bytes: Option<Option<i64>>,
}

impl LimitChanges {
    /// The limits with these changes.
    pub fn onto(self, limits: ProjectLimits) -> ProjectLimits {
        ProjectLimits {
            max_concurrent_runs: self
                .max_concurrent_runs
                .unwrap_or(limits.max_concurrent_runs),
            requests_per_minute: self
                .requests_per_minute
                .unwrap_or(limits.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.unwrap_or(limits.tokens_per_minute),
            storage_bytes: self.storage_bytes.unwrap_or(limits.storage_bytes),
        }
    }
}

/// What a good key opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The project.
    pub project: ProjectId,
    /// What it may use.
    pub limits: ProjectLimits,
}
