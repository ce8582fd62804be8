//! A model server: its URLs and credentials, and the parameters that it refuses.

use std::borrow::Cow;
use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde_json::Value;

use super::endpoint::{Endpoint, StoredResponseCall};
use super::error::{SetupError, UpstreamError};
use super::options::{UpstreamKind, UpstreamOptions};
use super::response::UpstreamResponse;

/// Parameters that older servers refuse, and their replacements.
const REPLACEABLE: [(&str, Option<&str>); 3] = [
    ("stream_options", None),
    ("parallel_tool_calls", None),
    ("max_completion_tokens", Some("max_tokens")),
];

/// Phrases of servers that refuse a parameter and not just its value, in lower case.
const UNKNOWN_PARAMETER_PHRASES: [&str; 14] = [
    "unsupported",
    "not supported",
    "does not support",
    "unrecognized",
    "unrecognised",
    "unknown",
    "unexpected",
    "not permitted",
    "not allowed",
    "extra_forbidden",
    "additional propert",
    "invalid param",
    "invalid field",
    "no such parameter",
];

/// Minimum length of a key that is redacted, in characters. Where no key is needed, operators set
/// words such as `none`.
const MIN_SECRET: usize = 8;

pub(super) struct HttpUpstream {
    name: String,
    kind: UpstreamKind,
    base: Url,
    credentials: Option<(HeaderName, HeaderValue)>,
    /// The key, to redact it in messages of the server. `None` if it is too short for a secret: then
    /// it may be a part of any word.
    key: Option<String>,
    client: Client,
    refused: Mutex<BTreeSet<&'static str>>,
}

