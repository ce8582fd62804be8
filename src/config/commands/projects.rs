//! The command lines of `assistd projects` and `assistd usage`.

use chrono::NaiveDate;
use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;

use crate::config::Limit;
use crate::config::values;

/// `assistd projects …`
#[derive(Debug, Clone, Subcommand)]
pub enum ProjectsCommand {
    /// Create a project and print its id
    Create {
        /// What people call it
        #[arg(value_parser = values::name)]
        name: String,
        /// What it may use.
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// List all projects with their limits
    List,
    /// Change a project's name or limits
    Update {
        /// Id or name of the project
        project: String,
        /// New name
        #[arg(long, value_parser = values::name)]
        rename: Option<String>,
        /// What it may use from now on.
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Show or set after how many idle days threads are deleted
    Retention {
        /// Id or name of the project
        project: String,
        /// Delete threads on which nothing has happened for this many days
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        days: Option<i32>,
        /// Keep all threads
        #[arg(long, conflicts_with = "days")]
        forever: bool,
    },
}

/// Limits of a project.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct LimitArgs {
    /// Runs that may be queued or at work at a time, or none for no limit
    #[arg(long, value_name = "N", value_parser = |text: &str| Limit::parse(text, 1_000_000))]
    pub runs: Option<Limit>,
    /// Requests of any kind per minute, or none
    #[arg(long, value_name = "N", value_parser = |text: &str| Limit::parse(text, 1_000_000))]
    pub requests_per_minute: Option<Limit>,
    /// Tokens per minute after which no run begins, or none
    #[arg(
        long,
        value_name = "N",
        value_parser = |text: &str| Limit::parse(text, 1_000_000_000_000)
    )]
    pub tokens_per_minute: Option<Limit>,
    /// Bytes of files, such as 500MiB, or none
    #[arg(long, value_name = "BYTES", value_parser = |text: &str| Limit::parse(text, 1 << 60))]
    pub storage: Option<Limit>,
}

/// `assistd usage`
#[derive(Debug, Clone, Args)]
pub struct UsageArgs {
    /// Id or name of the only project to show
    #[arg(long)]
    pub project: Option<String>,
    /// First day (UTC), such as 2026-11-01 [default: 29 days before the last]
    #[arg(long, value_name = "DAY")]
    pub from: Option<NaiveDate>,
    /// Last day (UTC) [default: today]
    #[arg(long, value_name = "DAY")]
    pub to: Option<NaiveDate>,
    /// A line for each day, each model, or both
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_enum)]
    pub by: Vec<UsageBy>,
}

/// What usage is told by, besides projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UsageBy {
    /// Days of UTC.
    Day,
    /// Names of models, as clients have them.
    Model,
}
