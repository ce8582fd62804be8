//! Error answers.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpError {
    pub(crate) status: u16,
    message: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    #[serde(default, deserialize_with = "crate::duration::optional")]
    pub(crate) retry_after: Option<Duration>,
}

impl HttpError {
    pub(crate) fn bad_request(message: String) -> Self {
        Self {
            status: 400,
            message: Some(message),
            kind: None,
            code: None,
            retry_after: None,
        }
    }

    pub(crate) fn model_not_found(model: &str) -> Self {
        Self {
            status: 404,
            code: Some("model_not_found".into()),
            ..Self::bad_request(format!("The model '{model}' does not exist"))
        }
    }

    pub(crate) fn no_rule(model: &str) -> Self {
        let message = format!("No rule of the scripted model `{model}` fits this request.");
        Self {
            code: Some("no_rule".into()),
            ..Self::bad_request(message)
        }
    }

    pub(crate) fn context_length(limit: u32, tokens: u32) -> Self {
        let message = format!(
            "This model's maximum context length is {limit} tokens. However, your messages \
             resulted in {tokens} tokens. Please reduce the length of the messages."
        );
        Self {
            code: Some("context_length_exceeded".into()),
            ..Self::bad_request(message)
        }
    }

    /// The body of the answer: OpenAI's error object.
    pub(crate) fn body(&self) -> Value {
        let status = self.status;
        let kind = self.kind.as_deref().unwrap_or(match status {
            429 => "requests",
            500.. => "server_error",
            _ => "invalid_request_error",
        });
        let code = self.code.as_deref();
        let code = code.or((status == 429).then_some("rate_limit_exceeded"));
        let message = self
            .message
            .clone()
            .unwrap_or_else(|| format!("The scripted model answers with status {status} here."));
        json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
    }
}
