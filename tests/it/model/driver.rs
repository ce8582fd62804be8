//! Executes a plan on the system, and compares what clients observe with the reference.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::plan::{Plan, THREADS, Tag, Target, Transition};
use super::reference::{Possible, Request, Status};
use super::system::{ANSWER, PREFACE, System};
use crate::client::{Client, Event, Events, Reply, id, send_request};
use crate::event_stream::text;
use crate::proxy::KillPoint;
use crate::{scenario, with_timeout};

struct Driver<'a> {
    system: &'a mut System,
    threads: Vec<Thread>,
    /// Whether requests may fail.
    is_disrupted: bool,
}

/// A thread as its client knows it.
struct Thread {
    id: String,
    possible: Possible,
    /// The runs whose ids the client knows, oldest first.
    runs: Vec<(Tag, String)>,
    streams: Vec<OpenStream>,
}

/// A stream under way.
struct OpenStream {
    run: Tag,
    /// The sequence number after which it starts.
    after: Option<i64>,
    seen: Arc<Mutex<Vec<Event>>>,
    reader: JoinHandle<()>,
    is_closed: bool,
}

/// Executes the plan; panics if the system does what the reference does not allow.
pub async fn execute(system: &mut System, plan: &Plan) {
    system.restore().await;
    system.take_logged_errors();
    let client = system.client(0).await;
    let mut threads = Vec::new();
    for _ in 0..THREADS {
        threads.push(Thread {
            id: id(&client.post("/threads", json!({})).await),
            possible: Possible::new(),
            runs: Vec::new(),
            streams: Vec::new(),
        });
    }
    let mut driver = Driver {
        system,
        threads,
        is_disrupted: plan.is_disrupted(),
    };
    for (tag, transition) in plan.0.iter().enumerate() {
        driver.step(tag, transition).await;
    }
    driver.system.restore().await;
    for n in 0..THREADS {
        driver.verify_thread(n).await;
    }
    let errors = driver.system.take_logged_errors();
    assert!(
        plan.has_pauses() || errors.is_empty(),
        "logged: {errors:#?}"
    );
}

