//! The models behind this server: OpenAI-compatible Chat Completions servers, and the built-in
//! scripted model, which speaks the same protocol inside the process.
//!
//! Knows nothing of runs, threads or the database.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use futures::TryStreamExt;
use futures::stream;
use futures::stream::BoxStream;
use metrics::counter;
use metrics::histogram;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

mod catalog;
mod decode;
mod default_model;
mod error;
mod event_stream;
mod http;
mod options;
mod request;
mod responses;
mod retry;
mod routes;
mod scripted;
pub mod tokens;
mod turn;

pub use error::FailureCode;
pub use error::SetupError;
pub use error::UpstreamError;
pub use options::Kind;
pub use options::Options;
pub use options::UpstreamOptions;
pub use request::ChatRequest;
pub use responses::StoredResponseCall;
pub use routes::Model;
pub use routes::Route;
pub use routes::RouteOptions;
pub use turn::FinishReason;
pub use turn::TurnEvent;
pub use turn::TurnStream;
pub use turn::Usage;

use catalog::Catalog;
use decode::CallNames;
use default_model::DefaultModel;
use error::Detail;
use event_stream::Limits;
use http::HttpUpstream;
use routes::Routes;
use scripted::ScriptedUpstream;

use crate::domain::text::without_nul;

/// Longest error body that is read, in bytes.
const ERROR_BODY_LIMIT: usize = 64 << 10;
/// An upstream's answer, to be handed on as it is.
pub struct Passthrough {
    /// The HTTP status.
    pub status: u16,
    /// The model that answers, where it has another name than the one that was asked for.
    pub model: Option<String>,
    /// The `content-type` header.
    pub content_type: Option<String>,
    /// The `retry-after` header.
    pub retry_after: Option<String>,
    /// The body. Dropping it ends the call.
    pub body: BoxStream<'static, Result<Bytes, UpstreamError>>,
}

/// Whether an upstream is there.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// The upstream's name.
    pub upstream: String,
    /// Its address, without credentials.
    pub address: String,
    /// What it said, or what is wrong.
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
    /// What the default server lists.
    catalog: Catalog,
    limits: Limits,
    retries: u32,
}

/// An HTTP answer before its body was read.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: BoxStream<'static, Result<Bytes, UpstreamError>>,
}

impl Answer {
    /// The same, to be handed on; `model` is the one that answers in place of that asked for.
    fn into_passthrough(self, model: Option<String>) -> Passthrough {
        let header = |name: &str| Some(self.headers.get(name)?.to_str().ok()?.to_owned());
        Passthrough {
            status: self.status.as_u16(),
            model,
            content_type: header("content-type"),
            retry_after: header("retry-after"),
            body: self.body,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Chat,
    Embeddings,
    Rerank,
    Responses,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Responses => "responses",
        }
    }

    /// Whether the default model of the settings, which chats, can answer.
    fn is_chat(self) -> bool {
        matches!(self, Self::Chat | Self::Responses)
    }
}

