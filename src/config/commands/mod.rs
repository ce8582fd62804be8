//! The commands of the program, as they are typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Subcommand;
use clap::ValueEnum;

use crate::config::DEFAULT_PROJECT;
use crate::config::WebhooksCommand;
use crate::config::values;

mod projects;

pub use projects::*;

/// What `assistd` can be asked to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve the API (the default)
    Serve,
    /// Manage the API keys of this server's clients
    Keys {
        /// What to do with the keys.
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Run a program of PostgreSQL, such as psql or pg_dump, on the embedded database
    Postgres {
        /// The program, and what it is told.
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
        /// What to do with the endpoints.
        #[command(subcommand)]
        command: WebhooksCommand,
    },
    /// Manage projects: their limits and how long they keep threads
    Projects {
        /// What to do with the projects.
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
        /// A folder that is empty or not there yet; or, without file contents, a new file that
        /// ends in .jsonl, or - for standard output
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
        /// Folder with originals of files, also of those imported before: each has the file's id
        /// as its name, or the file's name and size
        #[arg(long, value_name = "FOLDER")]
        files: Option<PathBuf>,
        /// An export: a folder, a file with JSON, or - for standard input
        #[arg(value_name = "FOLDER|FILE|-", required_unless_present = "files")]
        source: Option<PathBuf>,
    },
    /// Show usage by project: runs, tokens, tool calls, time in the sandbox
    Usage(UsageArgs),
    /// Show the audit log of projects, keys and webhooks, newest first
    AuditLog {
        /// Maximum number of entries to show
        #[arg(long, value_name = "N", default_value = "100")]
        #[arg(value_parser = clap::value_parser!(i64).range(1..=10_000))]
        last: i64,
    },
    /// Check that everything the server needs is there, and say what to do if not
    Doctor,
    /// Ask the server that runs with these settings whether it is ready, for container engines
    Healthcheck,
}

/// How a project is written out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// API objects, one on each line; loses nothing
    #[default]
    Objects,
    /// manifest.json, assistants.json and a file for each thread, as other exporters write them
    Manifest,
}

/// `assistd keys …`
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Create a key and print it, once
    Create {
        /// Project the key gives access to; created if it does not exist
        #[arg(long, value_parser = values::name)]
        project: String,
        /// What the key is for, to tell it from others
        #[arg(long, value_parser = values::name, default_value = "default")]
        name: String,
    },
    /// List all keys, without their secret part
    List,
    /// Revoke a key, at once and for good
    Revoke {
        /// Id of the key, as `assistd keys list` shows it
        id: String,
    },
}
