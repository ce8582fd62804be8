//! Connections, from the moment they are accepted to their end: how many there may be, how long a
//! client may keep one waiting, and how they are drained when the server stops.
//!
//! The language is HTTP/1.1, on TLS if there is a certificate. What is said on a connection is the
//! router's business.

mod stall;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::stall::Impatient;
use self::tls::Certificate;

/// Largest head of a request: the line, and all headers together.
const HEAD_BYTES: usize = 64 << 10;

/// How long to wait when no connection can be accepted, as when there are no file descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// What clients may take of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most connections at a time. More wait in the system's queue.
    pub connections: usize,
    /// How long the next request's head may take to arrive whole, counted from the end of the last
    /// answer, or from the beginning of the connection.
    pub idle: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub stalled: Duration,
}

/// Serves `router` until `stop`, then drains: connections without a request are closed at once, the
/// others when they have their answer. Ends when none is left.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    certificate: Option<Certificate>,
    limits: Limits,
    stop: CancellationToken,
) {
    let door = Arc::new(Door::new(router, certificate, &limits));
    let mut open = JoinSet::new();
    // Below this, nobody keeps a connection for longer than one answer.
    let crowded = limits.connections / 10;
    let room = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            let place = place.expect("the semaphore is never closed");
            (place, accept(&listener).await)
        };
        let (place, (stream, peer)) = tokio::select! {
            accepted = accepted => accepted,
            // Frees what ended connections leave behind.
            Some(_) = open.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let keep_alive = room.available_permits() >= crowded;
        let (door, stop) = (door.clone(), stop.clone());
        metrics::gauge!("assistd_connections").increment(1);
        open.spawn(async move {
            door.pass(stream, peer, keep_alive, stop).await;
            metrics::gauge!("assistd_connections").decrement(1);
            drop(place);
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// The next connection, and where it comes from. Failures are of the connection, or pass.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// What all connections go through.
struct Door {
    router: Router,
    certificate: Option<Certificate>,
    http: http1::Builder,
    /// Without keeping connections alive.
    http_once: http1::Builder,
    idle: Duration,
    stalled: Duration,
}

impl Door {
    fn new(router: Router, certificate: Option<Certificate>, limits: &Limits) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.idle)
            .max_header_size(HEAD_BYTES)
            // A client that has said all it has to say may still want its answer.
            .half_close(true);
        let mut http_once = http.clone();
        http_once.keep_alive(false);
        Self {
            router,
            certificate,
            http,
            http_once,
            idle: limits.idle,
            stalled: limits.stalled,
        }
    }

    /// Serves one connection to its end.
    async fn pass(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        keep_alive: bool,
        stop: CancellationToken,
    ) {
        // Events are small and must not wait for each other.
        let _ = stream.set_nodelay(true);
        let stream = Impatient::new(stream, self.stalled);
        let Some(certificate) = &self.certificate else {
            return self.converse(stream, peer, keep_alive, stop).await;
        };
        let handshake = tokio::time::timeout(self.idle, certificate.acceptor().accept(stream));
        match handshake.await {
            Ok(Ok(stream)) => self.converse(stream, peer, keep_alive, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed: {error}"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn converse<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        keep_alive: bool,
        stop: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = self.router.clone().map_request(
            move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ConnectInfo(peer));
                request.map(Body::new)
            },
        );
        let http = if keep_alive {
            &self.http
        } else {
            &self.http_once
        };
        let connection =
            http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::trace!(%error, "a connection broke: {error}");
        }
    }
}

/// How many files this process can be allowed to have open.
pub fn open_file_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard)
}

/// Lets this process have as many files open as the system allows it, and says how many: every
/// connection is one.
pub fn allow_open_files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return u64::MAX;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}
