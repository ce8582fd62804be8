//! The commands of the program: what they do, and what they say to the person who runs them.

mod audit_log;
mod database;
mod disk;
mod doctor;
mod export;
mod healthcheck;
mod import;
mod keys;
mod postgres;
mod progress;
mod projects;
mod serve;
mod table;
mod usage;
mod webhooks;

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use nix::unistd::Uid;
use nix::unistd::User;

use self::database::Database;
use crate::config::Cli;
use crate::config::Command;
use crate::config::Config;
use crate::config::LogFormat;
use crate::domain::audit::Actor;
use crate::domain::webhook::EventType;
use crate::domain::webhook::UnknownEventType;
use crate::files::blobs::BlobError;
use crate::http::connections::tls::TlsError;
use crate::models::SetupError;
use crate::server::ServeError;
use crate::store::Pool;
use crate::store::api_keys::CreateKeyError;
use crate::store::{ListError, StoreError};
use crate::telemetry;
use crate::telemetry::TelemetryError;
use crate::transfer::TransferError;
use crate::webhooks::UrlError;
use embedded_postgres::PostgresError;

/// Why a command failed, in words for the person who ran it.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("DATABASE_URL is not a PostgreSQL URL; it looks like postgres://user@host/database")]
    DatabaseUrl,
    /// The text names the server without the password.
    #[error(
        "cannot connect to the database at {at}: {source}\nIs it running, and is DATABASE_URL right?"
    )]
    Connect { at: String, source: sqlx::Error },
    #[error("the database is PostgreSQL {0}; assistd needs 16 or later")]
    OldDatabase(String),
    #[error("the database's tables could not be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    CreateKey(#[from] CreateKeyError),
    #[error(
        "the database of DATABASE_URL is not ours to run programs on; give them that URL instead"
    )]
    NotEmbedded,
    #[error("which program? For example: assistd postgres psql")]
    NoProgram,
    #[error("{}: {source}", program.display())]
    Program {
        program: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("the system's random source failed: {0}")]
    Randomness(#[from] rand::rand_core::OsError),
    #[error("file storage (ASSISTD_BLOBS) is not usable: {0}")]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("there is no project {0:?}; `assistd projects list` lists them")]
    NoSuchProject(String),
    #[error("there is no key {0}; `assistd keys list` lists them")]
    NoSuchKey(String),
    #[error("there is no endpoint {0}; `assistd webhooks list` lists them")]
    NoSuchEndpoint(String),
    #[error("{0}; there are {known}", known = EventType::ALL.map(EventType::as_str).join(", "))]
    NoSuchEvent(#[from] UnknownEventType),
    #[error("webhooks cannot be posted there: {0}")]
    Webhook(#[source] UrlError),
    #[error("the server did not deliver the test event: {0}")]
    Undelivered(String),
    #[error("no server claimed the test event within {0} s; is one running on this database?")]
    NoServer(u64),
    #[error("endpoint {id} is off ({reason}); switch it on with `assistd webhooks enable {id}`")]
    EndpointDisabled { id: String, reason: String },
    #[error("there is a project of the name {0:?} already")]
    NameTaken(String),
    #[error("a key in ASSISTD_API_KEYS for project {wanted:?} belongs to another project already")]
    KeyTaken { wanted: String },
    #[error(
        "refusing to serve on {0}, which other machines can reach, while no API key exists: \
         anybody could use this server. Create a key with `assistd keys create --project NAME`, \
         or set ASSISTD_API_KEYS=project:key, or ASSISTD_ADMIN_KEY to make keys by the admin API"
    )]
    Exposed(std::net::SocketAddr),
    #[error("cannot serve on {address}: {source}; choose another address with ASSISTD_LISTEN")]
    Listen {
        address: std::net::SocketAddr,
        source: std::io::Error,
    },
    #[error("cannot serve HTTPS: {0}")]
    Tls(#[from] TlsError),
    #[error("the models cannot be set up: {0}")]
    Models(#[from] SetupError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Carries out the command. Failures are written to standard error.
pub async fn run(cli: Cli) -> ExitCode {
    match dispatch(cli).await {
        Ok(code) => code,
        Err(error) => {
            remark(format_args!("assistd: {error}"));
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
        Command::Usage(asked) => usage::run(&config, asked).await,
        Command::AuditLog { last } => audit_log::run(&config, last).await,
        Command::Doctor => doctor::run(&config).await,
        Command::Healthcheck => Ok(healthcheck::run(&config).await),
    };
    // It waits for the network, in a thread of its own.
    let _ = tokio::task::spawn_blocking(|| telemetry.flush()).await;
    outcome
}

/// Who runs this command.
fn actor() -> Actor {
    let user = Uid::current();
    let name = User::from_uid(user).ok().flatten().map(|user| user.name);
    Actor::Cli(name.unwrap_or_else(|| user.to_string()))
}

/// Does something with the database, beside a server that runs or without one.
async fn with_database<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Pool) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let database = Database::open_beside_server(config).await?;
    let outcome = match database.migrate().await {
        Ok(()) => work(&database.pool).await,
        Err(error) => Err(error),
    };
    database.close().await;
    outcome
}

/// Writes a line of a command's answer to standard output. That nobody reads it, as when it goes
/// to `head`, is no reason to fail.
fn answer(text: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Writes a line that is not part of the answer, to standard error.
fn remark(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