impl Driver<'_> {
    async fn step(&mut self, tag: Tag, transition: &Transition) {
        match *transition {
            Transition::AddMessage(on) => {
                let body = json!({"role": "user", "content": tag.to_string()});
                let request = self
                    .request(on, Method::POST, "/messages")
                    .await
                    .json(&body);
                self.send(on, request, Request::AddMessage(tag)).await;
            }
            Transition::CreateRun { on, calls_function } => {
                let body = self.run_body(tag, calls_function, false);
                let request = self.request(on, Method::POST, "/runs").await.json(&body);
                let created = Request::CreateRun {
                    tag,
                    calls_function,
                };
                if let Some(run) = self.send(on, request, created).await {
                    self.threads[on.thread].runs.push((tag, id(&run)));
                }
            }
            Transition::CreateRunStreaming { on, calls_function } => {
                self.create_run_streaming(tag, on, calls_function).await;
            }
            Transition::Cancel(on) => {
                let Some((tag, path)) = self.latest_run(on) else {
                    return;
                };
                let request = self
                    .request(on, Method::POST, &format!("{path}/cancel"))
                    .await;
                self.send(on, request, Request::Cancel(tag)).await;
            }
            Transition::SubmitOutputs(on) => self.submit_outputs(on).await,
            Transition::Follow { on, after } => self.follow(on, after).await,
            Transition::HangUp { thread } => {
                let mut streams = self.threads[thread].streams.iter_mut();
                if let Some(stream) = streams.find(|stream| !stream.is_closed) {
                    stream.reader.abort();
                    stream.is_closed = true;
                }
            }
            Transition::DeleteThread(on) => {
                let request = self.request(on, Method::DELETE, "").await;
                self.send(on, request, Request::DeleteThread).await;
            }
            Transition::KillWorker {
                replica,
                statement,
                is_reply_sent,
            } => {
                let point = match is_reply_sent {
                    true => KillPoint::AfterReply,
                    false => KillPoint::BeforeReply,
                };
                self.system.kill(replica, statement, point);
            }
            Transition::PauseDatabase { millis } => {
                self.system
                    .pause_database(Duration::from_millis(millis))
                    .await;
            }
            Transition::Tick { millis } => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
        }
    }

    /// A request to the thread's resource at this path.
    async fn request(&mut self, on: Target, method: Method, path: &str) -> RequestBuilder {
        let client = self.system.client(on.replica).await;
        client.request(
            method,
            &format!("/threads/{}{path}", self.threads[on.thread].id),
        )
    }

    /// Sends a request and compares its response with the reference; the body if it succeeded.
    async fn send(&mut self, on: Target, sent: RequestBuilder, request: Request) -> Option<Value> {
        let reply = send_request(sent).await;
        let reply = self.answered(reply.map(|reply| (reply.status, reply)));
        let status = reply.as_ref().map(|reply| reply.status);
        self.threads[on.thread]
            .possible
            .observe_response(&request, status);
        reply
            .filter(|reply| reply.status == 200)
            .map(|Reply { body, .. }| body)
    }

    /// The response, unless a disruption prevented it: then nobody knows what was executed.
    fn answered<T>(&self, response: Result<(u16, T), reqwest::Error>) -> Option<T> {
        match response {
            Ok((status, response)) if status < 500 => return Some(response),
            Ok((status, _)) => assert!(self.is_disrupted, "status {status}"),
            Err(error) => assert!(self.is_disrupted, "{error}"),
        }
        None
    }

    fn run_body(&self, tag: Tag, calls_function: bool, stream: bool) -> Value {
        let assistant = self.system.assistant(calls_function);
        // Lets the client recognise a run whose creation was not acknowledged.
        let metadata = json!({"tag": tag.to_string()});
        json!({"assistant_id": assistant, "stream": stream, "metadata": metadata})
    }

    /// The tag and the path of the latest run that the client knows.
    fn latest_run(&self, on: Target) -> Option<(Tag, String)> {
        let (tag, run) = self.threads[on.thread].runs.last()?;
        Some((*tag, format!("/runs/{run}")))
    }

    async fn create_run_streaming(&mut self, tag: Tag, on: Target, calls_function: bool) {
        let body = self.run_body(tag, calls_function, true);
        let request = self.request(on, Method::POST, "/runs").await.json(&body);
        let created = Request::CreateRun {
            tag,
            calls_function,
        };
        let response = with_timeout("the headers of a stream", request.send()).await;
        let response = response.map(|response| (response.status().as_u16(), response));
        let Some(response) = self.answered(response) else {
            return self.threads[on.thread]
                .possible
                .observe_response(&created, None);
        };
        let status = response.status().as_u16();
        self.threads[on.thread]
            .possible
            .observe_response(&created, Some(status));
        if status != 200 {
            return;
        }
        let mut events = Events::new(response);
        match events.try_next().await {
            Some(Ok(first)) => {
                assert_eq!(first.name, "thread.run.created");
                let thread = &mut self.threads[on.thread];
                thread.runs.push((tag, id(&first.data)));
                thread
                    .streams
                    .push(OpenStream::read(tag, None, vec![first], events));
            }
            // The run is stored, but its id is lost with the connection.
            end => assert!(self.is_disrupted, "the stream starts with {end:?}"),
        }
    }

    async fn submit_outputs(&mut self, on: Target) {
        let Some((tag, path)) = self.latest_run(on) else {
            return;
        };
        let run = loop {
            let reply = send_request(self.request(on, Method::GET, &path).await).await;
            let reply = self.answered(reply.map(|reply| (reply.status, reply)));
            let Some(Reply { status, body, .. }) = reply else {
                return;
            };
            let run_status = (status == 200).then(|| parse_status(&body));
            self.threads[on.thread]
                .possible
                .observe_run(tag, run_status);
            match run_status {
                None | Some(Status::Cancelled | Status::Completed) => return,
                Some(Status::RequiresAction) => break body,
                Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let request = self
            .request(on, Method::POST, &format!("{path}/submit_tool_outputs"))
            .await;
        let request = request.json(&scenario::outputs(&run));
        self.send(on, request, Request::SubmitOutputs(tag)).await;
    }

    async fn follow(&mut self, on: Target, after: Option<usize>) {
        let Some((tag, path)) = self.latest_run(on) else {
            return;
        };
        let seen = self.threads[on.thread].sequence_numbers(tag);
        let after = after.and_then(|n| Some(seen[n.checked_rem(seen.len())?]));
        let mut request = self
            .request(on, Method::GET, &format!("{path}/stream"))
            .await;
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = with_timeout("the headers of a stream", request.send()).await;
        let response = response.map(|response| (response.status().as_u16(), response));
        match self.answered(response) {
            Some(response) if response.status() == 200 => {
                let events = Events::new(response);
                let stream = OpenStream::read(tag, after, Vec::new(), events);
                self.threads[on.thread].streams.push(stream);
            }
            Some(response) => {
                assert_eq!(response.status(), 404);
                self.threads[on.thread].possible.observe_run(tag, None);
            }
            None => {}
        }
    }

    /// Waits until the thread is idle, and compares it with the reference and its event streams.
    async fn verify_thread(&mut self, n: usize) {
        let client = self.system.client(0).await;
        let thread = &mut self.threads[n];
        let path = format!("/threads/{}", thread.id);
        let snapshot = with_timeout("an idle thread", idle_thread(&client, &path)).await;
        let Some(Snapshot { messages, runs }) = snapshot else {
            return thread.possible.observe_thread(&[], &[], true);
        };
        let is_input = |message: &&Value| message["role"] == "user";
        let inputs = messages
            .iter()
            .filter(is_input)
            .map(|message| parse_tag(&text(message).into()));
        let inputs: Vec<Tag> = inputs.collect();
        let statuses = runs
            .iter()
            .map(|run| (parse_tag(&run["metadata"]["tag"]), parse_status(run)));
        let statuses: Vec<_> = statuses.collect();
        thread.possible.observe_thread(&inputs, &statuses, false);
        for (run, (tag, status)) in runs.iter().zip(statuses) {
            let answers = messages
                .iter()
                .filter(|message| message["run_id"] == run["id"]);
            let answers: Vec<Value> = answers.cloned().collect();
            let log = verify_run(&client, &path, run, status, &answers).await;
            for stream in thread.streams.extract_if(.., |stream| stream.run == tag) {
                stream
                    .verify(&log[..log.len() - 1], self.is_disrupted)
                    .await;
            }
        }
    }
}

impl Thread {
    /// The sequence numbers that the client has seen of this run.
    fn sequence_numbers(&self, run: Tag) -> Vec<i64> {
        let streams = self.streams.iter().filter(|stream| stream.run == run);
        let numbers = streams.flat_map(|stream| {
            let seen = stream.seen.lock();
            seen.iter().filter_map(sequence_number).collect::<Vec<_>>()
        });
        numbers.collect()
    }
}

impl OpenStream {
    /// Reads the stream in the background, after these events.
    fn read(run: Tag, after: Option<i64>, first: Vec<Event>, mut events: Events) -> Self {
        let seen = Arc::new(Mutex::new(first));
        let reader = tokio::spawn({
            let seen = seen.clone();
            async move {
                while let Some(Ok(event)) = events.try_next().await {
                    let is_last = is_end(&event);
                    seen.lock().push(event);
                    if is_last {
                        break;
                    }
                }
            }
        });
        Self {
            run,
            after,
            seen,
            reader,
            is_closed: false,
        }
    }

    /// Checks that the stream had the events of the log in order and without gaps.
    async fn verify(mut self, log: &[Event], is_disrupted: bool) {
        let ended = with_timeout("the end of a stream", &mut self.reader).await;
        assert!(self.is_closed || ended.is_ok(), "{ended:?}");
        let seen = std::mem::take(&mut *self.seen.lock());
        let is_complete = seen.last().is_some_and(|event| event.name == "done");
        assert!(
            is_complete || self.is_closed || is_disrupted,
            "broken after {seen:#?}"
        );

        let after = self.after.unwrap_or(0);
        let mut position = log.partition_point(|event| sequence_number(event) <= Some(after));
        for event in seen.iter().filter(|event| !is_end(event)) {
            let is_same = |next: &Event| event.name == next.name && event.data == next.data;
            if log.get(position).is_some_and(is_same) {
                position += 1;
                continue;
            }
            // The last events of a lost worker are not logged; the next attempt takes their place.
            let attempt = log.get(position).map_or(0, attempt_of);
            let start = log.partition_point(|event| attempt_of(event) < attempt);
            let previous = start
                .checked_sub(1)
                .map_or(0, |last| attempt_of(&log[last]));
            let is_unlogged = attempt > 1 && (position == start || attempt > previous + 1);
            let next = log.get(position);
            assert!(
                is_unlogged,
                "{event:?} instead of {next:?} (attempt {attempt})"
            );
            position = start;
        }
    }
}

/// Whether this ends a stream and is no event of the run.
fn is_end(event: &Event) -> bool {
    event.name == "done" || event.name == "error"
}

/// Only streams of `GET` requests number their events.
fn sequence_number(event: &Event) -> Option<i64> {
    event.id.parse().ok()
}

/// The attempt that logged the event.
fn attempt_of(event: &Event) -> i64 {
    sequence_number(event).map_or(0, |number| number >> 32)
}

#[derive(PartialEq)]
struct Snapshot {
    messages: Vec<Value>,
    runs: Vec<Value>,
}

/// The thread once nothing changes any more; `None` if it is deleted.
async fn idle_thread(client: &Client, path: &str) -> Option<Snapshot> {
    let mut previous = None;
    loop {
        let sent = client.send(Method::GET, path, None).await;
        if sent.expect("the server is running").status == 404 {
            return None;
        }
        let snapshot = Snapshot {
            messages: client.list(&format!("{path}/messages")).await,
            runs: client.list(&format!("{path}/runs")).await,
        };
        let is_idle = |run| {
            !matches!(
                parse_status(run),
                Status::Queued | Status::InProgress | Status::Cancelling
            )
        };
        if snapshot.runs.iter().all(is_idle) && previous.as_ref() == Some(&snapshot) {
            return Some(snapshot);
        }
        previous = Some(snapshot);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks an idle run with its messages, steps and events; the events.
async fn verify_run(
    client: &Client,
    thread: &str,
    run: &Value,
    status: Status,
    answers: &[Value],
) -> Vec<Event> {
    let run_id = id(run);
    let steps = client.list(&format!("{thread}/runs/{run_id}/steps")).await;
    scenario::verify_message_steps(&steps, answers);
    if status != Status::RequiresAction {
        scenario::verify_token_sums(run, &steps);
    }
    let thread = thread.trim_start_matches("/threads/");
    let events = client
        .follow(thread, &run_id, None)
        .await
        .read_to_end()
        .await;
    scenario::verify_events(&events, run, &steps, answers);

    let calls_function = !run["tools"].as_array().expect("a run has tools").is_empty();
    let texts: Vec<String> = answers.iter().map(text).collect();
    let preface = if calls_function { PREFACE } else { "" };
    let whole = [preface, &ANSWER.concat()].concat();
    match status {
        Status::Completed => assert_eq!(texts.concat(), whole),
        Status::RequiresAction => assert_eq!(texts, [PREFACE]),
        _ => assert!(whole.starts_with(&texts.concat()), "{texts:?}"),
    }
    events
}

fn parse_status(run: &Value) -> Status {
    let status = run["status"].as_str().and_then(Status::parse);
    status.unwrap_or_else(|| panic!("unexpected status: {run}"))
}

fn parse_tag(tag: &Value) -> Tag {
    let tag = tag.as_str().and_then(|tag| tag.parse().ok());
    tag.expect("the driver tags what it creates")
}
