//! The scripted model: answers by rules instead of weights, inside the process.
//!
//! It speaks the wire protocol of a model server, so that its answers and its faults take the same
//! way through this crate as those of a real one.

use std::path::Path;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderValue;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::Endpoint;
use super::error::SetupError;
use super::tokens;

/// The name of the scripted model among the upstreams.
pub(super) const UPSTREAM: &str = "scripted";
/// What the names of scripted models begin with.
pub(super) const PREFIX: &str = "scripted/";
/// The model that answers when no upstream is configured.
pub(super) const DEFAULT_MODEL: &str = "scripted/default";

pub(super) struct Scripted {}

impl Scripted {
    pub(super) fn load(_path: Option<&Path>) -> Result<Self, SetupError> {
        Ok(Self {})
    }

    pub(super) fn model_names(&self) -> impl Iterator<Item = String> {
        [DEFAULT_MODEL.to_owned()].into_iter()
    }

    pub(super) fn describe(&self) -> String {
        "the bundled script".to_owned()
    }

    pub(super) async fn send(&self, _endpoint: Endpoint, body: &Value) -> Answer {
        let last = body["messages"]
            .as_array()
            .and_then(|messages| messages.last());
        let role = last.map_or("", |message| message["role"].as_str().unwrap_or_default());
        let tool = body["tools"][0]["function"]["name"]
            .as_str()
            .filter(|_| role == "user");
        let prompt = tokens::count_request(DEFAULT_MODEL, body);
        let words = "I am the scripted model of assistd; no upstream is configured.";
        let mut chunks: Vec<Value> = match tool {
            Some(name) => vec![json!({"choices": [{"index": 0, "delta": {"tool_calls": [
                {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": "{}"}}
            ]}, "finish_reason": null}]})],
            None => words
                .split_inclusive(' ')
                .map(|word| json!({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}]}))
                .collect(),
        };
        let reason = if tool.is_some() { "tool_calls" } else { "stop" };
        let completion = chunks.len();
        chunks.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}));
        chunks.push(json!({"choices": [], "usage": {"prompt_tokens": prompt,
            "completion_tokens": completion, "total_tokens": prompt as usize + completion}}));
        let lines = chunks
            .into_iter()
            .map(|chunk| format!("data: {chunk}\n\n"))
            .chain(["data: [DONE]\n\n".to_owned()]);
        let lines: Vec<_> = lines.map(|line| Ok(Bytes::from(line))).collect();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Answer {
            status: StatusCode::OK,
            headers,
            body: stream::iter(lines).boxed(),
        }
    }
}
