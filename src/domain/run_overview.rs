//! Runs over all threads of a project: which ones, how many, and how one is executed.

use std::collections::BTreeMap;

use crate::domain::ids::{AssistantId, RunId, StepId, ThreadId};
use crate::domain::run::RunStatus;
use crate::domain::{Metadata, Timestamp};

/// Which runs a list contains: those that meet all conditions.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Any of these; empty means all.
    pub statuses: Vec<RunStatus>,
    pub assistant: Option<AssistantId>,
    /// The model name as the client gave it.
    pub model: Option<String>,
    /// Created at this time or later.
    pub created_after: Option<Timestamp>,
    /// Created before this time.
    pub created_before: Option<Timestamp>,
    /// Pairs that the metadata contains.
    pub metadata: Metadata,
}

/// Numbers of runs by status, of the newest runs of a project.
#[derive(Debug, Clone, Default)]
pub struct RunCounts {
    /// Only statuses with runs.
    pub by_status: Vec<(RunStatus, i64)>,
    /// Whether the project has older runs that were not considered.
    pub has_more: bool,
}

/// Where the execution of a run stands, with exact times.
#[derive(Debug, Clone)]
pub struct RunExecution {
    pub run: RunId,
    pub thread: ThreadId,
    pub status: RunStatus,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// How often a worker has claimed it.
    pub attempts: i32,
    /// How often it was claimed after a lost lease.
    pub recoveries: i32,
    /// Whether a worker holds it now.
    pub is_leased: bool,
    /// When a worker looks at it next; for a leased run, when the lease expires. `None` if it has
    /// ended.
    pub due_at: Option<Timestamp>,
    /// For a queued run: queued runs of all projects that are due earlier, up to a bound.
    pub queued_before: Option<i64>,
    pub steps: Vec<StepExecution>,
}

/// What the API's run step leaves out.
#[derive(Debug, Clone)]
pub struct StepExecution {
    pub id: StepId,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// The arguments of each `file_search` call, as the model wrote them, by call id.
    pub searches: BTreeMap<String, String>,
}
