//! Client scripts for runs, and the invariants of an ended run, whatever happened to the servers
//! meanwhile.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Event, Events, Reply, id};
use crate::cluster::Db;
use crate::event_stream::{self, TERMINAL, text};
use crate::fake_worker::PICTURE;
use crate::usage;
use crate::{TIMEOUT, eventually};

/// The user message on the thread.
pub const QUESTION: &str = "What is it like outside?";

/// What a client does with one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// One message, streamed.
    Text,
    /// Text, a function call, its output, and text again; the client follows the run's stream.
    Function,
    /// Code that writes a file and shows an image, and text that links to the file.
    Code,
    /// A file search, and text that cites its hit.
    Search,
    /// A message that is cancelled while it streams.
    Cancel,
}

/// What the server has acknowledged so far.
#[derive(Debug, Default)]
pub struct Progress {
    /// The id of the run.
    pub run: Option<String>,
    submitted: bool,
    cancelled: bool,
}

/// The connection broke, or an earlier request turned out to be executed already.
#[derive(Debug)]
pub struct ConnectionLost;

impl From<reqwest::Error> for ConnectionLost {
    fn from(_: reqwest::Error) -> Self {
        Self
    }
}

impl Scenario {
    fn final_status(self) -> &'static str {
        match self {
            Self::Text | Self::Function | Self::Code | Self::Search => "completed",
            Self::Cancel => "cancelled",
        }
    }

    /// Creates an assistant whose model follows the scenario; its id.
    pub async fn create_assistant(self, client: &Client) -> String {
        match self {
            Self::Text => client.create_assistant("hello").await,
            Self::Function => {
                let function = json!({"name": "get_weather", "parameters": {}});
                let tools = json!([{"type": "function", "function": function}]);
                let body = json!({"model": "scripted/weather", "tools": tools});
                client.create_assistant_with(body).await
            }
            Self::Code => {
                let tools = json!([{"type": "code_interpreter"}]);
                let body = json!({"model": "scripted/coder", "tools": tools});
                client.create_assistant_with(body).await
            }
            Self::Search => {
                let file = id(&client.upload("wreck.txt", "The wreck lies deep.").await);
                let stores = json!([{"file_ids": [file]}]);
                let tools = json!([{"type": "file_search"}]);
                let body = json!({"model": "scripted/searcher", "tools": tools,
                                  "tool_resources": {"file_search": {"vector_stores": stores}}});
                let assistant = client.create_assistant_with(body).await;
                eventually("the file is indexed", || async {
                    let stores = client.list("/vector_stores").await;
                    (stores[0]["file_counts"]["completed"] == 1).then_some(())
                })
                .await;
                assistant
            }
            Self::Cancel => client.create_assistant("slow").await,
        }
    }

    /// Runs the client's script until it ends or the connection breaks.
    pub async fn play(
        self,
        client: &Client,
        thread: &str,
        assistant: &str,
        progress: &mut Progress,
    ) -> Result<(), ConnectionLost> {
        let runs = format!("/threads/{thread}/runs");
        if self == Self::Function {
            let run = post(client, &runs, &json!({"assistant_id": assistant})).await?;
            let run = id(&run);
            progress.run = Some(run.clone());
            let waiting = last_event_data(client.try_follow(thread, &run, None).await?).await?;
            let path = format!("{runs}/{run}/submit_tool_outputs");
            post(client, &path, &outputs(&waiting)).await?;
            progress.submitted = true;
            last_event_data(client.try_follow(thread, &run, None).await?).await?;
            return Ok(());
        }
        let body = json!({"assistant_id": assistant, "stream": true});
        let mut stream = client.try_stream(&runs, &body).await?;
        loop {
            let event = stream
                .try_next()
                .await
                .ok_or(ConnectionLost)?
                .map_err(|_| ConnectionLost)?;
            match event.name.as_str() {
                "thread.run.created" => progress.run = Some(id(&event.data)),
                "thread.message.delta" if self == Self::Cancel && !progress.cancelled => {
                    let run = progress
                        .run
                        .as_deref()
                        .expect("the creation is the first event");
                    post(client, &format!("{runs}/{run}/cancel"), &json!({})).await?;
                    progress.cancelled = true;
                }
                "done" => return Ok(()),
                _ => {}
            }
        }
    }
}

