//! What can go wrong with a model server, and how its answers are told apart.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use reqwest::StatusCode;
use serde_json::Value;

use crate::domain::json_escapes;

/// Longest message of an upstream that is passed on, in characters.
const MESSAGE_LIMIT: usize = 1_000;

/// A failed call to a model. The text of one that leaves this module may be shown to a client: it holds
/// neither keys nor addresses.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UpstreamError {
    /// Too many requests (429), or the account behind the key has nothing left.
    #[error("{message}")]
    RateLimited {
        /// What the upstream said.
        message: String,
        /// The pause that the upstream asked for.
        retry_after: Option<Duration>,
        /// The quota is used up: waiting will not help.
        exhausted: bool,
    },
    /// The prompt, or prompt and answer together, do not fit the model.
    #[error("{message}")]
    ContextLength {
        /// What the upstream said.
        message: String,
        /// The model's context window in tokens, where the upstream named it.
        limit: Option<u32>,
    },
    /// The upstream understood the request and refuses it (400, 404, 422 and their like).
    #[error("{message}")]
    InvalidRequest {
        /// The HTTP status.
        status: u16,
        /// The `code` of the error object, such as `model_not_found`.
        code: Option<String>,
        /// The `param` of the error object.
        param: Option<String>,
        /// What the upstream said.
        message: String,
    },
    /// The upstream refuses the key that this server holds (401, 403).
    #[error("{message}")]
    Auth {
        /// Names the upstream only: servers like to repeat keys in these messages.
        message: String,
    },
    /// Not reachable, overloaded, out of order, or gone in the middle of an answer.
    #[error("{message}")]
    Unavailable {
        /// What happened.
        message: String,
        /// The pause that the upstream asked for.
        retry_after: Option<Duration>,
        /// Whether the same call may succeed a little later.
        passing: bool,
    },
    /// The answer is not a chat completion.
    #[error("{message}")]
    Broken {
        /// What was not understood.
        message: String,
    },
}

/// The `last_error.code` values of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCode {
    /// `rate_limit_exceeded`
    RateLimitExceeded,
    /// `server_error`
    ServerError,
    /// `invalid_prompt`
    InvalidPrompt,
}

/// Settings from which no upstream can be built.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub(super) String);

impl UpstreamError {
    /// The text to show to a client.
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// How a run that ends with this error says so in `last_error.code`.
    pub fn failure_code(&self) -> FailureCode {
        match self {
            Self::RateLimited { .. } => FailureCode::RateLimitExceeded,
            Self::ContextLength { .. } => FailureCode::InvalidPrompt,
            Self::InvalidRequest { status, .. } if *status != 404 => FailureCode::InvalidPrompt,
            Self::InvalidRequest { .. }
            | Self::Auth { .. }
            | Self::Unavailable { .. }
            | Self::Broken { .. } => FailureCode::ServerError,
        }
    }

    /// Whether the same call may succeed later, and the pause the upstream asked for.
    pub(super) fn may_pass(&self) -> Option<Option<Duration>> {
        match self {
            Self::RateLimited {
                exhausted: false,
                retry_after,
                ..
            }
            | Self::Unavailable {
                passing: true,
                retry_after,
                ..
            } => Some(*retry_after),
            Self::RateLimited {
                exhausted: true, ..
            }
            | Self::Unavailable { passing: false, .. }
            | Self::ContextLength { .. }
            | Self::InvalidRequest { .. }
            | Self::Auth { .. }
            | Self::Broken { .. } => None,
        }
    }

    /// A short name for metrics and logs.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate_limited",
            Self::ContextLength { .. } => "context_length",
            Self::InvalidRequest { .. } => "invalid_request",
            Self::Auth { .. } => "auth",
            Self::Unavailable { .. } => "unavailable",
            Self::Broken { .. } => "broken",
        }
    }

    /// The connection was lost while the answer was being read.
    pub(super) fn disconnected() -> Self {
        Self::Unavailable {
            message: "The model server closed the connection before its answer was complete."
                .into(),
            retry_after: None,
            passing: true,
        }
    }

    /// The same error with a text that may be shown: without the key, where there is one to hide,
    /// and not too long. What the upstream said must have been classified before, since the key may
    /// be a part of any word in it.
    pub(super) fn for_clients(mut self, key: Option<&str>) -> Self {
        let (Self::RateLimited { message, .. }
        | Self::ContextLength { message, .. }
        | Self::InvalidRequest { message, .. }
        | Self::Auth { message }
        | Self::Unavailable { message, .. }
        | Self::Broken { message }) = &mut self;
        if let Some(key) = key {
            *message = message.replace(key, "***");
        }
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_LIMIT) {
            message.truncate(end);
        }
        self
    }

    pub(super) fn broken(what: impl Into<String>) -> Self {
        Self::Broken {
            message: what.into(),
        }
    }
}

/// The parts of an error object, whatever shape the server gave it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Detail {
    message: Option<String>,
    code: Option<String>,
    kind: Option<String>,
    param: Option<String>,
    limit: Option<u32>,
}

impl Detail {
    /// Reads an error body: an object in any of the usual shapes, or plain text.
    pub(super) fn from_body(body: &str) -> Self {
        match json_escapes::parse(body) {
            Ok(Value::Array(items)) => items.first().map(Self::from_json).unwrap_or_default(),
            Ok(json) => Self::from_json(&json),
            // A proxy's HTML page tells a client nothing.
            Err(_) if body.trim_start().starts_with('<') => Self::default(),
            Err(_) => Self {
                message: nonempty(body),
                ..Self::default()
            },
        }
    }

