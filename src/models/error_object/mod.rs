//! Error objects of model servers, and their classification.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use reqwest::StatusCode;
use serde_json::Value;

use super::error::UpstreamError;
use crate::domain::json_escapes;

/// The fields of an error object, from any of the shapes that servers use.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ErrorObject {
    message: Option<String>,
    code: Option<String>,
    kind: Option<String>,
    param: Option<String>,
    limit: Option<u32>,
}

impl ErrorObject {
    pub(super) fn from_body(body: &str) -> Self {
        match json_escapes::parse(body) {
            Ok(Value::Array(items)) => items.first().map(Self::from_json).unwrap_or_default(),
            Ok(json) => Self::from_json(&json),
            // The HTML page of a proxy is of no use to a client.
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
            // FastAPI puts a list of errors in `detail`.
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

    /// The status that an error inside a stream would have had as a response.
    fn implied_status(&self) -> StatusCode {
        let labels = [self.code.as_deref(), self.kind.as_deref()];
        if let Some(status) = labels
            .into_iter()
            .flatten()
            .find_map(|label| label.parse::<u16>().ok().filter(|status| *status >= 400))
            .and_then(|status| StatusCode::from_u16(status).ok())
        {
            return status;
        }
        let any = |needles: &[&str]| {
            labels.into_iter().flatten().any(|label| {
                let label = label.to_ascii_lowercase();
                needles.iter().any(|needle| label.contains(needle))
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

    pub(super) fn into_error(
        self,
        upstream: &str,
        status: StatusCode,
        retry_after: Option<Duration>,
    ) -> UpstreamError {
        let text = self.message.as_deref().unwrap_or_default();
        let has_label = |label: &str| {
            [&self.code, &self.kind]
                .into_iter()
                .flatten()
                .any(|it| it == label)
        };
        let message = match nonempty(text) {
            Some(text) => text,
            None => format!(
                "The upstream `{upstream}` answered with status {}.",
                status.as_u16()
            ),
        };
        match status.as_u16() {
            429 => UpstreamError::RateLimited {
                is_quota_exhausted: has_label("insufficient_quota"),
                message,
                retry_after,
            },
            _ if is_context_length(text)
                || has_label("context_length_exceeded")
                || has_label("exceed_context_size_error") =>
            {
                let limit = self.limit.or_else(|| context_limit(text));
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
                is_transient: !matches!(status.as_u16(), 501 | 505),
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

/// Phrases of servers for a prompt that is too long, in lower case:
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
        .expect("the expression is a constant that the tests use")
    });
    LIMIT.captures(message)?.get(1)?.as_str().parse().ok()
}

fn nonempty(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