/// Sends a `POST` that succeeds unless the connection breaks.
async fn post(client: &Client, path: &str, body: &Value) -> Result<Value, ConnectionLost> {
    let Reply { status, body, .. } = client.send(Method::POST, path, Some(body)).await?;
    assert_eq!(status, 200, "{path}: {body}");
    Ok(body)
}

/// Repeats a `POST` that a killed server may have executed: a 400 means that its transaction
/// committed after the state was read, so that the state has to be read again.
async fn repeat_post(client: &Client, path: &str, body: &Value) -> Result<Value, ConnectionLost> {
    let Reply { status, body, .. } = client.send(Method::POST, path, Some(body)).await?;
    if status == 400 {
        return Err(ConnectionLost);
    }
    assert_eq!(status, 200, "{path}: {body}");
    Ok(body)
}

/// Reads a stream to its end; the data of its last event.
async fn last_event_data(mut stream: Events) -> Result<Value, ConnectionLost> {
    let mut last = Value::Null;
    loop {
        let event = stream
            .try_next()
            .await
            .ok_or(ConnectionLost)?
            .map_err(|_| ConnectionLost)?;
        if event.name == "done" {
            return Ok(last);
        }
        last = event.data;
    }
}

/// Outputs for every call that the run requires.
pub fn outputs(run: &Value) -> Value {
    let calls = &run["required_action"]["submit_tool_outputs"]["tool_calls"];
    let calls = calls.as_array().expect("the run waits for tool outputs");
    let outputs = calls
        .iter()
        .map(|call| json!({"tool_call_id": call["id"], "output": "sunny"}));
    json!({"tool_outputs": outputs.collect::<Value>()})
}