    /// Reads a JSON value that is an error object or holds one under `error`.
    pub(super) fn from_json(json: &Value) -> Self {
        let inner = match json.get("error") {
            Some(object @ Value::Object(_)) => object,
            Some(Value::String(text)) => {
                return Self {
                    message: nonempty(text),
                    ..Self::from_fields(json)
                };
            }
            Some(_) | None => json,
        };
        Self::from_fields(inner)
    }

    fn from_fields(object: &Value) -> Self {
        let text = |name: &str| match object.get(name) {
            Some(Value::String(text)) => nonempty(text),
            Some(Value::Number(number)) => Some(number.to_string()),
            // FastAPI lists its complaints in `detail`.
            Some(list @ (Value::Array(_) | Value::Object(_))) => Some(list.to_string()),
            Some(Value::Null | Value::Bool(_)) | None => None,
        };
        Self {
            message: text("message").or_else(|| text("detail")),
            code: text("code").or_else(|| text("status")),
            kind: text("type"),
            param: text("param"),
            limit: object
                .get("n_ctx")
                .and_then(Value::as_u64)
                .and_then(|n| n.try_into().ok()),
        }
    }

    /// The status that an error inside a stream stands for.
    fn implied_status(&self) -> StatusCode {
        let words = [self.code.as_deref(), self.kind.as_deref()];
        if let Some(status) = words
            .into_iter()
            .flatten()
            .find_map(|word| word.parse::<u16>().ok().filter(|status| *status >= 400))
            .and_then(|status| StatusCode::from_u16(status).ok())
        {
            return status;
        }
        let any = |needles: &[&str]| {
            words.into_iter().flatten().any(|word| {
                let word = word.to_ascii_lowercase();
                needles.iter().any(|needle| word.contains(needle))
            })
        };
        if any(&[
            "rate_limit",
            "quota",
            "too_many_requests",
            "resource_exhausted",
        ]) {
            StatusCode::TOO_MANY_REQUESTS
        } else if any(&[
            "invalid_request",
            "badrequest",
            "bad_request",
            "context",
            "content_filter",
        ]) {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }

    /// The error that an answer with this status and body is.
    pub(super) fn into_error(
        self,
        upstream: &str,
        status: StatusCode,
        retry_after: Option<Duration>,
    ) -> UpstreamError {
        let said = self.message.as_deref().unwrap_or_default();
        let has =
            |word: &str| self.code.as_deref() == Some(word) || self.kind.as_deref() == Some(word);
        let message = match nonempty(said) {
            Some(text) => text,
            None => format!(
                "The upstream `{upstream}` answered with status {}.",
                status.as_u16()
            ),
        };
        match status.as_u16() {
            429 => UpstreamError::RateLimited {
                exhausted: has("insufficient_quota"),
                message,
                retry_after,
            },
            _ if is_context_length(said)
                || has("context_length_exceeded")
                || has("exceed_context_size_error") =>
            {
                let limit = self.limit.or_else(|| context_limit(said));
                UpstreamError::ContextLength { message, limit }
            }
            401 | 403 => UpstreamError::Auth {
                message: format!(
                    "The upstream `{upstream}` refused this server's credentials (status {}).",
                    status.as_u16()
                ),
            },
            408 | 409 | 500.. => UpstreamError::Unavailable {
                message,
                retry_after,
                passing: !matches!(status.as_u16(), 501 | 505),
            },
            400.. => UpstreamError::InvalidRequest {
                status: status.as_u16(),
                code: self.code,
                param: self.param,
                message,
            },
            _ => UpstreamError::broken(format!(
                "The upstream `{upstream}` answered with status {}; its base URL may be wrong.",
                status.as_u16()
            )),
        }
    }

    /// The error that an error object inside a stream is.
    pub(super) fn into_stream_error(self) -> UpstreamError {
        let status = self.implied_status();
        match self.into_error("model server", status, None) {
            UpstreamError::Auth { .. } => UpstreamError::Auth {
                message: "The model server refused this server's credentials.".into(),
            },
            other => other,
        }
    }
}

/// How servers say that a prompt is too long; lower case.
/// OpenAI, vLLM, SGLang, llama.cpp, Ollama, LM Studio, LiteLLM, text-generation-inference,
/// Anthropic, Gemini, Groq, xAI, Bedrock, in no order.
const CONTEXT_LENGTH_PHRASES: [&str; 17] = [
    "maximum context length",
    "context_length_exceeded",
    "context length exceeded",
    "exceeds the available context size",
    "exceeds the context length",
    "exceeds the context window",
    "exceed context window",
    "longer than the model's context length",
    "greater than the context length",
    "reached context length",
    "contextwindowexceeded",
    "prompt is too long",
    "prompt too long",
    "maximum prompt length is",
    "input is too long",
    "exceeds the maximum number of tokens",
    "reduce the length of the messages",
];

fn is_context_length(message: &str) -> bool {
    let message = message.to_lowercase();
    CONTEXT_LENGTH_PHRASES.iter().any(|phrase| message.contains(phrase))
        // text-generation-inference: "`inputs` tokens + `max_new_tokens` must be <= 4096"
        || (message.contains("inputs") && message.contains("max_new_tokens` must be"))
}

fn context_limit(message: &str) -> Option<u32> {
    static LIMIT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"(?i)(?:context (?:length|size|window)|prompt length|number of tokens allowed)\D{0,24}(\d{2,9})",
        )
        .expect("a constant pattern")
    });
    LIMIT.captures(message)?.get(1)?.as_str().parse().ok()
}

fn nonempty(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
