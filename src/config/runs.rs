//! Settings of the engine that executes runs.

use std::time::Duration;

use clap::Args;

use super::values;

/// Engine settings.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Runs")]
pub struct RunSettings {
    /// Maximum concurrent runs of this process
    #[arg(
        long,
        env = "ASSISTD_MAX_CONCURRENT_RUNS",
        value_name = "N",
        default_value = "2048",
        value_parser = values::at_least(1)
    )]
    pub max_concurrent_runs: u32,
    /// Lease duration: runs of a process are reassigned this long after its last heartbeat
    #[arg(
        long,
        env = "ASSISTD_LEASE",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = values::positive_duration
    )]
    pub lease: Duration,
    /// Expire a run after this long, waiting for tool outputs included
    #[arg(
        long,
        env = "ASSISTD_RUN_EXPIRY",
        value_name = "DURATION",
        default_value = "10m",
        value_parser = values::positive_duration
    )]
    pub run_expiry: Duration,
}
