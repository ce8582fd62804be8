//! The supervisor: accepts connections and manages sessions. It runs no Python.

mod changed_files;
mod connection;
mod cpu;
mod kernel_link;
mod listener;
mod output_limits;
mod pipe_reader;
mod probe;
mod requests;
mod session;
mod session_factory;
mod session_processes;
mod session_registry;
mod workspace;
mod zygote_process;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sandbox_protocol::Report;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::health_check::HealthCheckError;
use crate::settings::Address;
use crate::settings::ListenSettings;
use crate::settings::Settings;
use listener::ListenError;
use listener::Listener;
use probe::ProbeError;
use requests::Shared;
use session_registry::SessionRegistry;

/// How long connections may take to end when the worker stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed `accept`, for example because too many files are open.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why a command of the worker failed; the message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Without a token, every host of the network could run code.
    #[error("a worker on TCP needs a token: set ASSISTD_SANDBOX_TOKEN")]
    MissingToken,
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    HealthCheck(#[from] HealthCheckError),
    /// A system resource that every program needs is missing.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Serves connections until a signal, the end of the parent process, or the end of a single
/// session.
pub async fn serve(listen: ListenSettings, settings: Settings) -> Result<(), WorkerError> {
    let mut stop_signal = pin!(stop_signal(listen.die_with_parent)?);
    if listen.token.is_none() && matches!(listen.address, Address::Tcp(_)) {
        return Err(WorkerError::MissingToken);
    }
    let listener = Listener::bind(&listen)?;
    let settings = Arc::new(settings);
    let mut parent_ended = pin!(parent_ended(listen.die_with_parent));
    let verified = tokio::select! {
        verified = probe::create_factory(settings.clone()) => verified?,
        () = &mut parent_ended => return Ok(()),
    };
    let factory = Arc::new(verified.factory);
    let sessions = SessionRegistry::new(settings, factory.clone(), verified.report.tier);
    let shared = Arc::new(Shared {
        report: Report {
            sessions_max: u32::try_from(sessions.limit()).unwrap_or(u32::MAX),
            ..verified.report
        },
        sessions: sessions.clone(),
        token: listen.token.clone(),
    });
    let mut connections = JoinSet::new();
    let mut maintenance = JoinSet::new();
    let maintained = factory.clone();
    maintenance.spawn(async move { maintained.maintain().await });
    let maintained = sessions.clone();
    maintenance.spawn(async move { maintained.maintain().await });
    tracing::info!("listening on {}", listener.address());
    match &listener {
        Listener::Unix { .. } => println!("ready"),
        Listener::Tcp(_, local_address) => println!("ready tcp:{local_address}"),
    }
    let single_session_ended = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(Some(client)) => {
                    let shared = shared.clone();
                    connections.spawn(async move { requests::serve(client, &shared).await });
                }
                Ok(None) => tracing::warn!("refused a connection: the client runs as another user"),
                Err(error) => {
                    tracing::warn!("could not accept a connection: {error}; retrying");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = sessions.single_session_ended() => break true,
            () = &mut stop_signal => break false,
            () = &mut parent_ended => break false,
        }
    };
    listener.close();
    maintenance.abort_all();
    if single_session_ended {
        tracing::info!("the single session of this worker has ended; stopping");
        // Gives clients time to receive their last response.
        let all_ended = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(SHUTDOWN_TIMEOUT, all_ended).await;
    }
    connections.shutdown().await;
    sessions.end_all();
    factory.shut_down().await;
    Ok(())
}

/// Creates a session and reports how it is confined.
pub async fn check(settings: Settings) -> Result<Report, WorkerError> {
    Ok(probe::create_factory(Arc::new(settings)).await?.report)
}

/// Waits for SIGTERM or SIGINT. With `ends_with_parent` both are ignored: a terminal or a service
/// manager signals the parent too, which may still need the worker and closes standard input later.
fn stop_signal(ends_with_parent: bool) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !ends_with_parent {
                return;
            }
        }
    })
}

/// Waits until standard input closes; forever if the worker does not end with its parent.
async fn parent_ended(ends_with_parent: bool) {
    if ends_with_parent {
        let mut input = tokio::io::stdin();
        let mut bytes = [0; 64];
        while input.read(&mut bytes).await.is_ok_and(|length| length > 0) {}
    } else {
        std::future::pending().await
    }
}
