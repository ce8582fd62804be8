//! Arguments of `assistd usage`.

use chrono::NaiveDate;
use clap::Args;
use clap::ValueEnum;

/// Arguments of `assistd usage`.
#[derive(Debug, Clone, Args)]
pub struct UsageArgs {
    /// Show only this project, by id or name
    #[arg(long)]
    pub project: Option<String>,
    /// First day (UTC), such as 2026-11-01 [default: 29 days before the last]
    #[arg(long, value_name = "DAY")]
    pub from: Option<NaiveDate>,
    /// Last day (UTC) [default: today]
    #[arg(long, value_name = "DAY")]
    pub to: Option<NaiveDate>,
    /// Group by day, model, or both
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_enum)]
    pub by: Vec<UsageBy>,
}

/// A dimension of the report besides projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UsageBy {
    /// One row per day (UTC)
    Day,
    /// One row per model, by the name that clients use
    Model,
}
