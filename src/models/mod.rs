//! The models behind this server: OpenAI-compatible Chat Completions servers, and the scripted
//! model, which speaks the same protocol inside the process.
//!
//! Knows nothing of runs, threads or the database.

mod body;
mod catalog;
mod decode;
mod default_model;
mod endpoint;
mod error;
mod error_object;
mod event_stream;
mod failures;
mod http;
mod measure;
mod options;
mod passthrough;
mod request;
mod response;
mod retry;
mod routes;
mod scripted;
mod stored_responses;
pub mod tokens;
mod turn;
mod turns;
mod upstreams;

pub use endpoint::StoredResponseCall;
pub use error::{FailureCode, SetupError, UpstreamError};
pub use failures::LastFailure;
pub use options::{Options, UpstreamKind, UpstreamOptions};
pub use passthrough::Passthrough;
pub use request::ChatRequest;
pub use routes::{Model, Route, RouteOptions};
pub use turn::{FinishReason, TurnEvent, TurnStream, Usage};
pub use upstreams::{ProbeResult, Upstreams};

#[cfg(test)]
mod tests;
