//! Usage of projects.

use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::ids::ProjectId;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amounts {
    /// Runs that reached a terminal status.
    pub runs: i64,
    /// Model calls whose answers are in run steps.
    pub model_calls: i64,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub code_calls: i64,
    pub search_calls: i64,
    /// Function calls that models requested.
    pub function_calls: i64,
    pub sandbox_ms: i64,
}

impl Amounts {
    pub fn sandbox_seconds(&self) -> f64 {
        self.sandbox_ms as f64 / 1000.0
    }
}

/// A usage record: what one commit adds to the usage of a project. Its id makes a repeated commit
/// count once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageEntry {
    pub id: String,
    /// When the commit was first tried.
    pub at: Timestamp,
    /// Model name as clients use it.
    pub model: String,
    #[serde(flatten)]
    pub amounts: Amounts,
}

#[derive(Debug, Clone)]
pub struct UsageQuery {
    pub project: Option<ProjectId>,
    /// First and last day (UTC), both inclusive.
    pub from: chrono::NaiveDate,
    pub to: chrono::NaiveDate,
    pub by_day: bool,
    pub by_model: bool,
}

/// The usage of one group. `day` and `model` are set if the usage is grouped by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSum {
    pub project: ProjectId,
    pub project_name: String,
    pub day: Option<chrono::NaiveDate>,
    pub model: Option<String>,
    pub amounts: Amounts,
}
