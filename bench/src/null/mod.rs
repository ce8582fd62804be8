//! An in-memory server with the part of the Assistants API that the benchmark needs.
//!
//! It validates nothing, persists nothing and deletes nothing. Its cost is that of the protocol and of
//! the load generator, so a real server's figures are read as multiples of these.

mod drive;
mod objects;

use crate::http::Http;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

struct Assistant {
    model: String,
    /// The tools as JSON text, returned and forwarded unchanged.
    tools: String,
}

struct Message {
    id: String,
    role: &'static str,
    text: String,
    run: Option<String>,
}

type Messages = Arc<Mutex<Vec<Message>>>;

struct Run {
    id: String,
    thread: String,
    assistant_id: String,
    assistant: Arc<Assistant>,
    messages: Messages,
    progress: Mutex<Progress>,
}

struct Progress {
    status: &'static str,
    call: Option<Call>,
    /// The steps so far, as JSON.
    steps: Vec<String>,
}

/// A function call and its output.
#[derive(Clone)]
struct Call {
    id: String,
    name: String,
    arguments: String,
    output: Option<String>,
}

struct Memory {
    upstream: Http,
    last_id: AtomicU64,
    assistants: RwLock<HashMap<String, Arc<Assistant>>>,
    threads: RwLock<HashMap<String, Messages>>,
    runs: RwLock<HashMap<String, Arc<Run>>>,
}

impl Memory {
    fn new_id(&self, prefix: &str) -> String {
        let number = self.last_id.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}_{number:024}")
    }

    fn add_message(&self, messages: &Messages, new: NewMessage) -> (String, String) {
        let id = self.new_id("msg");
        let text = new.content;
        messages.lock().push(Message {
            id: id.clone(),
            role: "user",
            text: text.clone(),
            run: None,
        });
        (id, text)
    }

    fn find_run(&self, id: &str) -> Result<Arc<Run>, Refused> {
        self.runs.read().get(id).cloned().ok_or(Refused::Missing)
    }

    fn find_thread(&self, id: &str) -> Result<Messages, Refused> {
        self.threads.read().get(id).cloned().ok_or(Refused::Missing)
    }
}

/// Why a request is refused.
enum Refused {
    /// It names something that was never made.
    Missing,
    Malformed(serde_json::Error),
}

impl From<serde_json::Error> for Refused {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Missing => (StatusCode::NOT_FOUND, "no such object").into_response(),
            Self::Malformed(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        }
    }
}

/// The routes; runs call the model behind `upstream`.
pub(crate) fn router(upstream: Http) -> Router {
    let memory = Memory {
        upstream,
        last_id: AtomicU64::new(0),
        assistants: RwLock::default(),
        threads: RwLock::default(),
        runs: RwLock::default(),
    };
    let runs = "/v1/threads/{thread}/runs";
    Router::new()
        .route("/v1/assistants", post(create_assistant))
        .route("/v1/threads", post(create_thread))
        .route(
            "/v1/threads/{thread}/messages",
            post(create_message).get(list_messages),
        )
        .route(runs, post(create_run))
        .route(&format!("{runs}/{{run}}"), get(retrieve_run))
        .route(
            &format!("{runs}/{{run}}/submit_tool_outputs"),
            post(submit_tool_outputs),
        )
        .route(&format!("{runs}/{{run}}/steps"), get(list_steps))
        .with_state(Arc::new(memory))
}

fn json(body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.into()).into_response()
}

#[derive(Deserialize)]
struct NewAssistant {
    model: String,
    tools: Option<Box<RawValue>>,
}

async fn create_assistant(
    State(memory): State<Arc<Memory>>,
    body: Bytes,
) -> Result<Response, Refused> {
    let new: NewAssistant = serde_json::from_slice(&body)?;
    let id = memory.new_id("asst");
    let tools = new
        .tools
        .map_or("[]".to_owned(), |raw| raw.get().to_owned());
    let shown = objects::assistant(&id, &new.model, &tools);
    let assistant = Assistant {
        model: new.model,
        tools,
    };
    memory.assistants.write().insert(id, Arc::new(assistant));
    Ok(json(shown))
}

#[derive(Deserialize)]
struct NewMessage {
    content: String,
}

#[derive(Deserialize, Default)]
struct NewThread {
    #[serde(default)]
    messages: Vec<NewMessage>,
}

