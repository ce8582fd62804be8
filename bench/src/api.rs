//! The calls of the Assistants API that the load is made of.
//!
//! Answers are searched, not parsed: what this process does not spend is left for the server.

use crate::clock;
use crate::http::CallError;
use crate::http::Http;
use crate::http::transport;
use crate::lines::Lines;
use crate::stamp;
use crate::stamp::Stamp;
use crate::upstream::Pace;
use bytes::Bytes;
use http_body_util::BodyExt;
use memchr::memmem;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::sleep;

/// A question of ordinary length.
const QUESTION: &str = "Which month of the last year had the highest revenue, and by how much did it \
                        beat the month before it? Please answer in one short paragraph.";

/// A client of one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) http: Http,
}

/// Where a run stands, as far as a caller must tell statuses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Not ended, and nothing to do for the caller.
    Active,
    RequiresAction,
    Completed,
    /// Ended in any other way.
    Ended,
}

/// What an assistant may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    None,
    Function,
    /// `code_interpreter`.
    Code,
}

/// All events of a stream, as they came.
pub(crate) struct Events(Bytes);

impl Events {
    /// Makes sure that an event of this name came.
    pub(crate) fn expect(&self, name: &str) -> Result<(), CallError> {
        self.expect_text(&format!("event: {name}\n"))
    }

    /// Makes sure that this text came.
    pub(crate) fn expect_text(&self, text: &str) -> Result<(), CallError> {
        match memmem::find(&self.0, text.as_bytes()) {
            Some(_) => Ok(()),
            None => Err(missing(text, &self.0[self.0.len().saturating_sub(300)..])),
        }
    }
}

/// What a streamed run looked like from here; times as [`clock::now_ns`].
pub(crate) struct Streamed {
    /// When the request was sent.
    pub(crate) posted: u64,
    /// When the request for the answer had arrived at the upstream.
    pub(crate) arrived: u64,
    /// When the upstream sent the first token.
    pub(crate) first_sent: u64,
    /// When the first token was seen here.
    pub(crate) first_seen: u64,
    /// How many messages the upstream was given.
    pub(crate) messages: u64,
    /// When the upstream sent the last token.
    pub(crate) last_sent: u64,
    /// When the stream's last event was seen here.
    pub(crate) end_seen: u64,
    /// Milliseconds from the upstream to here, for each token but the first.
    pub(crate) token_delays: Vec<f64>,
}

impl Streamed {
    /// Milliseconds to the first token beyond what the upstream took.
    pub(crate) fn added_to_first(&self) -> f64 {
        clock::ms_between(self.posted, self.first_seen)
            - clock::ms_between(self.arrived, self.first_sent)
    }

    /// Milliseconds from the upstream's last token to the end of the stream.
    pub(crate) fn end_delay(&self) -> f64 {
        clock::ms_between(self.last_sent, self.end_seen)
    }

    /// Milliseconds from the request to the moment the upstream was called.
    pub(crate) fn before_upstream(&self) -> f64 {
        clock::ms_between(self.posted, self.arrived)
    }
}

impl Api {
    /// Creates an assistant that answers at `pace`; gives its id.
    pub(crate) async fn create_assistant(
        &self,
        pace: Pace,
        tool: Tool,
    ) -> Result<String, CallError> {
        let tool = match tool {
            Tool::None => "",
            Tool::Function => {
                r#"{"type":"function","function":{"name":"get_weather","description":"The weather in a city.","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}"#
            }
            Tool::Code => r#"{"type":"code_interpreter"}"#,
        };
        let body = format!(
            r#"{{"model":"{pace}","instructions":"You are a helpful analyst.","tools":[{tool}]}}"#
        );
        id(&self.http.post("/v1/assistants", body).await?)
    }

    pub(crate) async fn create_thread(&self) -> Result<String, CallError> {
        id(&self.http.post("/v1/threads", "{}").await?)
    }

    /// Creates a thread with one question in it.
    pub(crate) async fn create_thread_with_question(&self) -> Result<String, CallError> {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{QUESTION}"}}]}}"#);
        id(&self.http.post("/v1/threads", body).await?)
    }

