//! What every handler can reach.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use tokio_util::task::TaskTracker;

use crate::events::feed::Feed;
use crate::http::request::body_memory::BodyMemory;
use crate::http::request::cors::CorsOrigins;
use crate::models::Upstreams;
use crate::service::Service;

/// Shared by all handlers. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The use cases.
    pub service: Service,
    /// The events that streams follow.
    pub feed: Feed,
    /// Models, for the pass-through endpoints.
    pub upstreams: Upstreams,
    pub cors_origins: CorsOrigins,
    /// The memory of request bodies.
    pub body_memory: BodyMemory,
    pub limits: Arc<Limits>,
    /// The handlers under way, whether their clients still wait or not.
    pub handlers: TaskTracker,
    /// Renders `/metrics`.
    pub metrics: MetricsText,
}

/// Renders the text of `/metrics`.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Limits and defaults of the HTTP surface.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest JSON body, in bytes.
    pub max_body_bytes: usize,
    /// Maximum stall while a body is received.
    pub body_timeout: Duration,
    /// Time limit for a handler to start its response.
    pub request_timeout: Duration,
    /// The interval that pollers are asked to keep.
    pub poll_after: Duration,
    /// Whether this server terminates TLS itself.
    pub has_tls: bool,
    /// Whether `OpenAI-Beta: assistants=v2` is required, as the hosted service did.
    pub require_beta_header: bool,
}

/// The header that names the model which answers, where an application asked for another name.
pub const ANSWERING_MODEL: HeaderName = HeaderName::from_static("x-assistd-model");

impl ApiState {
    /// [`ANSWERING_MODEL`] for a run of this model, if the routes give it another name. An upstream may
    /// still refuse that name.
    pub fn model_header(&self, asked: &str) -> Option<[(HeaderName, HeaderValue); 1]> {
        let answering = self.upstreams.route(asked).model;
        let value = HeaderValue::from_str(&answering).ok()?;
        (answering != asked).then_some([(ANSWERING_MODEL, value)])
    }
}

impl Limits {
    /// Asks pollers for a shorter interval than the one to five seconds that SDKs keep by default.
    pub fn poll_headers(&self) -> [(&'static str, String); 1] {
        [(
            "openai-poll-after-ms",
            self.poll_after.as_millis().to_string(),
        )]
    }
}
