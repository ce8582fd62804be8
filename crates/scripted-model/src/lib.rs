//! A Chat Completions model that answers by rules instead of weights: for tests, and for a start
//! without an API key.
//!
//! [`ScriptedModels`] reads a YAML script. It takes the JSON of a chat completion or embeddings
//! request and returns a [`Response`]: the status, headers and body that a model server would send
//! over HTTP, with the faults that the script asks for. `docs/scripted-model.md` describes scripts.
//!
//! The same request gets the same answer, apart from ids, times and counted faults.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use serde_json::Value;

mod answer;
mod decide;
mod duration;
mod embeddings;
mod generate;
mod http_error;
mod mentioned;
mod message_values;
mod prompt;
mod quotes;
mod reply;
mod script;
mod template;
mod tokens;
mod words;
mod yaml;

pub use reply::ConnectionLost;

use decide::decide;
use http_error::HttpError;
use prompt::Prompt;
use reply::Reply;
use script::{Model, Script};

/// The prefix of model names in requests: the model `weather` of a script is `scripted/weather`.
pub const PREFIX: &str = "scripted/";
pub const DEFAULT_MODEL: &str = "scripted/default";
pub const BUNDLED_SCRIPT: &str = include_str!("default.yaml");

/// Maximum number of fault counters, whose keys come from requests; beyond it all are reset.
const MAX_FAULT_COUNTERS: usize = 10_000;

/// A script that cannot be used; the text names the place and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ScriptError(String);

/// The models of a script. Cheap to clone; clones count faults together.
#[derive(Clone)]
pub struct ScriptedModels {
    inner: Arc<Inner>,
}

struct Inner {
    script: Script,
    source: String,
    fault_counters: Mutex<HashMap<FaultCounter, u32>>,
}

#[derive(PartialEq, Eq, Hash)]
struct FaultCounter {
    model: String,
    rule: usize,
    key: String,
}

pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub retry_after: Option<Duration>,
    /// The body. An error stands for a connection that is lost.
    pub body: BoxStream<'static, Result<Bytes, ConnectionLost>>,
}

impl ScriptedModels {
    /// Reads the script at `path` in addition to the bundled one, whose models it may replace.
    ///
    /// # Errors
    /// When the file cannot be read or its script is not valid.
    pub fn load(path: Option<&Path>) -> Result<Self, ScriptError> {
        let Some(path) = path else {
            return Self::parse("models: {}", "the bundled script");
        };
        let source = format!("the script {}", path.display());
        let yaml = std::fs::read_to_string(path)
            .map_err(|error| ScriptError(format!("{source} cannot be read: {error}")))?;
        Self::parse(&yaml, &source)
    }

    /// As [`Self::load`], with the text of the script; `source` names it in errors.
    ///
    /// # Errors
    /// When the script is not valid.
    pub fn parse(yaml: &str, source: &str) -> Result<Self, ScriptError> {
        let invalid = |reason| ScriptError(format!("{source}: {reason}"));
        let mut script = script::parse(BUNDLED_SCRIPT).map_err(invalid)?;
        script.extend(script::parse(yaml).map_err(invalid)?);
        Ok(Self {
            inner: Arc::new(Inner {
                script,
                source: source.to_owned(),
                fault_counters: Mutex::default(),
            }),
        })
    }

    pub fn model_names(&self) -> impl Iterator<Item = String> {
        let names = self.inner.script.keys();
        names.map(|name| format!("{PREFIX}{name}"))
    }

    pub fn context_window(&self, model: &str) -> Option<u32> {
        self.inner.model(model)?.context_window
    }

    pub fn describe(&self) -> String {
        format!("{}; models: {}", self.inner.source, self.inner.script.len())
    }

    /// Answers a chat completion request, streamed or not.
    ///
    /// `prompt_tokens` is reported as usage and compared with context windows. This counts the
    /// tokens of the answer, which takes 0.2 s the first time: call it on a blocking thread.
    pub fn chat(&self, request: &Value, prompt_tokens: u32) -> Response {
        let reply = match self.inner.reply(request, prompt_tokens) {
            Ok(reply) => reply,
            Err(error) => return error_response(&error),
        };
        let (content_type, body) = if reply.is_streamed() {
            ("text/event-stream", reply.into_event_stream())
        } else {
            ("application/json", reply.into_document())
        };
        Response {
            status: 200,
            content_type,
            retry_after: None,
            body,
        }
    }

    /// Answers an embeddings request. Counts tokens, as [`Self::chat`] does.
    pub fn embeddings(&self, request: &Value) -> Response {
        match embeddings::answer(request) {
            Ok(body) => json_response(200, &body),
            Err(message) => error_response(&HttpError::bad_request(message)),
        }
    }
}

impl Inner {
    fn model(&self, name: &str) -> Option<&Model> {
        self.script.get(name.strip_prefix(PREFIX).unwrap_or(name))
    }

    fn reply(&self, request: &Value, prompt_tokens: u32) -> Result<Reply, HttpError> {
        let prompt = Prompt::read(request).map_err(HttpError::bad_request)?;
        let model = self
            .model(&prompt.model)
            .ok_or_else(|| HttpError::model_not_found(&prompt.model))?;
        let counter = |rule, key| FaultCounter {
            model: prompt.model.clone(),
            rule,
            key,
        };
        let is_fault_due = |rule, key, times| self.count_fault(counter(rule, key)) < times;
        let decision = decide(model, &prompt, prompt_tokens, &is_fault_due)?;
        Ok(Reply::new(decision, &prompt, prompt_tokens))
    }

    /// Counts one more occurrence; returns the number of those before it.
    fn count_fault(&self, counter: FaultCounter) -> u32 {
        let mut counters = self.fault_counters.lock();
        if counters.len() >= MAX_FAULT_COUNTERS && !counters.contains_key(&counter) {
            counters.clear();
        }
        let count = counters.entry(counter).or_default();
        let before = *count;
        *count = before.saturating_add(1);
        before
    }
}

fn json_response(status: u16, body: &Value) -> Response {
    Response {
        status,
        content_type: "application/json",
        retry_after: None,
        body: stream::iter([Ok(body.to_string().into())]).boxed(),
    }
}

fn error_response(error: &HttpError) -> Response {
    Response {
        retry_after: error.retry_after,
        ..json_response(error.status, &error.body())
    }
}