    pub(crate) async fn add_message(&self, thread: &str) -> Result<String, CallError> {
        let path = format!("/v1/threads/{thread}/messages");
        let body = format!(r#"{{"role":"user","content":"{QUESTION}"}}"#);
        id(&self.http.post(&path, body).await?)
    }

    /// Lists the newest messages of a thread.
    pub(crate) async fn list_messages(
        &self,
        thread: &str,
        limit: usize,
    ) -> Result<Bytes, CallError> {
        let path = format!("/v1/threads/{thread}/messages?limit={limit}");
        self.http.get(&path).await
    }

    pub(crate) async fn list_steps(&self, thread: &str, run: &str) -> Result<Bytes, CallError> {
        let path = format!("/v1/threads/{thread}/runs/{run}/steps");
        self.http.get(&path).await
    }

    pub(crate) async fn create_run(
        &self,
        thread: &str,
        assistant: &str,
    ) -> Result<String, CallError> {
        let path = format!("/v1/threads/{thread}/runs");
        let body = format!(r#"{{"assistant_id":"{assistant}"}}"#);
        id(&self.http.post(&path, body).await?)
    }

    pub(crate) async fn run_status(&self, thread: &str, run: &str) -> Result<Status, CallError> {
        let path = format!("/v1/threads/{thread}/runs/{run}");
        status(&self.http.get(&path).await?)
    }

    /// Polls a run until it stands at `wanted`.
    ///
    /// The gap between two polls is at most 30 % of the run's age, and at least a millisecond.
    pub(crate) async fn wait_for(
        &self,
        wanted: Status,
        thread: &str,
        run: &str,
    ) -> Result<Bytes, CallError> {
        let path = format!("/v1/threads/{thread}/runs/{run}");
        let start = Instant::now();
        loop {
            let body = self.http.get(&path).await?;
            match status(&body)? {
                found if found == wanted => return Ok(body),
                Status::Active => {}
                found => {
                    let text = format!("run {run} is {found:?}, not {wanted:?}");
                    return Err(CallError::Protocol(text));
                }
            }
            let gap = start.elapsed().mul_f64(0.3);
            sleep(gap.clamp(Duration::from_millis(1), Duration::from_secs(1))).await;
        }
    }

    /// Answers the only call of a run that requires action; `run` is the run's JSON.
    pub(crate) async fn submit(&self, thread: &str, run: &[u8]) -> Result<(), CallError> {
        let (path, body) = submission(thread, run, false)?;
        self.http.post(&path, body).await.map(|_| ())
    }

    /// Starts a run and reads its events to the end.
    pub(crate) async fn run_events(
        &self,
        thread: &str,
        assistant: &str,
    ) -> Result<Events, CallError> {
        let path = format!("/v1/threads/{thread}/runs");
        let body = format!(r#"{{"assistant_id":"{assistant}","stream":true}}"#);
        Ok(Events(self.http.post(&path, body).await?))
    }

    /// Answers the only call of a run that requires action, by its events, and reads those that
    /// follow to the end.
    pub(crate) async fn submit_for_events(
        &self,
        thread: &str,
        events: &Events,
    ) -> Result<Events, CallError> {
        let run = after(&events.0, b"event: thread.run.requires_action\n");
        let run = run.ok_or_else(|| missing("a call", &events.0))?;
        let (path, body) = submission(thread, run, true)?;
        Ok(Events(self.http.post(&path, body).await?))
    }

    /// Starts a run and reads its events to the end. `seen` grows by one with every token.
    ///
    /// A stream that ends in any other way than `completed`, or lacks a token, is an error.
    pub(crate) async fn stream_run(
        &self,
        thread: &str,
        assistant: &str,
        pace: Pace,
        seen: &AtomicU64,
    ) -> Result<Streamed, CallError> {
        let path = format!("/v1/threads/{thread}/runs");
        let body = format!(r#"{{"assistant_id":"{assistant}","stream":true}}"#);
        let mut reader = StreamReader::new(clock::now_ns());
        let mut events = self.http.open(&path, body).await?;
        while let Some(frame) = events.frame().await {
            let frame = frame.map_err(|error| transport(&path, &error))?;
            if let Ok(bytes) = frame.into_data() {
                seen.fetch_add(reader.feed(&bytes), Ordering::Relaxed);
            }
        }
        reader.finish(pace)
    }
}

/// Collects what [`Api::stream_run`] gives.
struct StreamReader {
    lines: Lines,
    in_delta: bool,
    completed: bool,
    done: bool,
    streamed: Streamed,
}

impl StreamReader {
    fn new(posted: u64) -> Self {
        Self {
            lines: Lines::default(),
            in_delta: false,
            completed: false,
            done: false,
            streamed: Streamed {
                posted,
                arrived: 0,
                first_sent: 0,
                first_seen: 0,
                messages: 0,
                last_sent: 0,
                end_seen: 0,
                token_delays: Vec::new(),
            },
        }
    }

    /// Takes the next bytes; gives the number of tokens in them.
    fn feed(&mut self, bytes: &[u8]) -> u64 {
        let now = clock::now_ns();
        let mut tokens = 0;
        let Self {
            lines,
            in_delta,
            completed,
            done,
            streamed,
        } = self;
        lines.feed(bytes, |line| {
            if let Some(name) = line.strip_prefix(b"event: ") {
                *in_delta = name == b"thread.message.delta";
                *completed |= name == b"thread.run.completed";
                if name == b"done" {
                    *done = true;
                    streamed.end_seen = now;
                }
            } else if *in_delta {
                stamp::scan(line, |stamp| {
                    tokens += 1;
                    match stamp {
                        Stamp::First {
                            arrived,
                            sent,
                            messages,
                        } => {
                            streamed.arrived = arrived;
                            streamed.first_sent = sent;
                            streamed.last_sent = sent;
                            streamed.first_seen = now;
                            streamed.messages = messages;
                        }
                        Stamp::Next { sent } => {
                            streamed.last_sent = sent;
                            streamed.token_delays.push(clock::ms_between(sent, now));
                        }
                    }
                });
            }
        });
        tokens
    }

    fn finish(self, pace: Pace) -> Result<Streamed, CallError> {
        let first = u64::from(self.streamed.first_seen > 0);
        let tokens = self.streamed.token_delays.len() as u64 + first;
        if self.completed && self.done && tokens == pace.tokens {
            return Ok(self.streamed);
        }
        Err(CallError::Protocol(format!(
            "a stream broke: {tokens} of {} tokens, completed: {}, done: {}",
            pace.tokens, self.completed, self.done
        )))
    }
}

/// Path and body of the request that answers the only call of a run; `run` begins with its JSON.
fn submission(thread: &str, run: &[u8], stream: bool) -> Result<(String, String), CallError> {
    let call = after(run, b"\"tool_calls\":[").and_then(|calls| string(calls, b"\"id\":\""));
    let call = call.ok_or_else(|| missing("a tool call", run))?;
    let path = format!("/v1/threads/{thread}/runs/{}/submit_tool_outputs", id(run)?);
    let body = format!(
        r#"{{"tool_outputs":[{{"tool_call_id":"{call}","output":"sunny, 21 degrees"}}],"stream":{stream}}}"#
    );
    Ok((path, body))
}

/// When the upstream was called for the newest answer of a thread, by the list of its messages.
pub(crate) fn arrival(messages: &[u8]) -> Result<u64, CallError> {
    let mut found = None;
    stamp::scan(messages, |stamp| {
        if let Stamp::First { arrived, .. } = stamp {
            found.get_or_insert(arrived);
        }
    });
    found.ok_or_else(|| missing("an answer", messages))
}

/// The id of an object: the first one in its JSON, as every object begins with it.
pub(crate) fn id(object: &[u8]) -> Result<String, CallError> {
    string(object, b"\"id\":\"").ok_or_else(|| missing("an id", object))
}

/// The status of a run: the first one in its JSON.
fn status(run: &[u8]) -> Result<Status, CallError> {
    let status = string(run, b"\"status\":\"").ok_or_else(|| missing("a status", run))?;
    Ok(match status.as_str() {
        "queued" | "in_progress" | "cancelling" => Status::Active,
        "requires_action" => Status::RequiresAction,
        "completed" => Status::Completed,
        _ => Status::Ended,
    })
}

fn after<'a>(text: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    memmem::find(text, mark).map(|at| &text[at + mark.len()..])
}

fn string(text: &[u8], mark: &[u8]) -> Option<String> {
    let value = after(text, mark)?;
    let end = memchr::memchr(b'"', value)?;
    Some(String::from_utf8_lossy(&value[..end]).into_owned())
}

fn missing(what: &str, body: &[u8]) -> CallError {
    let shown = String::from_utf8_lossy(&body[..body.len().min(300)]);
    CallError::Protocol(format!("no {what} in: {shown}"))
}
