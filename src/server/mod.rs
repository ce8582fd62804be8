//! The composition root: builds the parts of the server from the settings, starts them, and drains
//! them in order.

mod deps;
mod error;
mod http;
mod resources;
mod sandbox;

use std::future::Future;

use tokio::net::TcpListener;

use crate::config::Config;
use crate::engine::Engine;
use crate::http::connections::tls::Certificate;
use crate::jobs::Maintenance;
use crate::retrieval::Indexer;
use crate::store::Pool;
use crate::webhooks::Webhooks;

use deps::Deps;
use http::HttpServer;

pub use error::ServeError;
pub use resources::{
    blobs, certificate, check_open_files, document_reader, embeddings, installed_model, upstreams,
};
pub use sandbox::{Sandbox, sandbox_program};

/// Internal subcommand: extracts a document from standard input in a confined process.
pub const EXTRACT: &str = "extract-document";

/// Serves the API on `listener`, with TLS if there is a `certificate`, until `shutdown` resolves.
///
/// Then it drains: it accepts no more requests, lets active runs finish within the grace period, and
/// releases the others for another process to claim.
///
/// # Errors
/// If a part cannot be set up, or the listener or the database fails.
pub async fn serve(
    config: &Config,
    pool: Pool,
    listener: TcpListener,
    certificate: Option<Certificate>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let is_local = listener.local_addr()?.ip().is_loopback();
    let limits = resources::connection_limits(&config.http);
    let deps = Deps::new(config, pool, is_local).await?;

    let engine = Engine::start(deps.engine, deps.inbox, deps.outbox);
    let indexer = Indexer::start(deps.indexer, deps.index_trigger);
    let webhooks = Webhooks::start(deps.webhooks);
    let maintenance = Maintenance::start(deps.maintenance);
    let http = HttpServer::start(deps.api, listener, certificate, limits);

    shutdown.await;

    http.stop_accepting().await;
    engine
        .drain(config.http.shutdown_grace, http.closed())
        .await;
    indexer.drain().await;
    webhooks.drain().await;
    maintenance.stop().await;
    deps.sandbox.stop().await;
    http.close(deps.blobs).await
}
