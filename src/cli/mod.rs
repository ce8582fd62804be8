//! The commands of the program.

mod actor;
mod audit_log;
mod database;
mod disk;
mod doctor;
mod error;
mod export;
mod greeting;
mod healthcheck;
mod import;
mod keys;
mod output;
mod postgres;
mod progress;
mod projects;
mod serve;
mod usage;
mod webhooks;

use std::process::ExitCode;

use self::error::CliError;
use crate::config::Cli;
use crate::config::Command;
use crate::config::LogFormat;
use crate::telemetry;

/// Runs a command to its end.
///
/// The runtime is in the library, since the crate that starts it compiles all of its futures.
#[tokio::main]
pub async fn run(cli: Cli) -> ExitCode {
    match dispatch(cli).await {
        Ok(code) => code,
        Err(error) => {
            output::note(format_args!("assistd: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    let Cli { command, config } = cli;
    let telemetry = telemetry::init(&telemetry::Options {
        filter: config.telemetry.log.clone(),
        json: config.telemetry.log_format == LogFormat::Json,
        otlp_endpoint: config.telemetry.otlp_endpoint.clone(),
    })?;
    let outcome = match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(config).await,
        Command::Keys { command } => keys::run(&config, command).await,
        Command::Postgres { command } => postgres::run(&config, &command).await,
        Command::Webhooks { command } => webhooks::run(&config, command).await,
        Command::Projects { command } => projects::run(&config, command).await,
        Command::Export {
            project,
            format,
            target,
        } => export::run(&config, &project, format, target).await,
        Command::Import {
            project,
            dry_run,
            files,
            source,
        } => {
            let files = files.as_deref();
            import::run(&config, &project, dry_run, files, source.as_deref()).await
        }
        Command::Usage(args) => usage::run(&config, args).await,
        Command::AuditLog { last } => audit_log::run(&config, last).await,
        Command::Doctor => doctor::run(&config).await,
        Command::Healthcheck => Ok(healthcheck::run(&config).await),
    };
    // Flushing blocks on the network.
    let _ = tokio::task::spawn_blocking(|| telemetry.flush()).await;
    outcome
}
