//! What projects use.

use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::ids::ProjectId;

/// An amount of everything that is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amounts {
    /// Runs that have ended, however they did.
    pub runs: i64,
    /// Answers of models that are in a run's steps.
    pub model_calls: i64,
    /// Tokens that models have read.
    pub prompt_tokens: i64,
    /// Tokens that models have written.
    pub completion_tokens: i64,
    /// Calls of code_interpreter that were carried out.
    pub code_calls: i64,
    /// Calls of file_search that were carried out.
    pub search_calls: i64,
    /// Calls of functions that models asked for.
    pub function_calls: i64,
    /// Time that code ran, in milliseconds.
    pub sandbox_ms: i64,
}

impl Amounts {
    /// Time that code ran, in seconds.
    pub fn sandbox_seconds(&self) -> f64 {
        self.sandbox_ms as f64 / 1000.0
    }
}

/// What a commit adds to the usage of its run's project. It counts once, however often it is
/// written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageEntry {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// When it was used.
    pub at: Timestamp,
    /// The model's name as clients have it.
    pub model: String,
    /// How much.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// Which usage to sum up, and by what.
#[derive(Debug, Clone)]
pub struct UsageQuery {
    /// One project's only.
    pub project: Option<ProjectId>,
    /// The first day (UTC).
    pub from: chrono::NaiveDate,
    /// The last day (UTC).
    pub to: chrono::NaiveDate,
    /// A sum for each day.
    pub by_day: bool,
    /// A sum for each model.
    pub by_model: bool,
}

/// A sum of usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSum {
    /// Whose usage it is.
    pub project: ProjectId,
    /// What people call the project.
    pub project_name: String,
    /// The day, if there is a sum for each.
    pub day: Option<chrono::NaiveDate>,
    /// The model, if there is a sum for each.
    pub model: Option<String>,
    /// How much it is.
    pub amounts: Amounts,
}