/// Resumes an interrupted scenario until the run has ended, each time with a client of the server
/// that is then available; the run's id.
pub async fn finish(
    scenario: Scenario,
    client: impl Fn() -> Client,
    thread: &str,
    assistant: &str,
    progress: &mut Progress,
) -> String {
    let started = Instant::now();
    loop {
        if let Ok(run) = resume(scenario, &client(), thread, assistant, progress).await {
            return run;
        }
        assert!(started.elapsed() < TIMEOUT, "never finished: {progress:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn resume(
    scenario: Scenario,
    client: &Client,
    thread: &str,
    assistant: &str,
    progress: &mut Progress,
) -> Result<String, ConnectionLost> {
    let runs = format!("/threads/{thread}/runs");
    let stored = get(client, &runs).await?["data"].clone();
    let stored = stored.as_array().expect("a list has `data`");
    assert!(stored.len() < 2, "the run was created twice: {stored:?}");
    let stored = stored.first().map(id);
    if progress.run.is_some() {
        assert_eq!(stored, progress.run, "the run is lost");
    }
    let run = match stored {
        Some(run) => run,
        None => {
            let body = json!({"assistant_id": assistant});
            id(&repeat_post(client, &runs, &body).await?)
        }
    };
    progress.run = Some(run.clone());
    let path = format!("{runs}/{run}");
    if scenario == Scenario::Cancel {
        let cancel = format!("{path}/cancel");
        // 400 if an earlier cancellation was executed.
        let status = client.send(Method::POST, &cancel, None).await?.status;
        assert!(
            status == 400 || status == 200 && !progress.cancelled,
            "an acknowledged cancellation is lost: {status}"
        );
        progress.cancelled = true;
    }
    let idle = [TERMINAL.as_slice(), &["requires_action"]].concat();
    let mut ended = wait_for_status(client, &path, &idle).await?;
    if ended["status"] == "requires_action" {
        assert!(!progress.submitted, "the outputs are lost");
        let submit = format!("{path}/submit_tool_outputs");
        repeat_post(client, &submit, &outputs(&ended)).await?;
        progress.submitted = true;
        ended = wait_for_status(client, &path, &TERMINAL).await?;
    }
    assert_eq!(ended["status"], scenario.final_status(), "{ended}");
    Ok(run)
}

/// Sends a `GET` that succeeds unless the connection breaks.
async fn get(client: &Client, path: &str) -> Result<Value, ConnectionLost> {
    let Reply { status, body, .. } = client.send(Method::GET, path, None).await?;
    assert_eq!(status, 200, "{path}: {body}");
    Ok(body)
}

/// Polls the run until it has one of the statuses, unless the connection breaks.
async fn wait_for_status(
    client: &Client,
    path: &str,
    statuses: &[&str],
) -> Result<Value, ConnectionLost> {
    let started = Instant::now();
    loop {
        let run = get(client, path).await?;
        let status = run["status"].as_str().expect("a run has a status");
        if statuses.contains(&status) {
            return Ok(run);
        }
        assert!(started.elapsed() < TIMEOUT, "never in {statuses:?}: {run}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks every invariant of an ended run, however it got there.
pub async fn verify(scenario: Scenario, client: &Client, db: &Db, thread: &str, run: &str) {
    let ended = client.get(&format!("/threads/{thread}/runs/{run}")).await;
    let steps = client
        .list(&format!("/threads/{thread}/runs/{run}/steps"))
        .await;
    let messages = client.list(&format!("/threads/{thread}/messages")).await;
    let (question, answers) = messages.split_first().expect("the thread has a question");
    assert_eq!(text(question), QUESTION);
    let texts: Vec<String> = answers.iter().map(text).collect();

    let (status, expected) = match scenario {
        Scenario::Text => ("completed", vec!["Hello! How can I help?"]),
        Scenario::Function => ("completed", vec!["Let me look.", "The weather: sunny."]),
        Scenario::Code => ("completed", vec![CODER_TEXT]),
        Scenario::Search => ("completed", vec!["At four fathoms【4:0†wreck.txt】."]),
        // There is no message if the cancellation came before the first token was stored.
        Scenario::Cancel => ("incomplete", texts.iter().map(String::as_str).collect()),
    };
    assert_eq!(ended["status"], scenario.final_status(), "{ended}");
    assert_eq!(texts, expected, "{steps:#?}");
    assert!(
        answers.iter().all(|message| message["status"] == status),
        "{answers:#?}"
    );
    assert!(
        steps
            .iter()
            .all(|step| step["status"] == scenario.final_status()),
        "{steps:#?}"
    );
    if scenario == Scenario::Cancel {
        assert!(answers.len() < 2, "{answers:#?}");
        assert!(
            texts.iter().all(|text| SLOW_TEXT.starts_with(text)),
            "{texts:?}"
        );
    }
    verify_message_steps(&steps, answers);
    verify_token_sums(&ended, &steps);
    verify_calls(scenario, &steps, answers);
    if scenario == Scenario::Code {
        verify_code(client, &steps, &answers[0]).await;
    }

    let events = client.follow(thread, run, None).await.read_to_end().await;
    verify_events(&events, &ended, &steps, answers);

    let open: i64 = sqlx::query_scalar(
        "select count(*) from run_steps join runs on runs.id = run_id
         where run_steps.status = 'in_progress' and runs.ended_at is not null",
    )
    .fetch_one(&db.pool)
    .await
    .expect("the database answers");
    assert_eq!(open, 0, "an ended run has open steps");
    verify_usage(db).await;

    let again = json!({"role": "user", "content": "And now?"});
    client
        .post(&format!("/threads/{thread}/messages"), again)
        .await;
    let hello = client.create_assistant("hello").await;
    let next = client.create_run(thread, &hello).await;
    client.wait_for_status(thread, &next, &["completed"]).await;
}

/// Checks that a run's events report the run, its steps and its messages as they are stored.
pub fn verify_events(events: &[Event], run: &Value, steps: &[Value], answers: &[Value]) {
    let streamed = event_stream::check(events);
    assert_eq!(streamed.run, *run, "the last event has the stored run");
    for message in answers {
        assert_eq!(
            streamed.messages.get(&id(message)),
            Some(message),
            "the stream and the list differ"
        );
    }
    for step in steps.iter().filter(|step| step["status"] != "in_progress") {
        let event = streamed.steps.get(&id(step));
        let event = event.expect("the stream reports every ended step");
        assert_eq!(
            [&event["status"], &event["usage"]],
            [&step["status"], &step["usage"]]
        );
    }
}

/// Checks that the project's usage equals that of its runs and steps, whatever was killed.
async fn verify_usage(db: &Db) {
    let total = usage::total(&db.pool).await;
    let counted: (i64, i64, i64, i64, i64, i64) = sqlx::query_as(
        "with step as (
             select coalesce(usage ->> 'prompt', '0')::bigint as prompt,
                    coalesce(usage ->> 'completion', '0')::bigint as completion,
                    case when details ->> 'type' = 'tool_calls' then details -> 'calls'
                         else '[]' end as calls
             from run_steps
         ), call as (select jsonb_array_elements(calls) as call from step)
         select (select count(*) from runs where ended_at is not null),
                (select coalesce(sum(prompt), 0)::bigint from step),
                (select coalesce(sum(completion), 0)::bigint from step),
                (select count(*) from call
                 where call #>> '{code_interpreter,outputs}' is not null),
                (select count(*) from call where call #>> '{file_search,results}' is not null),
                (select count(*) from call where call ? 'function')",
    )
    .fetch_one(&db.pool)
    .await
    .expect("the database answers");
    let used = (
        total.runs,
        total.prompt_tokens,
        total.completion_tokens,
        total.code_calls,
        total.search_calls,
        total.function_calls,
    );
    assert_eq!(used, counted);
}

/// Checks that steps and messages match one to one.
pub fn verify_message_steps(steps: &[Value], answers: &[Value]) {
    let announced: Vec<&Value> = steps
        .iter()
        .filter(|step| step["type"] == "message_creation")
        .map(|step| &step["step_details"]["message_creation"]["message_id"])
        .collect();
    let stored: Vec<&Value> = answers.iter().map(|message| &message["id"]).collect();
    assert_eq!(announced, stored, "steps and messages");
}

/// Checks that the steps' tokens add up to those of their ended run.
pub fn verify_token_sums(run: &Value, steps: &[Value]) {
    for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        let sum: u64 = steps
            .iter()
            .filter_map(|step| step["usage"][count].as_u64())
            .sum();
        assert_eq!(run["usage"][count].as_u64(), Some(sum), "{count}");
    }
}

/// Checks the scenario's tool calls and what its answer refers to.
fn verify_calls(scenario: Scenario, steps: &[Value], answers: &[Value]) {
    let calls: Vec<&Value> = steps
        .iter()
        .filter(|step| step["type"] == "tool_calls")
        .collect();
    match (scenario, calls.as_slice()) {
        (Scenario::Function, [calls]) => {
            let calls = &calls["step_details"]["tool_calls"];
            assert_eq!(calls.as_array().map(Vec::len), Some(1), "{calls}");
            assert_eq!(calls[0]["function"]["output"], "sunny");
        }
        (Scenario::Code, [calls]) => {
            let calls = &calls["step_details"]["tool_calls"];
            assert_eq!(calls.as_array().map(Vec::len), Some(1), "{calls}");
        }
        (Scenario::Search, [calls]) => {
            let calls = &calls["step_details"]["tool_calls"];
            assert_eq!(calls.as_array().map(Vec::len), Some(1), "{calls}");
            let results = &calls[0]["file_search"]["results"];
            assert_eq!(results.as_array().map(Vec::len), Some(1), "{calls}");
            let annotations = &answers[0]["content"][0]["text"]["annotations"];
            assert_eq!(annotations.as_array().map(Vec::len), Some(1), "{answers:?}");
            let cited = &annotations[0]["file_citation"]["file_id"];
            assert_eq!(*cited, results[0]["file_id"]);
        }
        (Scenario::Text | Scenario::Cancel, []) => {}
        _ => panic!("{calls:#?}"),
    }
}

/// Checks that the code's outputs exist once, with the content that the message refers to.
async fn verify_code(client: &Client, steps: &[Value], answer: &Value) {
    let call = &steps[0]["step_details"]["tool_calls"][0]["code_interpreter"];
    let outputs = call["outputs"].as_array().expect("the call has outputs");
    let [logs, shown] = outputs.as_slice() else {
        panic!("{call}");
    };
    assert_eq!(logs["logs"], "one\n");
    let picture = &shown["image"]["file_id"];
    let [image, text] = answer["content"]
        .as_array()
        .expect("the value is a list")
        .as_slice()
    else {
        panic!("{answer}");
    };
    assert_eq!(image["image_file"]["file_id"], *picture);
    assert_eq!(client.file_content(picture).await, PICTURE);
    let [link] = text["text"]["annotations"]
        .as_array()
        .expect("the value is a list")
        .as_slice()
    else {
        panic!("{answer}");
    };
    assert_eq!(
        client.file_content(&link["file_path"]["file_id"]).await,
        b"a,b"
    );
}

/// The text of the model `coder`.
const CODER_TEXT: &str = "Here: sandbox:/mnt/data/out.csv.";

/// The text of the model `slow`.
const SLOW_TEXT: &str = "One two three four five six seven eight nine ten eleven twelve thirteen \
    fourteen fifteen sixteen seventeen eighteen nineteen twenty twenty-one twenty-two \
    twenty-three twenty-four twenty-five twenty-six twenty-seven twenty-eight twenty-nine thirty.";
