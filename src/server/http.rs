//! The HTTP server: its connections, its request handlers, and the renewal of its certificate.

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::ServeError;
use crate::files::blobs::Blobs;
use crate::http;
use crate::http::connections;
use crate::http::connections::tls::Certificate;
use crate::http::state::ApiState;

/// How long to wait in each step of the shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct HttpServer {
    stop: CancellationToken,
    /// Cancelled when the last connection is closed.
    closed: CancellationToken,
    handlers: TaskTracker,
    connections: JoinHandle<()>,
    renewal: Option<JoinHandle<std::io::Result<()>>>,
}

impl HttpServer {
    pub(super) fn start(
        state: ApiState,
        listener: TcpListener,
        certificate: Option<Certificate>,
        limits: connections::Limits,
    ) -> Self {
        let stop = CancellationToken::new();
        let renewal = certificate
            .clone()
            .map(|certificate| tokio::spawn(certificate.watch_files(stop.clone())));
        let handlers = state.handlers.clone();
        let router = http::router(state);
        let serving = connections::serve(listener, router, certificate, limits, stop.clone());
        let closed = CancellationToken::new();
        let guard = closed.clone().drop_guard();
        let connections = tokio::spawn(async move {
            let _guard = guard;
            serving.await;
        });
        Self {
            stop,
            closed,
            handlers,
            connections,
            renewal,
        }
    }

    /// Accepts no more requests, and waits a while for those in progress: a handler that has stored a
    /// run under the lease of this process must dispatch it before the engine drains.
    pub(super) async fn stop_accepting(&self) {
        self.stop.cancel();
        self.handlers.close();
        let waiting = tokio::time::timeout(DRAIN_TIMEOUT, self.handlers.wait());
        if waiting.await.is_err() {
            tracing::info!(
                handlers = self.handlers.len(),
                "shutdown: some requests take longer; draining the engine meanwhile"
            );
        }
    }

    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        self.closed.clone().cancelled_owned()
    }

    /// Ends what is left of connections and handlers, and then closes the blob storage that handlers
    /// write to.
    pub(super) async fn close(mut self, blobs: Blobs) -> Result<(), ServeError> {
        if let Some(renewal) = self.renewal {
            renewal.await.map_err(std::io::Error::other)??;
        }
        match tokio::time::timeout(DRAIN_TIMEOUT, &mut self.connections).await {
            Ok(ended) => ended.map_err(std::io::Error::other)?,
            Err(_) => {
                tracing::info!("shutdown: closing connections that are still open");
                self.connections.abort();
            }
        }
        let finished = async {
            self.handlers.wait().await;
            blobs.close().await;
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, finished).await.is_err() {
            tracing::warn!(
                handlers = self.handlers.len(),
                "shutdown: some requests did not end in time; abandoning them"
            );
        }
        Ok(())
    }
}
