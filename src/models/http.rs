//! A model server reached over HTTP: addresses, credentials, and the parameters it does not know.

use std::borrow::Cow;
use std::collections::BTreeSet;

use futures::StreamExt;
use futures::TryStreamExt;
use parking_lot::Mutex;
use reqwest::Client;
use reqwest::StatusCode;
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;
use serde_json::Value;

use super::Answer;
use super::Endpoint;
use super::Kind;
use super::UpstreamOptions;
use super::error::SetupError;
use super::error::UpstreamError;
use super::responses::StoredResponseCall;

/// Parameters that older servers refuse, and what takes their place.
const REPLACEABLE: [(&str, Option<&str>); 3] = [
    ("stream_options", None),
    ("parallel_tool_calls", None),
    ("max_completion_tokens", Some("max_tokens")),
];

/// How a 400 says that it is the parameter it minds, and not the value; lower case.
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

/// Fewest characters of a key that is hidden. People who need none set words such as `none`.
const SHORTEST_SECRET: usize = 8;

pub(super) struct HttpUpstream {
    name: String,
    kind: Kind,
    base: Url,
    credentials: Option<(HeaderName, HeaderValue)>,
    /// The key as text, to keep it out of messages that the server sends back. Absent when it is too
    /// short to be a secret: then it may be a part of any word.
    key: Option<String>,
    client: Client,
    /// The replaceable parameters that this server is known to refuse.
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
        let wrong = |what: String| SetupError(format!("upstream `{name}`: {what}"));
        let base: Url = base_url
            .parse()
            .map_err(|error| wrong(format!("the base URL is invalid: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong(
                "the base URL must begin with http:// or https://".into(),
            ));
        }
        let credentials = match &api_key {
            Some(key) => {
                let (header, text) = match &kind {
                    Kind::OpenAi => (reqwest::header::AUTHORIZATION, format!("Bearer {key}")),
                    Kind::Azure { .. } => (HeaderName::from_static("api-key"), key.clone()),
                };
                let mut value = HeaderValue::from_str(&text).map_err(|_| {
                    wrong("the API key has characters that no header may hold".into())
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
                    return Err(wrong(format!(
                        "`{parameter}` cannot be left out; only {} can",
                        known.join(", ")
                    )));
                }
            };
        }
        let key = api_key.filter(|key| key.chars().count() >= SHORTEST_SECRET);
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

    /// The base URL without any credentials in it.
    pub(super) fn address(&self) -> String {
        let mut url = self.base.clone();
        // Both fail only for URLs that cannot have credentials.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.as_str().trim_end_matches('/').to_owned()
    }

    /// Sends a request. A server that refuses a replaceable parameter is asked again without it,
    /// and not sent it again.
    ///
    /// # Errors
    /// [`UpstreamError::Unavailable`] when there is no answer at all. An answer with an error
    /// status is an answer.
    pub(super) async fn send(
        &self,
        endpoint: Endpoint,
        body: &Value,
    ) -> Result<Answer, UpstreamError> {
        loop {
            let adapted = self.adapt(body);
            let answer = self.post(endpoint, &adapted).await?;
            if !matches!(
                answer.status,
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
            ) {
                return Ok(answer);
            }
            let Answer {
                status,
                headers,
                body: stream,
            } = answer;
            let text = super::read_error_body(stream).await;
            if !self.learn(&adapted, &text) {
                let body = futures::stream::iter([Ok(text.into())]).boxed();
                return Ok(Answer {
                    status,
                    headers,
                    body,
                });
            }
            tracing::info!(
                upstream.name = self.name,
                "upstream {} refuses a parameter; asking again without it",
                self.name
            );
        }
    }

    /// The list of models, which every compatible server has, to see whether it answers.
    pub(super) async fn list_models(&self) -> Result<Answer, UpstreamError> {
        let url = match self.kind {
            Kind::OpenAi => self.url(["models"]),
            Kind::Azure { .. } => self.url(["openai", "models"]),
        };
        self.execute(self.client.get(url)).await
    }

    /// Sends a call about a stored response.
    pub(super) async fn stored_response(
        &self,
        call: StoredResponseCall,
        id: &str,
        query: &[(String, String)],
    ) -> Result<Answer, UpstreamError> {
        let path = ["responses", id].into_iter().chain(call.suffix());
        let mut url = match self.kind {
            Kind::OpenAi => self.url(path),
            Kind::Azure { .. } => self.url(std::iter::once("openai").chain(path)),
        };
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.execute(self.client.request(call.method(), url)).await
    }

    /// An error of this server's with a text that may be shown.
    pub(super) fn for_clients(&self, error: UpstreamError) -> UpstreamError {
        error.for_clients(self.key.as_deref())
    }

    async fn post(&self, endpoint: Endpoint, body: &Value) -> Result<Answer, UpstreamError> {
        let model = body["model"].as_str().unwrap_or_default();
        let url = match &self.kind {
            Kind::OpenAi => self.url(endpoint.path().split('/')),
            // Azure's Responses API takes the model from the body.
            Kind::Azure { .. } if endpoint == Endpoint::Responses => {
                self.url(["openai", endpoint.path()])
            }
            Kind::Azure { .. } => {
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

    /// An address below the base. A client chose the model's name, so what it holds must not make
    /// another path.
    fn url<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if let Kind::Azure { api_version } = &self.kind {
            url.query_pairs_mut()
                .append_pair("api-version", api_version);
        }
        url
    }

    async fn execute(&self, request: reqwest::RequestBuilder) -> Result<Answer, UpstreamError> {
        let request = match &self.credentials {
            Some((header, value)) => request.header(header, value),
            None => request,
        };
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(error))?;
        Ok(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response
                .bytes_stream()
                .map_err(|error| {
                    if error.is_timeout() {
                        silent()
                    } else {
                        UpstreamError::disconnected()
                    }
                })
                .boxed(),
        })
    }

    /// The cause goes to the log only: it may hold internal addresses.
    fn unreachable(&self, error: reqwest::Error) -> UpstreamError {
        let connecting = error.is_connect();
        let timeout = error.is_timeout();
        let error = error.without_url();
        tracing::debug!(
            upstream.name = self.name,
            error = &error as &dyn std::error::Error,
            "no answer from upstream {}",
            self.name
        );
        if timeout && !connecting {
            return silent();
        }
        let name = &self.name;
        UpstreamError::Unavailable {
            message: match (connecting, timeout) {
                (true, true) => format!("The upstream `{name}` could not be reached in time."),
                (true, false) => format!("The upstream `{name}` could not be reached."),
                (false, _) => format!("The upstream `{name}` closed the connection."),
            },
            retry_after: None,
            passing: true,
        }
    }

    /// The request without what this server refuses.
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

    /// Whether an error body names a replaceable parameter of the request as unknown; remembers it.
    fn learn(&self, sent: &Value, error: &str) -> bool {
        let lower = error.to_lowercase();
        if !UNKNOWN_PARAMETER_PHRASES
            .iter()
            .any(|phrase| lower.contains(phrase))
        {
            return false;
        }
        let named = REPLACEABLE
            .iter()
            .find(|(name, _)| sent.get(name).is_some() && lower.contains(name));
        named.is_some_and(|(name, _)| self.refused.lock().insert(*name))
    }
}

/// The server accepted the request and then said nothing for too long. Not tried again: the next
/// silence would last as long.
fn silent() -> UpstreamError {
    UpstreamError::Unavailable {
        message: "The model server did not answer in time.".into(),
        retry_after: None,
        passing: false,
    }
}
