//! Arguments of `assistd projects`.

use clap::Args;
use clap::Subcommand;

use crate::config::values;
use crate::config::values::Bytes;

/// Subcommands of `assistd projects`.
#[derive(Debug, Clone, Subcommand)]
pub enum ProjectsCommand {
    /// Create a project and print its id
    Create {
        /// Display name
        #[arg(value_parser = values::name)]
        name: String,
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
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Show or set after how many idle days threads are deleted
    Retention {
        /// Id or name of the project
        project: String,
        /// Delete threads after this many idle days
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
    /// Maximum queued and executing runs, or none for no limit
    #[arg(long, value_name = "N", value_parser = |text: &str| Limit::parse(text, 1_000_000))]
    pub runs: Option<Limit>,
    /// Maximum requests of any kind per minute, or none
    #[arg(long, value_name = "N", value_parser = |text: &str| Limit::parse(text, 1_000_000))]
    pub requests_per_minute: Option<Limit>,
    /// Tokens per minute after which no further run starts, or none
    #[arg(
        long,
        value_name = "N",
        value_parser = |text: &str| Limit::parse(text, 1_000_000_000_000)
    )]
    pub tokens_per_minute: Option<Limit>,
    /// Maximum bytes of stored files, such as 500MiB, or none
    #[arg(long, value_name = "BYTES", value_parser = |text: &str| Limit::parse(text, 1 << 60))]
    pub storage: Option<Limit>,
}

/// A limit; `None` lifts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<i64>);

impl Limit {
    /// Parses `none`, or a number from 1 to `max`, which may have a unit of bytes.
    fn parse(text: &str, max: i64) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let number = text.parse::<Bytes>().ok();
        number
            .and_then(|Bytes(number)| i64::try_from(number).ok())
            .filter(|number| *number <= max)
            .map(|number| Self(Some(number)))
            .ok_or_else(|| format!("expected none, or a whole number from 1 to {max}"))
    }
}
