//! The supervisor: takes connections, keeps sessions, and watches over them. Knows no Python.

mod changed_files;
mod connection;
mod cpu;
mod kernel_link;
mod output_limits;
mod pipe_reader;
mod probe;
mod requests;
mod session;
mod session_factory;
mod session_processes;
mod session_registry;
mod workspace;

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sandbox_protocol::Report;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::settings::Address;
use crate::settings::Door;
use crate::settings::Settings;
use connection::Conversation;
use requests::Shared;
use session_registry::Sessions;

/// How long connections have to end when the worker ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long to wait when a connection cannot be taken, as when there are too many files open.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why the worker does not run; a sentence for whoever operates it.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It cannot listen.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    /// Anybody on the network could run code.
    #[error("a worker on TCP needs a token: set ASSISTD_SANDBOX_TOKEN")]
    NoToken,
    /// There is no Python to run.
    #[error(transparent)]
    Python(#[from] crate::python::NoPython),
    /// Python does not start.
    #[error(transparent)]
    Warmth(session_factory::NoSession),
    /// Sessions cannot be confined as they have to be.
    #[error("{0}")]
    Unconfined(String),
    /// A worker that should be there is not.
    #[error(transparent)]
    Absent(#[from] crate::health_check::NoAnswer),
    /// The operating system refuses what every program gets.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Serves until it is told to end.
pub async fn serve(door: Door, settings: Settings) -> Result<(), WorkerError> {
    let mut stop_signal = pin!(stop_signal(door.die_with_parent)?);
    if door.token.is_none() && matches!(door.listen, Address::Tcp(_)) {
        return Err(WorkerError::NoToken);
    }
    let listener = Listener::bind(&door)?;
    let settings = Arc::new(settings);
    let mut parent_ended = pin!(parent_ended(door.die_with_parent));
    let built = tokio::select! {
        built = probe::build(settings.clone()) => built?,
        () = &mut parent_ended => return Ok(()),
    };
    let nursery = Arc::new(built.nursery);
    let sessions = Sessions::new(settings, nursery.clone(), built.report.tier);
    let shared = Arc::new(Shared {
        report: Report {
            sessions_max: u32::try_from(sessions.limit()).unwrap_or(u32::MAX),
            ..built.report
        },
        sessions: sessions.clone(),
        token: door.token.clone(),
    });
    let mut connections = JoinSet::new();
    let mut keepers = JoinSet::new();
    let keeper = nursery.clone();
    keepers.spawn(async move { keeper.keep().await });
    let keeper = sessions.clone();
    keepers.spawn(async move { keeper.keep().await });
    tracing::info!("listening on {}", listener.name());
    match &listener {
        Listener::Unix { .. } => println!("ready"),
        // The port may have been left to the system.
        Listener::Tcp(_, name) => println!("ready tcp:{name}"),
    }
    let spent = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(Some(client)) => {
                    let shared = shared.clone();
                    connections.spawn(async move { requests::serve(client, &shared).await });
                }
                Ok(None) => tracing::warn!("refused a connection of another user"),
                Err(error) => {
                    tracing::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = sessions.spent() => break true,
            () = &mut stop_signal => break false,
            () = &mut parent_ended => break false,
        }
    };
    listener.remove();
    drop(listener);
    keepers.abort_all();
    if spent {
        tracing::info!("the one session has ended, and so does the worker");
        let farewell = async { while connections.join_next().await.is_some() {} };
        // Whoever still listens by then has had the time to hear the end.
        let _ = timeout(FAREWELL, farewell).await;
    }
    connections.shutdown().await;
    sessions.clear();
    nursery.end().await;
    Ok(())
}

/// Builds a session, and tells how it is confined.
pub async fn check(settings: Settings) -> Result<Report, WorkerError> {
    Ok(probe::build(Arc::new(settings)).await?.report)
}

/// Waits for a signal to stop. A parent that the worker is to end with gets the same signals where
/// they go to all processes of a terminal or a service; it may still have work for the worker, and
/// says by standard input when to end.
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

/// Waits until standard input closes, if that is to be waited for.
async fn parent_ended(wanted: bool) {
    if wanted {
        let mut input = tokio::io::stdin();
        let mut bytes = [0; 64];
        while input.read(&mut bytes).await.is_ok_and(|length| length > 0) {}
    } else {
        std::future::pending().await
    }
}

enum Listener {
    Unix {
        listener: UnixListener,
        path: PathBuf,
        peers: Vec<u32>,
    },
    Tcp(TcpListener, String),
}

impl Listener {
    fn bind(door: &Door) -> Result<Self, WorkerError> {
        match &door.listen {
            Address::Unix(path) => {
                let name = path.display().to_string();
                let listener = bind_unix(path, !door.peer_uid.is_empty())
                    .map_err(|error| WorkerError::Listen(name, error))?;
                let own = nix::unistd::Uid::effective().as_raw();
                Ok(Self::Unix {
                    listener,
                    path: path.clone(),
                    peers: [&[0, own], door.peer_uid.as_slice()].concat(),
                })
            }
            Address::Tcp(address) => {
                let bound = std::net::TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    let name = listener.local_addr()?.to_string();
                    Ok((TcpListener::from_std(listener)?, name))
                });
                let (listener, name) =
                    bound.map_err(|error| WorkerError::Listen(address.to_string(), error))?;
                Ok(Self::Tcp(listener, name))
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Unix { path, .. } => path.display().to_string(),
            Self::Tcp(_, name) => name.clone(),
        }
    }

    /// The next connection, or none if its user may not connect.
    async fn accept(&self) -> io::Result<Option<Conversation>> {
        match self {
            Self::Unix {
                listener, peers, ..
            } => {
                let (stream, _) = listener.accept().await?;
                let allowed = peers.contains(&stream.peer_cred()?.uid());
                Ok(allowed.then(|| converse_unix(stream)))
            }
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Some(converse_tcp(stream)))
            }
        }
    }

    fn remove(&self) {
        if let Self::Unix { path, .. } = self {
            // Whoever finds it finds nobody behind it.
            let _ = fs::remove_file(path);
        }
    }
}

fn converse_unix(stream: UnixStream) -> Conversation {
    let (reader, writer) = stream.into_split();
    Conversation::new(reader, writer)
}

fn converse_tcp(stream: TcpStream) -> Conversation {
    let (reader, writer) = stream.into_split();
    Conversation::new(reader, writer)
}

/// Binds, in place of a socket that nobody listens on any more. Others than the worker's user may
/// connect only if some are allowed; who they are is checked when they do.
fn bind_unix(path: &Path, others: bool) -> io::Result<UnixListener> {
    let is_socket = |path| fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if is_socket(path) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::other("another worker listens there"));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let mode = if others { 0o666 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}
