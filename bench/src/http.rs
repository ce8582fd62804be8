//! A lean HTTP/1.1 client: keep-alive, no Nagle, no redirects, no decoding.
//!
//! The load generator shares the machine with the measured servers, so it must be cheap; the null
//! server calls the upstream with it for the same reason.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The connection failed before the response was complete.
    #[error("{path}: {cause}")]
    Transport {
        /// Path of the request.
        path: String,
        /// The client library's message.
        cause: String,
    },
    /// A response whose status is not 2xx.
    #[error("{path}: HTTP {status}: {body}")]
    Status {
        /// Path of the request.
        path: String,
        /// Its status.
        status: StatusCode,
        /// The beginning of its body.
        body: String,
    },
    /// A 2xx response that violates the protocol.
    #[error("{0}")]
    Protocol(String),
}

/// The content type of most bodies.
const JSON: &str = "application/json";

/// A pool of connections to servers on this machine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    /// Requests go to each in turn.
    addresses: Arc<[SocketAddr]>,
    requests: Arc<AtomicUsize>,
    authorization: HeaderValue,
}

impl Http {
    /// Creates a client with a bearer token. Connects on first use.
    pub(crate) fn new(address: SocketAddr, key: &str) -> Self {
        Self::balanced(vec![address], key)
    }

    /// A client that sends requests to each of these servers in turn.
    pub(crate) fn balanced(addresses: Vec<SocketAddr>, key: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(usize::MAX)
            .build(connector);
        let authorization = HeaderValue::from_str(&format!("Bearer {key}"))
            .expect("keys of the benchmark are plain ASCII");
        Self {
            client,
            addresses: addresses.into(),
            requests: Arc::default(),
            authorization,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Bytes, CallError> {
        let answer = self.send(Method::GET, path, JSON, Bytes::new()).await?;
        collect(path, answer).await
    }

    /// Posts a JSON body and reads the whole response.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Bytes, CallError> {
        self.post_form(path, JSON, body).await
    }

    /// Posts a body of another content type and reads the whole response.
    pub(crate) async fn post_form(
        &self,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> Result<Bytes, CallError> {
        let answer = self.send(Method::POST, path, kind, body.into()).await?;
        collect(path, answer).await
    }

    /// Posts a JSON body; the response body for streaming.
    pub(crate) async fn open(
        &self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Incoming, CallError> {
        self.send(Method::POST, path, JSON, body.into()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Incoming, CallError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let address = self.addresses[number % self.addresses.len()];
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"))
            .header(AUTHORIZATION, &self.authorization)
            .header("openai-beta", "assistants=v2")
            .header(CONTENT_TYPE, kind)
            .body(Full::new(body))
            .expect("paths of the benchmark are valid");
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|error| transport(path, &error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let body = collect(path, answer.into_body()).await?;
        let shown = &body[..body.len().min(300)];
        Err(CallError::Status {
            path: path.to_owned(),
            status,
            body: String::from_utf8_lossy(shown).into_owned(),
        })
    }
}

async fn collect(path: &str, body: Incoming) -> Result<Bytes, CallError> {
    let collected = body
        .collect()
        .await
        .map_err(|error| transport(path, &error))?;
    Ok(collected.to_bytes())
}

/// A connection error with its causes, which the library's message omits.
pub(crate) fn transport(path: &str, error: &dyn std::error::Error) -> CallError {
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    CallError::Transport {
        path: path.to_owned(),
        cause,
    }
}
