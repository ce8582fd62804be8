//! Stand-in for the composition root: answers `/healthz` until the shutdown.

use std::future::Future;

use axum::routing::get;
use sqlx::PgPool;
use tokio::net::TcpListener;

use crate::config;
use crate::config::Config;
use crate::upstream;

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

/// The settings that concern models, in the form that [`upstream::Upstreams::new`] takes.
pub fn upstream_options(config: &Config) -> upstream::Options {
    let upstreams = config
        .upstreams
        .iter()
        .map(|one| upstream::UpstreamOptions {
            name: one.name.clone(),
            kind: match (one.kind, &one.api_version) {
                (config::UpstreamKind::Azure, Some(version)) => upstream::Kind::Azure {
                    api_version: version.clone(),
                },
                (config::UpstreamKind::OpenAi | config::UpstreamKind::Azure, _) => {
                    upstream::Kind::OpenAi
                }
            },
            base_url: one.base_url.to_string(),
            api_key: one.api_key.as_ref().map(|key| key.expose().to_owned()),
            unsupported: one.unsupported.clone(),
        });
    let routes = config.routes.iter().map(|route| upstream::RouteOptions {
        pattern: route.pattern.clone(),
        upstream: route.upstream.clone(),
        model: route.model.clone(),
        context_window: route.context_window,
    });
    upstream::Options {
        upstreams: upstreams.collect(),
        routes: routes.collect(),
        script: config.script.clone(),
        idle_timeout: config.upstream_timeout,
        retries: config.upstream_retries,
        ..upstream::Options::default()
    }
}
