//! Settings of the database.

use std::path::PathBuf;

use clap::Args;

use super::values;
use super::values::Secret;

/// Database settings; without a `database_url` the embedded server is used.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct DatabaseSettings {
    /// PostgreSQL 16 or later with pgvector, as a postgres:// URL; absent: assistd runs its own
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub database_url: Option<Secret>,
    /// Password for that database, instead of one in the URL
    #[arg(
        long,
        env = "ASSISTD_DATABASE_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub database_password: Option<Secret>,
    /// Maximum concurrent database connections
    #[arg(
        long,
        env = "ASSISTD_DATABASE_CONNECTIONS",
        value_name = "N",
        default_value = "20",
        value_parser = values::at_least(2)
    )]
    pub database_connections: u32,
    /// Folder of initdb and postgres for the embedded database; absent: search for them
    #[arg(long, env = "ASSISTD_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,
    /// User that runs a new embedded database if assistd runs as root
    #[arg(
        long,
        env = "ASSISTD_POSTGRES_USER",
        value_name = "USER",
        default_value = "nobody"
    )]
    pub postgres_user: String,
}
