//! Requests that are passed on to the upstream of their model.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::BoxStream;
use reqwest::StatusCode;
use serde_json::Value;

use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::request::set_model;
use super::response::UpstreamResponse;
use super::upstreams::Upstreams;

pub struct Passthrough {
    pub status: u16,
    /// The model that answers, if its name differs from the requested one.
    pub model: Option<String>,
    pub content_type: Option<String>,
    pub retry_after: Option<String>,
    /// Dropping it cancels the call.
    pub body: BoxStream<'static, Result<Bytes, UpstreamError>>,
}

impl Passthrough {
    pub(super) fn new(response: UpstreamResponse, model: Option<String>) -> Self {
        Self {
            status: response.status.as_u16(),
            model,
            content_type: response.header("content-type"),
            retry_after: response.header("retry-after"),
            body: response.body,
        }
    }
}

impl Upstreams {
    /// Passes on a chat completion request, streamed or not, under the routed model's name.
    ///
    /// # Errors
    /// When there is no response, or the upstream refuses this server's key. Any other response is
    /// passed on, errors too.
    pub async fn chat(&self, body: Value) -> Result<Passthrough, UpstreamError> {
        self.pass(Endpoint::Chat, body, is_about_key).await
    }

    pub async fn embeddings(&self, body: Value) -> Result<Passthrough, UpstreamError> {
        self.pass(Endpoint::Embeddings, body, is_about_key).await
    }

    pub async fn responses(&self, body: Value) -> Result<Passthrough, UpstreamError> {
        self.pass(Endpoint::Responses, body, is_about_key).await
    }

    /// Sends an embeddings request of this server itself.
    ///
    /// # Errors
    /// Also for every response that is not a success.
    pub async fn own_embeddings(&self, body: Value) -> Result<Passthrough, UpstreamError> {
        self.pass(Endpoint::Embeddings, body, is_failure).await
    }

    /// Asks the routed model to order texts by how well they answer a query.
    ///
    /// # Errors
    /// Also for every response that is not a success.
    pub async fn rerank(&self, body: Value) -> Result<Passthrough, UpstreamError> {
        self.pass(Endpoint::Rerank, body, is_failure).await
    }

    /// `is_error` selects the responses that are returned as errors.
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
        let requested = body["model"].as_str().unwrap_or_default().to_owned();
        let mut body = Arc::new(body);
        let mut route = self.route(&requested);
        loop {
            set_model(&mut body, &route.model);
            let started = Instant::now();
            let outcome = self.send(&route.upstream, endpoint, &body).await;
            self.record_call(&route.upstream, started, outcome.as_ref().err());
            let mut response = outcome?;
            if is_error(response.status) {
                let error = response.into_error(&route.upstream).await;
                return Err(self.redacted(&route.upstream, error));
            }
            if endpoint.is_chat() && matches!(response.status.as_u16(), 400 | 404) {
                let text = response.read_error().await;
                let error = response.error(&route.upstream, &text);
                let default = self.default_model();
                if let Some(default) = default.replacement_after(&route, &error) {
                    route = default;
                    continue;
                }
                let explained = default.explain(&route, error.clone());
                if explained != error {
                    return Err(self.redacted(&route.upstream, explained));
                }
            }
            let model = (route.model != requested).then_some(route.model);
            return Ok(Passthrough::new(response, model));
        }
    }
}

fn is_failure(status: StatusCode) -> bool {
    !status.is_success()
}

/// Whether a response is about the key of this server, which is no concern of the client.
pub(super) fn is_about_key(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