async fn create_thread(
    State(memory): State<Arc<Memory>>,
    body: Bytes,
) -> Result<Response, Refused> {
    let new: NewThread = serde_json::from_slice(&body)?;
    let messages = Messages::default();
    for message in new.messages {
        memory.add_message(&messages, message);
    }
    let id = memory.new_id("thread");
    let shown = objects::thread(&id);
    memory.threads.write().insert(id, messages);
    Ok(json(shown))
}

async fn create_message(
    State(memory): State<Arc<Memory>>,
    Path(thread): Path<String>,
    body: Bytes,
) -> Result<Response, Refused> {
    let new: NewMessage = serde_json::from_slice(&body)?;
    let messages = memory.find_thread(&thread)?;
    let (id, text) = memory.add_message(&messages, new);
    Ok(json(objects::message(&thread, &id, "user", &text, None)))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default = "Page::default_limit")]
    limit: usize,
}

impl Page {
    fn default_limit() -> usize {
        20
    }
}

async fn list_messages(
    State(memory): State<Arc<Memory>>,
    Path(thread): Path<String>,
    Query(page): Query<Page>,
) -> Result<Response, Refused> {
    let messages = memory.find_thread(&thread)?;
    let messages = messages.lock();
    let newest_first = messages.iter().rev().take(page.limit);
    let shown = newest_first.map(|m| {
        let run = m.run.as_deref();
        objects::message(&thread, &m.id, m.role, &m.text, run)
    });
    Ok(json(objects::list(shown, messages.len() > page.limit)))
}

#[derive(Deserialize)]
struct NewRun {
    assistant_id: String,
    #[serde(default)]
    stream: bool,
}

async fn create_run(
    State(memory): State<Arc<Memory>>,
    Path(thread): Path<String>,
    body: Bytes,
) -> Result<Response, Refused> {
    let new: NewRun = serde_json::from_slice(&body)?;
    let assistant = memory.assistants.read().get(&new.assistant_id).cloned();
    let assistant = assistant.ok_or(Refused::Missing)?;
    let messages = memory.find_thread(&thread)?;
    let run = Arc::new(Run {
        id: memory.new_id("run"),
        thread,
        assistant_id: new.assistant_id,
        assistant,
        messages,
        progress: Mutex::new(Progress {
            status: "queued",
            call: None,
            steps: Vec::new(),
        }),
    });
    memory.runs.write().insert(run.id.clone(), run.clone());
    let shown = objects::run(&run);
    Ok(start(memory, run, new.stream, shown))
}

/// Drives the run in the background and answers with its events or, unless `stream`, with `shown`.
fn start(memory: Arc<Memory>, run: Arc<Run>, stream: bool, shown: String) -> Response {
    if !stream {
        tokio::spawn(drive::drive(memory, run, None));
        return json(shown);
    }
    #[expect(clippy::disallowed_methods, reason = "holds the events of one run")]
    let (events, received) = mpsc::unbounded_channel();
    tokio::spawn(drive::drive(memory, run, Some(events)));
    let body = UnboundedReceiverStream::new(received).map(Ok::<Bytes, Infallible>);
    let content_type = (CONTENT_TYPE, "text/event-stream; charset=utf-8");
    ([content_type], Body::from_stream(body)).into_response()
}

async fn retrieve_run(
    State(memory): State<Arc<Memory>>,
    Path((_, run)): Path<(String, String)>,
) -> Result<Response, Refused> {
    Ok(json(objects::run(&*memory.find_run(&run)?)))
}

#[derive(Deserialize)]
struct Outputs {
    tool_outputs: Vec<Output>,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize)]
struct Output {
    output: String,
}

async fn submit_tool_outputs(
    State(memory): State<Arc<Memory>>,
    Path((_, run)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Refused> {
    let outputs: Outputs = serde_json::from_slice(&body)?;
    let run = memory.find_run(&run)?;
    {
        let mut progress = run.progress.lock();
        progress.status = "queued";
        if let Some(call) = &mut progress.call {
            call.output = outputs.tool_outputs.into_iter().next().map(|o| o.output);
        }
    }
    let shown = objects::run(&run);
    Ok(start(memory, run, outputs.stream, shown))
}

async fn list_steps(
    State(memory): State<Arc<Memory>>,
    Path((_, run)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let run = memory.find_run(&run)?;
    let progress = run.progress.lock();
    let newest_first = progress.steps.iter().rev().cloned();
    Ok(json(objects::list(newest_first, false)))
}
