//! `assistd postgres`: runs a program of PostgreSQL on the embedded database, for backups and
//! inspection.

use std::ffi::OsString;
use std::process::ExitCode;

use super::database::Database;
use super::database::embedded_options;
use super::error::CliError;
use crate::config::Config;

pub(super) async fn run(config: &Config, command: &[OsString]) -> Result<ExitCode, CliError> {
    if config.database.database_url.is_some() {
        return Err(CliError::NotEmbedded);
    }
    let (name, arguments) = command.split_first().ok_or(CliError::NoProgram)?;
    let program = embedded_postgres::program(&embedded_options(config), name)?;
    let database = Database::open_beside_server(config).await?;
    let connect = database.pool.options();
    let mut child = tokio::process::Command::new(&program);
    child
        .args(arguments)
        .env("PGPORT", connect.get_port().to_string())
        .env("PGUSER", connect.get_username())
        .env("PGDATABASE", connect.get_database().unwrap_or_default());
    if let Some(socket) = connect.get_socket() {
        child.env("PGHOST", socket);
    }
    let status = child.status().await;
    database.close().await;
    let code = status.map_err(|source| CliError::Program { program, source })?;
    let code = code.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
