//! The scripted model as an upstream. It runs in this process, but its answers and its faults are
//! decoded, retried and measured like those of an HTTP server.

use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use scripted_model::{ConnectionLost, Response, ScriptedModels};
use serde_json::{Value, json};

use super::endpoint::Endpoint;
use super::error::{SetupError, UpstreamError};
use super::response::UpstreamResponse;
use super::tokens;

pub(super) use scripted_model::{DEFAULT_MODEL, PREFIX};

pub(super) const UPSTREAM: &str = "scripted";

#[derive(Clone)]
pub(super) struct ScriptedUpstream {
    models: ScriptedModels,
}

impl ScriptedUpstream {
    pub(super) fn load(path: Option<&Path>) -> Result<Self, SetupError> {
        let models = ScriptedModels::load(path).map_err(|error| SetupError(error.to_string()))?;
        Ok(Self { models })
    }

    pub(super) fn model_names(&self) -> impl Iterator<Item = String> {
        self.models.model_names()
    }

    pub(super) fn context_window(&self, model: &str) -> Option<u32> {
        self.models.context_window(model)
    }

    pub(super) fn describe(&self) -> String {
        self.models.describe()
    }

    pub(super) async fn send(&self, endpoint: Endpoint, request: Arc<Value>) -> UpstreamResponse {
        let models = self.models.clone();
        let respond = move || match endpoint {
            Endpoint::Chat => {
                let model = request["model"].as_str().unwrap_or_default();
                let prompt_tokens = tokens::count_request(model, &request);
                upstream_response(models.chat(&request, prompt_tokens))
            }
            Endpoint::Embeddings => upstream_response(models.embeddings(&request)),
            Endpoint::Rerank => error(404, "The scripted model does not rerank."),
            Endpoint::Responses => error(
                404,
                "The scripted model does not serve the Responses API. Name a model of an upstream \
                 that does.",
            ),
        };
        // Counting tokens blocks the thread; the first count loads a vocabulary (0.2 s).
        let response = tokio::task::spawn_blocking(respond).await;
        response.unwrap_or_else(|_| error(500, "The scripted model failed."))
    }
}

fn upstream_response(response: Response) -> UpstreamResponse {
    let content_type = HeaderValue::from_static(response.content_type);
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
    if let Some(pause) = response.retry_after {
        let milliseconds = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let seconds = pause.as_secs_f64().ceil() as u64;
        headers.insert(
            HeaderName::from_static("retry-after-ms"),
            milliseconds.into(),
        );
        headers.insert(RETRY_AFTER, seconds.into());
    }
    let body = response.body;
    UpstreamResponse {
        status: StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        headers,
        body: body
            .map_err(|ConnectionLost| UpstreamError::disconnected())
            .boxed(),
    }
}

fn error(status: u16, message: &str) -> UpstreamResponse {
    let kind = match status {
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let body =
        json!({ "error": { "message": message, "type": kind, "param": null, "code": null } });
    upstream_response(Response {
        status,
        content_type: "application/json",
        retry_after: None,
        body: stream::iter([Ok(body.to_string().into())]).boxed(),
    })
}
