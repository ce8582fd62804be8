//! `assistd serve`: opens the database, prints the greeting, and serves until a signal.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

use super::database::Database;
use super::disk;
use super::error::CliError;
use super::greeting;
use super::keys;
use super::output;
use crate::config::Config;
use crate::server;
use crate::store;
use crate::telemetry;
use embedded_postgres::StopHandle;

/// Exit code after a second signal: that of shells for Ctrl-C.
const INTERRUPTED: i32 = 130;

pub(super) async fn run(config: Config) -> Result<ExitCode, CliError> {
    server::check_open_files(&config.http)?;
    let stop = CancellationToken::new();
    let stop_handle = Arc::new(OnceLock::new());
    tokio::spawn(stop_on_signals(
        Signals::new()?,
        stop.clone(),
        stop_handle.clone(),
    ));

    let database = tokio::select! {
        database = Database::open(&config) => database?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    if let Some(embedded) = database.embedded_server() {
        // Cannot fail: it is set here only.
        let _ = stop_handle.set(embedded.stop_handle());
    }
    let outcome = serve(config, &database, stop).await;
    database.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn serve(
    config: Config,
    database: &Database,
    stop: CancellationToken,
) -> Result<(), CliError> {
    let certificate = server::certificate(&config.http)?;
    database.migrate().await?;
    if database.embedded_server().is_some() {
        database.release_leases().await?;
    }
    keys::create_from_settings(&database.pool, &config.http.api_keys).await?;
    let keys_exist = store::api_keys::any_exist(&database.pool).await?;
    // With an admin key, requests are refused until the operator has created the first API key.
    if !keys_exist && config.http.admin_key.is_none() && !config.http.listen.ip().is_loopback() {
        return Err(CliError::Exposed(config.http.listen));
    }
    let models = greeting::describe_models(&config)?;
    let listen_error = |source| CliError::Listen {
        address: config.http.listen,
        source,
    };
    let listener = TcpListener::bind(config.http.listen)
        .await
        .map_err(listen_error)?;
    // Differs from the setting if its port is 0.
    let address = listener.local_addr().map_err(listen_error)?;
    output::print(greeting::text(
        &config,
        address,
        &database.location,
        &models,
        keys_exist,
    ));

    let shutdown = stop.clone().cancelled_owned();
    let folders = disk::folders(&config);
    let serving = server::serve(
        &config,
        database.pool.clone(),
        listener,
        certificate,
        shutdown,
    );
    tokio::select! {
        served = serving => served?,
        () = upkeep_metrics() => {}
        () = disk::monitor(folders) => {}
    }
    Ok(())
}

/// Aggregates the samples of histograms, which would accumulate without scrapes. Never returns.
async fn upkeep_metrics() {
    let mut period = tokio::time::interval(Duration::from_secs(5));
    loop {
        period.tick().await;
        telemetry::prometheus().run_upkeep();
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(CliError::Signals)?,
            terminate: signal(SignalKind::terminate()).map_err(CliError::Signals)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Drains the server on the first signal, and ends the process on the second.
#[expect(
    clippy::disallowed_methods,
    reason = "the second signal is to end the process without draining"
)]
async fn stop_on_signals(
    mut signals: Signals,
    stop: CancellationToken,
    stop_handle: Arc<OnceLock<StopHandle>>,
) {
    signals.next().await;
    tracing::info!("stopping; a second signal ends the process at once");
    stop.cancel();
    signals.next().await;
    if let Some(database) = stop_handle.get() {
        database.request_stop();
    }
    std::process::exit(INTERRUPTED);
}
