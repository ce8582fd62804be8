//! Usage of projects.

use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::ids::ProjectId;

/// Usage by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amounts {
    /// Runs that reached a terminal status.
    pub runs: i64,
    /// Model calls whose answers are in run steps.
    pub model_calls: i64,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    /// Executed calls of code_interpreter.
    pub code_calls: i64,
    /// Executed calls of file_search.
    pub search_calls: i64,
    /// Function calls that models requested.
    pub function_calls: i64,
    /// Execution time of code in milliseconds.
    pub sandbox_ms: i64,
}

impl Amounts {
    /// Execution time of code in seconds.
    pub fn sandbox_seconds(&self) -> f64 {
        self.sandbox_ms as f64 / 1000.0
    }
}

/// A usage record: what one commit adds to the usage of a project. Its id makes a repeated commit
/// count once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageEntry {
    /// 32 hexadecimal digits.
    pub id: String,
    /// When the commit was first tried.
    pub at: Timestamp,
    /// Model name as clients use it.
    pub model: String,
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// Which usage to sum up, and how to group it.
#[derive(Debug, Clone)]
pub struct UsageQuery {
    /// `None` means all projects.
    pub project: Option<ProjectId>,
    /// First day (UTC), inclusive.
    pub from: chrono::NaiveDate,
    /// Last day (UTC), inclusive.
    pub to: chrono::NaiveDate,
    pub by_day: bool,
    pub by_model: bool,
}

/// The usage of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSum {
    pub project: ProjectId,
    pub project_name: String,
    /// Set if the usage is grouped by day.
    pub day: Option<chrono::NaiveDate>,
    /// Set if the usage is grouped by model.
    pub model: Option<String>,
    pub amounts: Amounts,
}
