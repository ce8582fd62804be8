//! Projects (tenants), to one of which every stored object belongs, and their limits.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::ids::ProjectId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub id: ProjectId,
    /// Unique.
    pub name: String,
    pub created_at: Timestamp,
    pub limits: ProjectLimits,
}

/// Limits of a project; `None` means unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectLimits {
    /// Runs that are queued or in progress at a time. Those that wait for tool outputs do not
    /// count.
    pub max_concurrent_runs: Option<i32>,
    pub requests_per_minute: Option<i32>,
    /// Prompt and completion tokens per minute. Once they are used up, no run starts.
    pub tokens_per_minute: Option<i64>,
    /// Bytes of files and of the parts of pending uploads.
    pub storage_bytes: Option<i64>,
}

impl ProjectLimits {
    /// Maximum of each limit, in the order of the fields. A minute is divided into requests by the
    /// microsecond, so the number of requests cannot be much higher.
    pub const MAX: [i64; 4] = [1_000_000, 1_000_000, 1_000_000_000_000, 1 << 60];
}

/// Changes of limits: the outer `None` keeps a limit, the inner one removes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitChanges {
    pub max_concurrent_runs: Option<Option<i32>>,
    pub requests_per_minute: Option<Option<i32>>,
    pub tokens_per_minute: Option<Option<i64>>,
    pub storage_bytes: Option<Option<i64>>,
}

impl LimitChanges {
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

/// The project that a valid API key authenticates, with its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitedProject {
    pub project: ProjectId,
    pub limits: ProjectLimits,
}
