//! What all handlers share. Nothing here names a handler, an extractor or a response.

mod body_memory;
mod cors_origins;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue};
use tokio_util::task::TaskTracker;

use crate::events::feed::Feed;
use crate::models::Upstreams;
use crate::service::Service;

pub use body_memory::{BodyMemory, OutOfBodyMemory, Share};
pub use cors_origins::CorsOrigins;

#[derive(Clone)]
pub struct ApiState {
    pub service: Service,
    pub feed: Feed,
    pub upstreams: Upstreams,
    pub cors_origins: CorsOrigins,
    pub body_memory: BodyMemory,
    pub limits: Arc<Limits>,
    /// The running handlers, including those whose client has disconnected.
    pub handlers: TaskTracker,
    pub metrics: MetricsText,
    /// When the server started.
    pub started: Instant,
}

pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Debug, Clone)]
pub struct Limits {
    pub max_body_bytes: usize,
    /// Maximum stall while a request body is received.
    pub body_timeout: Duration,
    pub request_timeout: Duration,
    /// The polling interval that responses suggest to clients.
    pub poll_after: Duration,
    pub has_tls: bool,
    /// Whether the console is served.
    pub has_console: bool,
    /// Whether `OpenAI-Beta: assistants=v2` is required, as the hosted service did.
    pub require_beta_header: bool,
}

/// The header with the name of the model that a request was routed to, if it differs from the
/// requested name.
pub const ROUTED_MODEL: HeaderName = HeaderName::from_static("x-assistd-model");

impl ApiState {
    pub fn model_header(&self, requested: &str) -> Option<[(HeaderName, HeaderValue); 1]> {
        let routed = self.upstreams.route(requested).model;
        let value = HeaderValue::from_str(&routed).ok()?;
        (routed != requested).then_some([(ROUTED_MODEL, value)])
    }
}

impl Limits {
    /// Suggests an interval below the default of SDKs, which is one to five seconds.
    pub fn poll_headers(&self) -> [(&'static str, String); 1] {
        [(
            "openai-poll-after-ms",
            self.poll_after.as_millis().to_string(),
        )]
    }
}
