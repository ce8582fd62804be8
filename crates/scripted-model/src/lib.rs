//! The scripted model: answers by rules instead of weights, inside the process.
//!
//! It speaks the wire protocol of a model server, so that its answers and its faults take the same
//! way through this crate as those of a real one. `docs/scripted-model.md` tells how to write a
//! script.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;
use serde_json::Value;

use super::Answer;
use super::Endpoint;
use super::error::SetupError;
use super::tokens;

mod decide;
mod embeddings;
mod file;
mod generate;
mod hints;
mod mention;
mod prompt;
mod quotes;
mod reply;
mod script;
mod template;

use decide::Decision;
use file::HttpErrorFile;
use prompt::Prompt;
use reply::Reply;
use script::Script;

/// The name of the scripted model among the upstreams.
pub(super) const UPSTREAM: &str = "scripted";
/// What the names of scripted models begin with.
pub(super) const PREFIX: &str = "scripted/";
/// The model that answers when no upstream is configured.
pub(super) const DEFAULT_MODEL: &str = "scripted/default";

const BUNDLED_SCRIPT: &str = include_str!("default.yaml");
/// How many counted faults are remembered; beyond it all counts begin anew.
const FAULT_COUNTS_LIMIT: usize = 10_000;

#[derive(Clone)]
pub(super) struct Scripted {
    inner: Arc<Inner>,
}

struct Inner {
    script: Script,
    faults: Mutex<HashMap<FaultKey, u32>>,
    source: String,
}

/// What a fault is counted by.
#[derive(PartialEq, Eq, Hash)]
struct FaultKey {
    model: String,
    rule: usize,
    key: String,
}

impl Scripted {
    /// Reads the script at `path` on top of the bundled one, whose models it may replace.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, SetupError> {
        let Some(path) = path else {
            return Self::parse("", "the bundled script");
        };
        let source = format!("the script {}", path.display());
        let yaml = std::fs::read_to_string(path)
            .map_err(|error| SetupError(format!("{source} cannot be read: {error}")))?;
        Self::parse(&yaml, &source)
    }

    fn parse(yaml: &str, source: &str) -> Result<Self, SetupError> {
        let wrong = |reason| SetupError(format!("{source}: {reason}"));
        let mut script = script::parse(BUNDLED_SCRIPT).map_err(wrong)?;
        if !yaml.is_empty() {
            script.extend(script::parse(yaml).map_err(wrong)?);
        }
        let source = source.to_owned();
        Ok(Self {
            inner: Arc::new(Inner {
                script,
                faults: Mutex::default(),
                source,
            }),
        })
    }

    pub(super) fn model_names(&self) -> impl Iterator<Item = String> {
        self.inner
            .script
            .keys()
            .map(|name| format!("{PREFIX}{name}"))
    }

    pub(super) fn context_window(&self, model: &str) -> Option<u32> {
        self.inner.model(model)?.context_window
    }

    pub(super) fn describe(&self) -> String {
        format!("{}; models: {}", self.inner.source, self.inner.script.len())
    }

    /// Answers a request as a server would.
    pub(super) async fn send(&self, endpoint: Endpoint, request: Arc<Value>) -> Answer {
        let inner = Arc::clone(&self.inner);
        // Counting tokens takes a while, the first time above all.
        let work = tokio::task::spawn_blocking(move || inner.answer(endpoint, &request));
        work.await.unwrap_or_else(|_| {
            error(&HttpErrorFile {
                status: 500,
                message: Some("The scripted model failed.".into()),
                kind: None,
                code: None,
                retry_after: None,
            })
        })
    }
}

impl Inner {
    fn model(&self, name: &str) -> Option<&script::ScriptedModel> {
        self.script.get(name.strip_prefix(PREFIX).unwrap_or(name))
    }

    fn answer(&self, endpoint: Endpoint, request: &Value) -> Answer {
        let answer = match endpoint {
            Endpoint::Chat => self.chat(request),
            Endpoint::Embeddings => embeddings::answer(request)
                .map(json_answer)
                .map_err(bad_request),
            Endpoint::Rerank => Err(not_served("The scripted model does not rerank.")),
            Endpoint::Responses => Err(not_served(
                "The scripted model does not serve the Responses API. Name a model of an upstream \
                 that does.",
            )),
        };
        answer.unwrap_or_else(|refused| error(&refused))
    }

    fn chat(&self, request: &Value) -> Result<Answer, HttpErrorFile> {
        let prompt = Prompt::read(request).map_err(bad_request)?;
        let model = self.model(&prompt.model).ok_or_else(|| HttpErrorFile {
            status: 404,
            message: Some(format!("The model '{}' does not exist", prompt.model)),
            kind: Some("invalid_request_error".into()),
            code: Some("model_not_found".into()),
            retry_after: None,
        })?;
        let prompt_tokens = tokens::count_request(&prompt.model, request);
        let fires = |rule: usize, key: String, times: u32| {
            self.fires(
                FaultKey {
                    model: prompt.model.clone(),
                    rule,
                    key,
                },
                times,
            )
        };
        match decide::decide(model, &prompt, prompt_tokens, &fires) {
            Decision::Error(refused) => Err(refused),
            Decision::Answer {
                answer,
                pace,
                broken,
            } => {
                let reply = Reply::new(answer, &prompt, prompt_tokens, pace, broken);
                let (kind, body) = if prompt.stream {
                    ("text/event-stream", reply.stream())
                } else {
                    ("application/json", reply.document())
                };
                Ok(Answer {
                    status: StatusCode::OK,
                    headers: content_type(kind),
                    body,
                })
            }
        }
    }

    /// Counts a fault that is to happen so many times, and says whether this is one of them.
    fn fires(&self, key: FaultKey, times: u32) -> bool {
        let mut counts = self.faults.lock();
        if counts.len() >= FAULT_COUNTS_LIMIT && !counts.contains_key(&key) {
            counts.clear();
        }
        let count = counts.entry(key).or_default();
        let fires = *count < times;
        *count = count.saturating_add(1);
        fires
    }
}

fn not_served(message: &str) -> HttpErrorFile {
    HttpErrorFile {
        status: 404,
        message: Some(message.to_owned()),
        kind: Some("invalid_request_error".into()),
        code: None,
        retry_after: None,
    }
}

fn bad_request(message: String) -> HttpErrorFile {
    HttpErrorFile {
        status: 400,
        message: Some(message),
        kind: Some("invalid_request_error".into()),
        code: None,
        retry_after: None,
    }
}

fn json_answer(body: Value) -> Answer {
    Answer {
        status: StatusCode::OK,
        headers: content_type("application/json"),
        body: stream::iter([Ok(body.to_string().into())]).boxed(),
    }
}

fn error(error: &HttpErrorFile) -> Answer {
    let mut answer = json_answer(decide::error_body(error));
    answer.status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(pause) = error.retry_after {
        let milliseconds = HeaderValue::from(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        answer
            .headers
            .insert(HeaderName::from_static("retry-after-ms"), milliseconds);
        let seconds = HeaderValue::from(pause.as_secs_f64().ceil() as u64);
        answer.headers.insert(reqwest::header::RETRY_AFTER, seconds);
    }
    answer
}

fn content_type(kind: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
}

#[cfg(test)]
mod tests;
