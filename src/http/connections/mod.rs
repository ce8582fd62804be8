//! Connections from accept to close: their number, their timeouts, TLS, and draining on shutdown. The
//! protocol is HTTP/1.1; requests go to the router.

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

use self::stall::StallTimeout;
use self::tls::Certificate;

const MAX_HEAD_BYTES: usize = 64 << 10;

/// Pause after an accept failed, for example because no file descriptors are left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Limits {
    /// Maximum number of concurrent connections. Further ones queue in the kernel.
    pub connections: usize,
    /// Time limit for the complete head of the next request, from the end of the last response or
    /// from the start of the connection.
    pub idle_timeout: Duration,
    pub reader_timeout: Duration,
}

/// Serves `router` until `stop`, then drains: idle connections are closed at once, the others after
/// their response. Returns when none is left.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    certificate: Option<Certificate>,
    limits: Limits,
    stop: CancellationToken,
) {
    let server = Arc::new(ConnectionServer::new(router, certificate, &limits));
    let mut connections = JoinSet::new();
    // With fewer free permits than this, a connection is closed after one response.
    let min_free_for_keep_alive = limits.connections / 10;
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = async {
            let permit = permits.clone().acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            (permit, accept(&listener).await)
        };
        let (permit, (stream, peer)) = tokio::select! {
            accepted = accepted => accepted,
            // A join set keeps finished tasks until they are joined.
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let keep_alive = permits.available_permits() >= min_free_for_keep_alive;
        let (server, stop) = (server.clone(), stop.clone());
        metrics::gauge!("assistd_connections").increment(1);
        connections.spawn(async move {
            server.serve(stream, peer, keep_alive, stop).await;
            metrics::gauge!("assistd_connections").decrement(1);
            drop(permit);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                tracing::error!(
                    %error,
                    "could not accept a connection: {error}; retrying in {} s",
                    ACCEPT_RETRY_DELAY.as_secs()
                );
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

struct ConnectionServer {
    router: Router,
    certificate: Option<Certificate>,
    http: http1::Builder,
    http_once: http1::Builder,
    idle_timeout: Duration,
    reader_timeout: Duration,
}

impl ConnectionServer {
    fn new(router: Router, certificate: Option<Certificate>, limits: &Limits) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.idle_timeout)
            .max_header_size(MAX_HEAD_BYTES)
            // A client may close its sending side and still read the response.
            .half_close(true);
        let mut http_once = http.clone();
        http_once.keep_alive(false);
        Self {
            router,
            certificate,
            http,
            http_once,
            idle_timeout: limits.idle_timeout,
            reader_timeout: limits.reader_timeout,
        }
    }

    async fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        keep_alive: bool,
        stop: CancellationToken,
    ) {
        // Nagle's algorithm would delay the small events of streams.
        let _ = stream.set_nodelay(true);
        let stream = StallTimeout::new(stream, self.reader_timeout);
        let Some(certificate) = &self.certificate else {
            return self.serve_http(stream, peer, keep_alive, stop).await;
        };
        let handshake =
            tokio::time::timeout(self.idle_timeout, certificate.acceptor().accept(stream));
        match handshake.await {
            Ok(Ok(stream)) => self.serve_http(stream, peer, keep_alive, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake with {peer} failed: {error}"),
            Err(_) => tracing::debug!("TLS handshake with {peer} timed out"),
        }
    }

    async fn serve_http<S>(
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
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::trace!(%error, "connection of {peer} failed: {error}");
        }
    }
}

pub fn open_file_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard)
}

/// Raises the soft limit of open files to the hard one, because every connection is a file; returns
/// the limit in effect.
pub fn raise_open_file_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return u64::MAX;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}
