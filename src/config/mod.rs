//! All settings and the command line, parsed once. No other module reads the environment.
//!
//! The value of a setting is that of the flag, else of the environment (`NAME`, or the file that
//! `NAME_FILE` names), else of the configuration file, else the default. Each section is a file
//! here; a field has the name of its flag. `assistd --help` is the reference.

mod commands;
mod database;
mod environment;
mod file;
mod files;
mod http;
mod load;
mod maintenance;
mod models;
mod retrieval;
mod runs;
mod sandbox;
mod setting;
mod telemetry;
mod values;
mod webhooks;

use std::path::PathBuf;

use clap::Args;
use clap::Parser;

pub use commands::{
    Command, ExportFormat, KeysCommand, Limit, LimitArgs, ProjectsCommand, UsageArgs, UsageBy,
    WebhooksCommand,
};
pub use database::DatabaseSettings;
pub use files::FileSettings;
pub use http::{CorsOrigin, DEFAULT_PROJECT, HttpSettings, SeedKey};
pub use maintenance::{Days, MaintenanceSettings};
pub use models::{ModelSettings, Route, Upstream, UpstreamKind};
pub use retrieval::{EmbeddingModel, RetrievalSettings};
pub use runs::RunSettings;
pub use sandbox::{SandboxSettings, SandboxWorkers};
pub use telemetry::{LogFormat, TelemetrySettings};
pub use values::{Bytes, Secret};
pub use webhooks::WebhookSettings;

/// The parsed command line: a command and the settings.
#[derive(Debug, Parser)]
#[command(
    name = "assistd",
    version,
    about = "A self-hosted server for the OpenAI Assistants API",
    after_help = "NAME_FILE=/path gives the value of the variable NAME in a file, for secrets.\n\
                  A configuration file holds the same settings under their flags' names, with \
                  underscores (`data_dir = \"/srv/assistd\"`),\nand the tables [[upstream]] and \
                  [[route]], which map model names to upstreams; see docs/configuration.md."
)]
pub struct Cli {
    /// `None` is [`Command::Serve`].
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub config: Config,
}

/// All settings, the same for every command.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// TOML file with further settings
    #[arg(long, env = "ASSISTD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub http: HttpSettings,
    #[command(flatten)]
    pub files: FileSettings,
    #[command(flatten)]
    pub database: DatabaseSettings,
    #[command(flatten)]
    pub maintenance: MaintenanceSettings,
    #[command(flatten)]
    pub models: ModelSettings,
    #[command(flatten)]
    pub retrieval: RetrievalSettings,
    #[command(flatten)]
    pub runs: RunSettings,
    #[command(flatten)]
    pub sandbox: SandboxSettings,
    #[command(flatten)]
    pub webhooks: WebhookSettings,
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

#[cfg(test)]
mod tests;
