//! What every handler can reach.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::events::dispatch::Dispatcher;
use crate::events::feed::Feed;
use crate::events::notifications::Notifier;
use crate::files::blobs::Blobs;
use crate::http::handlers::admin::AdminKey;
use crate::http::request::auth::Keys;
use crate::http::request::body_memory::BodyMemory;
use crate::http::request::cors::CorsOrigins;
use crate::http::request::rate_limits::Rates;
use crate::models::Upstreams;
use crate::retrieval::Retrieval;
use crate::store::Pool;

/// Shared by all handlers. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The database.
    pub pool: Pool,
    /// File contents.
    pub blobs: Blobs,
    /// Events of runs.
    pub feed: Feed,
    /// Hands runs to the engine of this process.
    pub dispatcher: Dispatcher,
    /// Notifies all processes.
    pub notifier: Notifier,
    /// Rings when files were added to vector stores.
    pub indexing: Arc<Notify>,
    /// Searches vector stores.
    pub retrieval: Retrieval,
    /// Models, for the pass-through endpoints.
    pub upstreams: Upstreams,
    /// Who may call.
    pub keys: Keys,
    /// What the admin API opens to, if there is one.
    pub admin_key: Option<AdminKey>,
    /// Which web pages may call.
    pub cors_origins: CorsOrigins,
    /// How often callers may call.
    pub rates: Rates,
    /// The memory of request bodies.
    pub body_memory: BodyMemory,
    /// Limits and defaults.
    pub limits: Arc<Limits>,
    /// Why runs cannot have code_interpreter, if they cannot.
    pub code_interpreter_off: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// The handlers that run, whether their clients still wait or not.
    pub handlers: TaskTracker,
    /// Renders `/metrics`.
    pub metrics: MetricsText,
}

/// Makes the text of `/metrics`.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Limits and defaults of the HTTP surface.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest JSON body.
    pub body_bytes: usize,
    /// Largest file.
    pub file_bytes: u64,
    /// How long a body may keep the server waiting.
    pub body_patience: Duration,
    /// How long a handler may take.
    pub handler_patience: Duration,
    /// Life of a run.
    pub run_expiry: Duration,
    /// Days without use until the vector stores expire that threads make; `None` is never.
    pub thread_store_days: Option<i32>,
    /// How soon pollers are told to come again.
    pub poll_after: Duration,
    /// Whether connections are encrypted by this server itself.
    pub has_tls: bool,
    /// Whether `OpenAI-Beta: assistants=v2` must be sent, as the hosted service wanted.
    pub require_beta_header: bool,
}

/// The header that names the model which answers, where an application asked for another name.
pub const ANSWERING_MODEL: HeaderName = HeaderName::from_static("x-assistd-model");

impl ApiState {
    /// [`ANSWERING_MODEL`] for an answer about a run of this model, as far as is known by now: an
    /// upstream may refuse the name later.
    pub fn model_header(&self, asked: &str) -> Option<[(HeaderName, HeaderValue); 1]> {
        let answering = self.upstreams.route(asked).model;
        let value = HeaderValue::from_str(&answering).ok()?;
        (answering != asked).then_some([(ANSWERING_MODEL, value)])
    }
}

impl Limits {
    /// Tells a poller when to come again. Without it SDKs wait one to five seconds.
    pub fn poll_headers(&self) -> [(&'static str, String); 1] {
        [(
            "openai-poll-after-ms",
            self.poll_after.as_millis().to_string(),
        )]
    }
}
