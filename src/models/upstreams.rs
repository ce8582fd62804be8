//! The upstreams: model servers and the scripted model.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::catalog::{self, Catalog};
use super::default_model::DefaultModel;
use super::endpoint::Endpoint;
use super::error::{SetupError, UpstreamError};
use super::event_stream::Limits;
use super::failures::{Failures, LastFailure};
use super::http::HttpUpstream;
use super::measure;
use super::options::Options;
use super::response::UpstreamResponse;
use super::routes::{Model, Route, Routes};
use super::scripted::{self, ScriptedUpstream};

#[derive(Clone, Debug)]
pub struct ProbeResult {
    pub upstream: String,
    pub address: String,
    /// What it serves, or why it cannot be reached.
    pub outcome: Result<String, UpstreamError>,
}

/// The models behind this server. Cheap to clone.
#[derive(Clone)]
pub struct Upstreams {
    inner: Arc<Inner>,
}

struct Inner {
    servers: Vec<HttpUpstream>,
    scripted: ScriptedUpstream,
    routes: Routes,
    default_model: DefaultModel,
    catalog: Catalog,
    failures: Failures,
    limits: Limits,
    max_retries: u32,
}

impl Upstreams {
    /// Reads the script and prepares the connections; opens none.
    ///
    /// # Errors
    /// When a base URL, a key, a route or the script is not valid.
    pub fn new(options: Options) -> Result<Self, SetupError> {
        let Options {
            upstreams,
            routes,
            default_model,
            script,
            connect_timeout,
            idle_timeout,
            max_line_bytes,
            max_answer_bytes,
            retries,
        } = options;
        // HTTP/1 opens a connection per stream. With HTTP/2, a server's limit on concurrent streams
        // (often 100) would make later runs wait for earlier ones.
        let client = reqwest::Client::builder()
            .http1_only()
            .connect_timeout(connect_timeout)
            .read_timeout(idle_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("assistd/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| SetupError(format!("no HTTP client: {error}")))?;
        let mut servers: Vec<HttpUpstream> = Vec::with_capacity(upstreams.len());
        for upstream in upstreams {
            if upstream.name == scripted::UPSTREAM
                || servers.iter().any(|server| server.name() == upstream.name)
            {
                return Err(SetupError(format!(
                    "two upstreams are called `{}`",
                    upstream.name
                )));
            }
            servers.push(HttpUpstream::new(upstream, client.clone())?);
        }
        let names: Vec<String> = servers
            .iter()
            .map(|server| server.name().to_owned())
            .collect();
        let routes = Routes::new(routes, &names)?;
        let default_model = default_model.map(|model| routes.default_route(&model));
        let scripted = ScriptedUpstream::load(script.as_deref())?;
        Ok(Self {
            inner: Arc::new(Inner {
                servers,
                scripted,
                routes,
                default_model: DefaultModel::new(default_model),
                catalog: Catalog::default(),
                failures: Failures::default(),
                limits: Limits {
                    line: max_line_bytes,
                    answer: max_answer_bytes,
                },
                max_retries: retries,
            }),
        })
    }

    pub fn route(&self, model: &str) -> Route {
        let mut route = self.inner.routes.route(model);
        if let Some(default) = self.inner.default_model.replacement(&route) {
            route = default;
        }
        if route.upstream == scripted::UPSTREAM && route.context_window.is_none() {
            route.context_window = self.inner.scripted.context_window(&route.model);
        }
        route
    }

    pub fn models(&self) -> Vec<Model> {
        let mut models = self.inner.routes.models();
        models.extend(self.inner.scripted.model_names().map(|id| Model {
            id,
            owned_by: scripted::UPSTREAM.to_owned(),
        }));
        models
    }

    /// The models named by the routes and the script, and those that the default model server lists,
    /// if there is one. The list is cached for up to a minute.
    pub async fn available_models(&self) -> Vec<Model> {
        let mut models = self.models();
        if let Some(server) = self.inner.servers.first()
            && !self.inner.routes.has_catch_all()
        {
            for model in self.inner.catalog.models(server).await {
                if models.iter().all(|known| known.id != model.id) {
                    models.push(model);
                }
            }
        }
        models
    }

    /// The routes and servers in one line, without credentials.
    pub fn describe(&self) -> String {
        let servers: Vec<String> = self
            .inner
            .servers
            .iter()
            .map(|server| format!("{} at {}", server.name(), server.address()))
            .collect();
        let routes = self.inner.routes.describe();
        if servers.is_empty() {
            format!("{routes} (the built-in scripted model: no upstream is configured)")
        } else {
            format!("{routes} ({})", servers.join(", "))
        }
    }

    /// The name and address of every upstream.
    pub fn addresses(&self) -> Vec<(String, String)> {
        let servers = self.inner.servers.iter();
        let servers = servers.map(|server| (server.name().to_owned(), server.address()));
        let scripted = (scripted::UPSTREAM.to_owned(), "built in".to_owned());
        servers.chain([scripted]).collect()
    }

    /// The last failed call of an upstream since the start of the process.
    pub fn last_failure(&self, upstream: &str) -> Option<LastFailure> {
        self.inner.failures.last(upstream)
    }

    pub async fn probe(&self) -> Vec<ProbeResult> {
        let probes = self.inner.servers.iter().map(async |server| ProbeResult {
            upstream: server.name().to_owned(),
            address: server.address(),
            outcome: catalog::list(server)
                .await
                .map(|models| format!("reachable; models: {}", models.len())),
        });
        let mut results = futures::future::join_all(probes).await;
        results.push(ProbeResult {
            upstream: scripted::UPSTREAM.to_owned(),
            address: "built in".to_owned(),
            outcome: Ok(self.inner.scripted.describe()),
        });
        results
    }

    pub(super) fn servers(&self) -> &[HttpUpstream] {
        &self.inner.servers
    }

    pub(super) fn default_model(&self) -> &DefaultModel {
        &self.inner.default_model
    }

    pub(super) fn limits(&self) -> Limits {
        self.inner.limits
    }

    pub(super) fn max_retries(&self) -> u32 {
        self.inner.max_retries
    }

    pub(super) async fn send(
        &self,
        upstream: &str,
        endpoint: Endpoint,
        body: &Arc<Value>,
    ) -> Result<UpstreamResponse, UpstreamError> {
        match self.server(upstream) {
            Some(server) => server.send(endpoint, body).await,
            None => Ok(self.inner.scripted.send(endpoint, Arc::clone(body)).await),
        }
    }

    /// `None` for the scripted model.
    fn server(&self, upstream: &str) -> Option<&HttpUpstream> {
        let mut servers = self.inner.servers.iter();
        servers.find(|server| server.name() == upstream)
    }

    /// Records a call when its response has started, or has failed to.
    pub(super) fn record_call(
        &self,
        upstream: &str,
        started: Instant,
        error: Option<&UpstreamError>,
    ) {
        measure::record_call(upstream, started, error);
        if let Some(error) = error {
            let error = self.redacted(upstream, error.clone());
            self.inner.failures.record(upstream, &error);
        }
    }

    /// Records that a response broke off.
    pub(super) fn record_interruption(&self, upstream: &str, error: &UpstreamError) {
        measure::record_interruption(upstream, error);
        self.inner.failures.record(upstream, error);
    }

    pub(super) fn redacted(&self, upstream: &str, error: UpstreamError) -> UpstreamError {
        match self.server(upstream) {
            Some(server) => server.redacted(error),
            None => error.redacted(None),
        }
    }
}
