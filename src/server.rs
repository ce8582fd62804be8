//! Stand-in for the composition root: answers `/healthz` until the shutdown.

use std::future::Future;

use axum::routing::get;
use sqlx::PgPool;
use tokio::net::TcpListener;

use crate::config::Config;

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServeError(#[from] std::io::Error);

/// Serves on `listener` until `shutdown` resolves.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    _config: Config,
    _pool: PgPool,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let app = axum::Router::new().route("/healthz", get(async || "ok"));
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown)
        .await?;
    Ok(())
}
