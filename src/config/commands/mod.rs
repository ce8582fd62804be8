//! The commands of the program and their arguments.

mod keys;
mod projects;
mod usage;
mod webhooks;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Subcommand;
use clap::ValueEnum;

use crate::config::http::DEFAULT_PROJECT;
use crate::config::values;

pub use keys::KeysCommand;
pub use projects::{Limit, LimitArgs, ProjectsCommand};
pub use usage::{UsageArgs, UsageBy};
pub use webhooks::WebhooksCommand;

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve the API (the default)
    Serve,
    /// Manage the API keys of this server's clients
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Run a program of PostgreSQL, such as psql or pg_dump, on the embedded database
    Postgres {
        /// Program and its arguments
        #[arg(
            value_name = "PROGRAM",
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        command: Vec<OsString>,
    },
    /// Manage webhook endpoints
    Webhooks {
        #[command(subcommand)]
        command: WebhooksCommand,
    },
    /// Manage projects, their limits and the retention of their threads
    Projects {
        #[command(subcommand)]
        command: ProjectsCommand,
    },
    /// Export a project: assistants, threads with their messages and runs, files, vector stores
    Export {
        /// Project to export
        #[arg(long, value_parser = values::name, default_value = DEFAULT_PROJECT)]
        project: String,
        /// Format of the export
        #[arg(long, value_enum, default_value_t)]
        format: ExportFormat,
        /// An empty or new folder; without file contents: a new file that ends in .jsonl, or - for
        /// standard output
        #[arg(value_name = "FOLDER|FILE|-")]
        target: PathBuf,
    },
    /// Import an export of this or another server; existing objects stay as they are
    Import {
        /// Project to import into; created if it does not exist
        #[arg(long, value_parser = values::name, default_value = DEFAULT_PROJECT)]
        project: String,
        /// Validate everything and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Folder with the contents of files, also of those imported before; an entry is named by
        /// the file's id, or has the file's name and size
        #[arg(long, value_name = "FOLDER")]
        files: Option<PathBuf>,
        /// An export: a folder, a file with JSON, or - for standard input
        #[arg(value_name = "FOLDER|FILE|-", required_unless_present = "files")]
        source: Option<PathBuf>,
    },
    /// Show usage by project: runs, tokens, tool calls, sandbox time
    Usage(UsageArgs),
    /// Show the audit log of projects, keys and webhooks, newest first
    AuditLog {
        /// Maximum number of entries to show
        #[arg(long, value_name = "N", default_value = "100")]
        #[arg(value_parser = clap::value_parser!(i64).range(1..=10_000))]
        last: i64,
    },
    /// Check what the server needs, and say what to do about what is missing
    Doctor,
    /// Check that the running server is ready; for container engines
    Healthcheck,
}

/// Format of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// API objects, one on each line; loses nothing
    #[default]
    Objects,
    /// manifest.json, assistants.json and a file for each thread, as other exporters write them
    Manifest,
}