impl Upstreams {
    /// Reads the script and prepares the connections; opens none.
    ///
    /// # Errors
    /// When a base URL, a key, a route or the script is not usable; says which and why.
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
        // One connection a stream: over HTTP/2 a server's limit on concurrent streams (often 100)
        // would make later runs wait for earlier ones.
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
        let default_model = default_model.map(|model| routes.to_default(&model));
        let scripted = ScriptedUpstream::load(script.as_deref())?;
        Ok(Self {
            inner: Arc::new(Inner {
                servers,
                scripted,
                routes,
                default_model: DefaultModel::new(default_model),
                catalog: Catalog::default(),
                limits: Limits {
                    line: max_line_bytes,
                    answer: max_answer_bytes,
                },
                retries,
            }),
        })
    }

    /// Where a model name leads. Always answers: the default route takes what no pattern matches.
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

    /// The models that the settings name: those of the routes and those of the script.
    pub fn models(&self) -> Vec<Model> {
        let mut models = self.inner.routes.models();
        models.extend(self.inner.scripted.model_names().map(|id| Model {
            id,
            owned_by: scripted::UPSTREAM.to_owned(),
        }));
        models
    }

    /// The models of the settings and, where names without a route go to a model server, those that
    /// it lists; its list may be a minute old.
    pub async fn available_models(&self) -> Vec<Model> {
        let mut models = self.models();
        if let Some(server) = self.inner.servers.first()
            && !self.inner.routes.has_default()
        {
            for model in self.inner.catalog.models(server).await {
                if models.iter().all(|known| known.id != model.id) {
                    models.push(model);
                }
            }
        }
        models
    }

    /// The routes and servers in one line, without secrets.
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

    /// One turn of a model. Streams whatever the request says.
    ///
    /// Passing failures are repeated until the first event; what the stream yields is final.
    ///
    /// # Errors
    /// The last failure, when repeating did not help or could not.
    pub async fn turn(&self, request: ChatRequest) -> Result<TurnStream, UpstreamError> {
        let mut route = self.route(&request.model);
        let mut body = Arc::new(request.body(&route.model)?);
        let names = CallNames::of(&request);
        drop(request);
        let mut retry = 0;
        loop {
            let error = match self.begin_turn(&route, &body, &names).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let default = &self.inner.default_model;
            if let Some(default) = default.replacement_after(&route, &error) {
                set_model(&mut body, &default.model);
                route = default;
                continue;
            }
            let error = default.explain(&route, error);
            let pause = (retry < self.inner.retries)
                .then(|| retry::pause(&error, retry, rand::random()))
                .flatten();
            let Some(pause) = pause else {
                return Err(self.for_clients(&route.upstream, error));
            };
            retry += 1;
            tracing::warn!(
                upstream.name = route.upstream,
                upstream.error = error.kind(),
                retry.number = retry,
                retry.delay_ms = pause.as_millis() as u64,
                "upstream {} failed; retrying",
                route.upstream
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// Passes a chat completion request on, streamed or not, under the routed model's name.
    ///
    /// # Errors
    /// When there is no answer, or the upstream refuses this server's key. Any other answer is
    /// handed on, errors too.
    pub async fn chat(&self, body: Value) -> Result<Passthrough, UpstreamError> {
        self.pass(Endpoint::Chat, body, is_about_our_key).await
    }

    /// Passes an embeddings request on, under the routed model's name.
    ///
    /// # Errors
    /// As for [`Self::chat`].
    pub async fn embeddings(&self, body: Value) -> Result<Passthrough, UpstreamError> {
        self.pass(Endpoint::Embeddings, body, is_about_our_key)
            .await
    }

    /// Passes a request of the Responses API on, streamed or not, under the routed model's name.
    ///
    /// # Errors
    /// As for [`Self::chat`].
    pub async fn responses(&self, body: Value) -> Result<Passthrough, UpstreamError> {
        self.pass(Endpoint::Responses, body, is_about_our_key).await
    }

    /// Answers an embeddings request of this server's own.
    ///
    /// # Errors
    /// Whatever is no success.
    pub async fn own_embeddings(&self, body: Value) -> Result<Passthrough, UpstreamError> {
        self.pass(Endpoint::Embeddings, body, is_no_success).await
    }

    /// Asks the routed model to put texts in order by how well they answer a query.
    ///
    /// # Errors
    /// Whatever is no success.
    pub async fn rerank(&self, body: Value) -> Result<Passthrough, UpstreamError> {
        self.pass(Endpoint::Rerank, body, is_no_success).await
    }

    /// Asks every upstream whether it is there.
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

    async fn begin_turn(
        &self,
        route: &Route,
        body: &Arc<Value>,
        names: &CallNames,
    ) -> Result<TurnStream, UpstreamError> {
        let started = Instant::now();
        let outcome = self.first_event(route, body, names).await;
        record(&route.upstream, started, outcome.as_ref().err());
        let (first, rest) = outcome?;
        let Route {
            upstream, model, ..
        } = route.clone();
        let events = stream::iter([Ok(first)]).chain(rest).inspect(move |event| match event {
            Ok(TurnEvent::Usage(usage)) => count_tokens(&model, usage),
            Ok(_) => {}
            Err(error) => {
                counter!("assistd_upstream_interruptions_total", "upstream" => upstream.clone(), "outcome" => error.kind())
                    .increment(1);
            }
        });
        Ok(events.boxed())
    }

    async fn first_event(
        &self,
        route: &Route,
        body: &Arc<Value>,
        names: &CallNames,
    ) -> Result<(TurnEvent, TurnStream), UpstreamError> {
        let answer = self.send(&route.upstream, Endpoint::Chat, body).await?;
        if !answer.status.is_success() {
            return Err(self.refusal(&route.upstream, answer).await);
        }
        let events = decode::events(answer.body, names.clone(), self.inner.limits);
        let mut events = events.boxed();
        let (upstreams, upstream) = (self.clone(), route.upstream.clone());
        let for_clients = move |error| upstreams.for_clients(&upstream, error);
        match events.next().await {
            Some(first) => Ok((first?, events.map_err(for_clients).boxed())),
            None => Err(UpstreamError::disconnected()),
        }
    }

    async fn pass(
        &self,
        endpoint: Endpoint,
        body: Value,
        is_error: fn(StatusCode) -> bool,
    ) -> Result<Passthrough, UpstreamError> {
        if !body.is_object() {
            return Err(UpstreamError::InvalidRequest {
                status: 400,
                code: None,
                param: None,
                message: "The request body must be a JSON object.".into(),
            });
        }
        let asked = body["model"].as_str().unwrap_or_default().to_owned();
        let mut body = Arc::new(body);
        let mut route = self.route(&asked);
        loop {
            set_model(&mut body, &route.model);
            let started = Instant::now();
            let outcome = self.send(&route.upstream, endpoint, &body).await;
            record(&route.upstream, started, outcome.as_ref().err());
            let mut answer = outcome?;
            if is_error(answer.status) {
                let error = self.refusal(&route.upstream, answer).await;
                return Err(self.for_clients(&route.upstream, error));
            }
            if endpoint.is_chat() && matches!(answer.status.as_u16(), 400 | 404) {
                let text = read_error_body(answer.body).await;
                let error = self.error_of(&route.upstream, answer.status, &answer.headers, &text);
                let default = &self.inner.default_model;
                if let Some(default) = default.replacement_after(&route, &error) {
                    route = default;
                    continue;
                }
                let explained = default.explain(&route, error.clone());
                if explained != error {
                    return Err(self.for_clients(&route.upstream, explained));
                }
                answer.body = stream::iter([Ok(text.into())]).boxed();
            }
            let model = (route.model != asked).then_some(route.model);
            return Ok(answer.into_passthrough(model));
        }
    }

    async fn send(
        &self,
        upstream: &str,
        endpoint: Endpoint,
        body: &Arc<Value>,
    ) -> Result<Answer, UpstreamError> {
        match self.server(upstream) {
            Some(server) => server.send(endpoint, body).await,
            None => Ok(self.inner.scripted.send(endpoint, Arc::clone(body)).await),
        }
    }

    /// The server of this name; the scripted model has none.
    fn server(&self, upstream: &str) -> Option<&HttpUpstream> {
        let mut servers = self.inner.servers.iter();
        servers.find(|server| server.name() == upstream)
    }

    /// The error that an answer with an error status is, to be classified.
    async fn refusal(&self, upstream: &str, answer: Answer) -> UpstreamError {
        let text = read_error_body(answer.body).await;
        self.error_of(upstream, answer.status, &answer.headers, &text)
    }

    /// The error that these parts of an answer are.
    fn error_of(
        &self,
        upstream: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &str,
    ) -> UpstreamError {
        let pause = retry::requested_pause(headers);
        Detail::from_body(body).into_error(upstream, status, pause)
    }

    /// An upstream's error, once it was classified, with a text that may be shown.
    fn for_clients(&self, upstream: &str, error: UpstreamError) -> UpstreamError {
        match self.server(upstream) {
            Some(server) => server.for_clients(error),
            None => error.for_clients(None),
        }
    }
}

/// Names the model in a request.
fn set_model(body: &mut Arc<Value>, model: &str) {
    Arc::make_mut(body)["model"] = Value::String(model.to_owned());
}

fn is_no_success(status: StatusCode) -> bool {
    !status.is_success()
}

/// Whether an answer is none of the client's business.
fn is_about_our_key(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Reads the body of an error.
async fn read_error_body(body: BoxStream<'static, Result<Bytes, UpstreamError>>) -> String {
    read_body(body, ERROR_BODY_LIMIT).await
}

/// Reads a body up to about so many bytes. What cannot be read is left out.
async fn read_body(
    mut body: BoxStream<'static, Result<Bytes, UpstreamError>>,
    limit: usize,
) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = body.next().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= limit {
            break;
        }
    }
    text_of(bytes)
}

/// Bytes of an upstream as text. What is no UTF-8, and U+0000, becomes U+FFFD.
fn text_of(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    without_nul(text)
}

fn record(upstream: &str, started: Instant, error: Option<&UpstreamError>) {
    let outcome = error.map_or("ok", UpstreamError::kind);
    counter!("assistd_upstream_requests_total", "upstream" => upstream.to_owned(), "outcome" => outcome)
        .increment(1);
    histogram!("assistd_upstream_request_seconds", "upstream" => upstream.to_owned())
        .record(started.elapsed().as_secs_f64());
}

fn count_tokens(model: &str, usage: &Usage) {
    let count = |kind: &'static str, tokens: u32| {
        counter!("assistd_upstream_tokens_total", "model" => model.to_owned(), "kind" => kind)
            .increment(u64::from(tokens));
    };
    count("prompt", usage.prompt);
    count("cached", usage.cached);
    count("completion", usage.completion);
    count("reasoning", usage.reasoning);
}

#[cfg(test)]
mod tests;