impl HttpUpstream {
    pub(super) fn new(options: UpstreamOptions, client: Client) -> Result<Self, SetupError> {
        let UpstreamOptions {
            name,
            kind,
            base_url,
            api_key,
            unsupported,
        } = options;
        let invalid = |what: String| SetupError(format!("upstream `{name}`: {what}"));
        let base: Url = base_url
            .parse()
            .map_err(|error| invalid(format!("the base URL is invalid: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(invalid(
                "the base URL must begin with http:// or https://".into(),
            ));
        }
        let credentials = match &api_key {
            Some(key) => {
                let (header, text) = match &kind {
                    UpstreamKind::OpenAi => (AUTHORIZATION, format!("Bearer {key}")),
                    UpstreamKind::Azure { .. } => (HeaderName::from_static("api-key"), key.clone()),
                };
                let mut value = HeaderValue::from_str(&text).map_err(|_| {
                    invalid("the API key has characters that no header may hold".into())
                })?;
                value.set_sensitive(true);
                Some((header, value))
            }
            None => None,
        };
        let mut refused = BTreeSet::new();
        for parameter in unsupported {
            match REPLACEABLE.iter().find(|(known, _)| *known == parameter) {
                Some((known, _)) => refused.insert(*known),
                None => {
                    let known: Vec<&str> = REPLACEABLE.iter().map(|(known, _)| *known).collect();
                    return Err(invalid(format!(
                        "`{parameter}` cannot be left out; only {} can",
                        known.join(", ")
                    )));
                }
            };
        }
        let key = api_key.filter(|key| key.chars().count() >= MIN_SECRET);
        Ok(Self {
            name,
            kind,
            base,
            credentials,
            key,
            client,
            refused: Mutex::new(refused),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn address(&self) -> String {
        let mut url = self.base.clone();
        // Both fail only for URLs that cannot hold credentials.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.as_str().trim_end_matches('/').to_owned()
    }

    /// Sends a request. If the server refuses a replaceable parameter, the request is repeated
    /// without it, and later requests omit it.
    ///
    /// # Errors
    /// [`UpstreamError::Unavailable`] when there is no response. Responses with error statuses are
    /// returned as responses.
    pub(super) async fn send(
        &self,
        endpoint: Endpoint,
        body: &Value,
    ) -> Result<UpstreamResponse, UpstreamError> {
        loop {
            let adapted = self.adapt(body);
            let mut response = self.post(endpoint, &adapted).await?;
            if !matches!(
                response.status,
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
            ) {
                return Ok(response);
            }
            let error = response.read_error().await;
            let Some(parameter) = self.learn_refused_parameter(&adapted, &error) else {
                return Ok(response);
            };
            tracing::info!(
                upstream.name = self.name,
                parameter,
                "upstream {} refuses the parameter {parameter}; sending requests without it",
                self.name
            );
        }
    }

    pub(super) async fn list_models(&self) -> Result<UpstreamResponse, UpstreamError> {
        let url = match self.kind {
            UpstreamKind::OpenAi => self.url(["models"]),
            UpstreamKind::Azure { .. } => self.url(["openai", "models"]),
        };
        self.execute(self.client.get(url)).await
    }

    pub(super) async fn stored_response(
        &self,
        call: StoredResponseCall,
        id: &str,
        query: &[(String, String)],
    ) -> Result<UpstreamResponse, UpstreamError> {
        let path = ["responses", id].into_iter().chain(call.suffix());
        let mut url = match self.kind {
            UpstreamKind::OpenAi => self.url(path),
            UpstreamKind::Azure { .. } => self.url(std::iter::once("openai").chain(path)),
        };
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.execute(self.client.request(call.method(), url)).await
    }

    pub(super) fn redacted(&self, error: UpstreamError) -> UpstreamError {
        error.redacted(self.key.as_deref())
    }

    async fn post(
        &self,
        endpoint: Endpoint,
        body: &Value,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let model = body["model"].as_str().unwrap_or_default();
        let url = match &self.kind {
            UpstreamKind::OpenAi => self.url(endpoint.path().split('/')),
            // The model is in the body.
            UpstreamKind::Azure { .. } if endpoint == Endpoint::Responses => {
                self.url(["openai", endpoint.path()])
            }
            UpstreamKind::Azure { .. } => {
                let deployment = ["openai", "deployments", model];
                self.url(deployment.into_iter().chain(endpoint.path().split('/')))
            }
        };
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        self.execute(request).await
    }

    /// A URL below the base URL. Its segments are escaped, since clients choose the model's name.
    fn url<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if let UpstreamKind::Azure { api_version } = &self.kind {
            url.query_pairs_mut()
                .append_pair("api-version", api_version);
        }
        url
    }

    async fn execute(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let request = match &self.credentials {
            Some((header, value)) => request.header(header, value),
            None => request,
        };
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(error))?;
        Ok(UpstreamResponse {
            status: response.status(),
            headers: response.headers().clone(),
            body: response
                .bytes_stream()
                .map_err(|error| {
                    if error.is_timeout() {
                        response_timeout()
                    } else {
                        UpstreamError::disconnected()
                    }
                })
                .boxed(),
        })
    }

    /// The cause is logged only: it may hold internal addresses.
    fn unreachable(&self, error: reqwest::Error) -> UpstreamError {
        let is_connect = error.is_connect();
        let is_timeout = error.is_timeout();
        let error = error.without_url();
        tracing::debug!(
            upstream.name = self.name,
            error = &error as &dyn std::error::Error,
            "upstream {} did not respond",
            self.name
        );
        if is_timeout && !is_connect {
            return response_timeout();
        }
        let name = &self.name;
        UpstreamError::Unavailable {
            message: match (is_connect, is_timeout) {
                (true, true) => format!("The upstream `{name}` could not be reached in time."),
                (true, false) => format!("The upstream `{name}` could not be reached."),
                (false, _) => format!("The upstream `{name}` closed the connection."),
            },
            retry_after: None,
            is_transient: true,
        }
    }

    fn adapt<'a>(&self, body: &'a Value) -> Cow<'a, Value> {
        let refused = self.refused.lock();
        let applies = |name: &str| body.get(name).is_some();
        if !refused.iter().any(|name| applies(name)) {
            return Cow::Borrowed(body);
        }
        let mut body = body.clone();
        if let Value::Object(fields) = &mut body {
            for (name, replacement) in REPLACEABLE {
                if !refused.contains(name) {
                    continue;
                }
                if let (Some(value), Some(replacement)) = (fields.shift_remove(name), replacement) {
                    fields.entry(replacement).or_insert(value);
                }
            }
        }
        Cow::Owned(body)
    }

    /// The replaceable parameter of the request that an error body names as unknown. From now on it
    /// is not sent; `None` if that was known.
    fn learn_refused_parameter(&self, request: &Value, error: &str) -> Option<&'static str> {
        let lower = error.to_lowercase();
        let mut phrases = UNKNOWN_PARAMETER_PHRASES.iter();
        if !phrases.any(|phrase| lower.contains(phrase)) {
            return None;
        }
        let (name, _) = REPLACEABLE
            .iter()
            .find(|(name, _)| request.get(name).is_some() && lower.contains(name))?;
        self.refused.lock().insert(*name).then_some(*name)
    }
}

/// The server accepted the request and sent nothing for longer than the idle timeout. Not retried:
/// the next attempt would take as long.
fn response_timeout() -> UpstreamError {
    UpstreamError::Unavailable {
        message: "The model server did not answer in time.".into(),
        retry_after: None,
        is_transient: false,
    }
}
