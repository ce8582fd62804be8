//! The request of a model turn.

use async_openai::types::chat::{
    ChatCompletionRequestMessage, ChatCompletionToolChoiceOption, ChatCompletionTools,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::error::UpstreamError;

/// A chat completion request, which is sent as it stands. The request type of async-openai rounds
/// numbers to `f32` and knows neither every response format nor every reasoning effort.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ChatRequest {
    /// The name that the model has here; it is sent under the name that its route gives it.
    pub model: String,
    /// The conversation.
    pub messages: Vec<ChatCompletionRequestMessage>,
    /// The functions that the model may call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ChatCompletionTools>,
    /// Names by which models call these functions besides their own.
    #[serde(skip)]
    pub aliases: Vec<&'static str>,
    /// Which of them it must call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ChatCompletionToolChoiceOption>,
    /// Whether it may call several at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// 0 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// How long a reasoning model may think.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    /// The form of the answer: an object with a `type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// Most tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u32>,
}

impl ChatRequest {
    /// The body for the model of this name, which asks for a stream that ends with the usage.
    ///
    /// # Errors
    /// When a part of the request has no form in JSON.
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
