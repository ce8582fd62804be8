//! Requests for model turns.

use std::sync::Arc;

use async_openai::types::chat::{
    ChatCompletionRequestMessage, ChatCompletionToolChoiceOption, ChatCompletionTools,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::error::UpstreamError;

/// A chat completion request as it is sent, apart from `model` and the stream options.
///
/// `docs/decisions/0014-chat-request-types.md` says why this is not async-openai's type.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ChatRequest {
    /// The name that the application uses; the route gives the one that is sent.
    pub model: String,
    pub messages: Vec<ChatCompletionRequestMessage>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ChatCompletionTools>,
    /// Other names by which models call these tools.
    #[serde(skip)]
    pub aliases: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ChatCompletionToolChoiceOption>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    /// An object with a `type`, passed on unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u32>,
}

impl ChatRequest {
    /// The body for the model with this name. It asks for a stream that ends with the usage.
    ///
    /// # Errors
    /// When a part of the request cannot be written as JSON.
    pub(super) fn body(&self, model: &str) -> Result<Value, UpstreamError> {
        let mut body =
            serde_json::to_value(self).map_err(|error| UpstreamError::InvalidRequest {
                status: 400,
                code: None,
                param: None,
                message: format!("The request to the model cannot be written as JSON: {error}."),
            })?;
        body["model"] = model.into();
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
        Ok(body)
    }
}

pub(super) fn set_model(body: &mut Arc<Value>, model: &str) {
    Arc::make_mut(body)["model"] = Value::String(model.to_owned());
}
