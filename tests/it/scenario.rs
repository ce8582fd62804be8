//! What clients do with runs, and what must be true of a run afterwards, whatever befell the
//! servers meanwhile.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Events, Reply, id};
use crate::cluster::Db;
use crate::event_stream::{self, TERMINAL, text};
use crate::fake_worker::PICTURE;
use crate::usage;
use crate::{PATIENCE, eventually};

/// What is on the thread.
pub const QUESTION: &str = "What is it like outside?";

/// What a client does with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// One message, streamed.
    Text,
    /// Text, a call, its output, and text again; followed beside the requests.
    Function,
    /// Code, which writes a file and shows a picture, and text that links to the file.
    Code,
    /// A search, and text that cites what it found.
    Search,
    /// Cancelled while the message is being streamed.
    Cancel,
}

/// What the server had said before it died.
#[derive(Debug, Default)]
pub struct Heard {
    /// The id of the run.
    pub run: Option<String>,
    submitted: bool,
    cancelled: bool,
}

/// The connection broke, or what was sent before has come in between.
#[derive(Debug)]
pub struct Cut;

impl From<reqwest::Error> for Cut {
    fn from(_: reqwest::Error) -> Self {
        Self
    }
}

impl Scenario {
    /// The status at the end.
    fn end(self) -> &'static str {
        match self {
            Self::Text | Self::Function | Self::Code | Self::Search => "completed",
            Self::Cancel => "cancelled",
        }
    }

    /// An assistant that plays along; its id.
    pub async fn assistant(self, client: &Client) -> String {
        match self {
            Self::Text => client.assistant("hello").await,
            Self::Function => {
                let function = json!({"name": "get_weather", "parameters": {}});
                let tools = json!([{"type": "function", "function": function}]);
                let body = json!({"model": "scripted/weather", "tools": tools});
                client.assistant_with(body).await
            }
            Self::Code => {
                let tools = json!([{"type": "code_interpreter"}]);
                let body = json!({"model": "scripted/coder", "tools": tools});
                client.assistant_with(body).await
            }
            Self::Search => {
                let file = id(&client.upload("wreck.txt", "The wreck lies deep.").await);
                let stores = json!([{"file_ids": [file]}]);
                let tools = json!([{"type": "file_search"}]);
                let body = json!({"model": "scripted/searcher", "tools": tools,
                                  "tool_resources": {"file_search": {"vector_stores": stores}}});
                let assistant = client.assistant_with(body).await;
                eventually("the file is indexed", || async {
                    let stores = client.list("/vector_stores").await;
                    (stores[0]["file_counts"]["completed"] == 1).then_some(())
                })
                .await;
                assistant
            }
            Self::Cancel => client.assistant("slow").await,
        }
    }

    /// Does what a client does, until all is done or the connection breaks.
    pub async fn play(
        self,
        client: &Client,
        thread: &str,
        assistant: &str,
        heard: &mut Heard,
    ) -> Result<(), Cut> {
        let runs = format!("/threads/{thread}/runs");
        if self == Self::Function {
            let run = post(client, &runs, &json!({"assistant_id": assistant})).await?;
            let run = id(&run);
            heard.run = Some(run.clone());
            let waiting = last_of(client.try_follow(thread, &run, None).await?).await?;
            let path = format!("{runs}/{run}/submit_tool_outputs");
            post(client, &path, &outputs(&waiting)).await?;
            heard.submitted = true;
            last_of(client.try_follow(thread, &run, None).await?).await?;
            return Ok(());
        }
        let body = json!({"assistant_id": assistant, "stream": true});
        let mut stream = client.try_stream(&runs, &body).await?;
        loop {
            let event = stream.try_next().await.ok_or(Cut)?.map_err(|_| Cut)?;
            match event.name.as_str() {
                "thread.run.created" => heard.run = Some(id(&event.data)),
                "thread.message.delta" if self == Self::Cancel && !heard.cancelled => {
                    let run = heard.run.as_deref().expect("it was created before");
                    post(client, &format!("{runs}/{run}/cancel"), &json!({})).await?;
                    heard.cancelled = true;
                }
                "done" => return Ok(()),
                _ => {}
            }
        }
    }
}

/// A `POST` that succeeds unless the connection breaks.
async fn post(client: &Client, path: &str, body: &Value) -> Result<Value, Cut> {
    let Reply { status, body, .. } = client.send(Method::POST, path, Some(body)).await?;
    assert_eq!(status, 200, "{path}: {body}");
    Ok(body)
}

/// A `POST` of what a dead server may have sent to the database already. If it arrives there only
/// now, it has to be looked for again.
async fn post_again(client: &Client, path: &str, body: &Value) -> Result<Value, Cut> {
    let Reply { status, body, .. } = client.send(Method::POST, path, Some(body)).await?;
    if status == 400 {
        return Err(Cut);
    }
    assert_eq!(status, 200, "{path}: {body}");
    Ok(body)
}

/// The run as the last event of a stream has it, unless the connection breaks.
async fn last_of(mut stream: Events) -> Result<Value, Cut> {
    let mut last = Value::Null;
    loop {
        let event = stream.try_next().await.ok_or(Cut)?.map_err(|_| Cut)?;
        if event.name == "done" {
            return Ok(last);
        }
        last = event.data;
    }
}

fn outputs(run: &Value) -> Value {
    let calls = &run["required_action"]["submit_tool_outputs"]["tool_calls"];
    let calls = calls.as_array().expect("the run waits for outputs");
    let outputs = calls
        .iter()
        .map(|call| json!({"tool_call_id": call["id"], "output": "sunny"}));
    json!({"tool_outputs": outputs.collect::<Value>()})
}

/// Goes on where the scenario was cut, until the run is over, with whichever server there is then;
/// the run's id.
pub async fn settle(
    scenario: Scenario,
    client: impl Fn() -> Client,
    thread: &str,
    assistant: &str,
    heard: &mut Heard,
) -> String {
    let begun = Instant::now();
    loop {
        if let Ok(run) = go_on(scenario, &client(), thread, assistant, heard).await {
            return run;
        }
        assert!(begun.elapsed() < PATIENCE, "never settled: {heard:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn go_on(
    scenario: Scenario,
    client: &Client,
    thread: &str,
    assistant: &str,
    heard: &mut Heard,
) -> Result<String, Cut> {
    let runs = format!("/threads/{thread}/runs");
    let found = get(client, &runs).await?["data"].clone();
    let found = found.as_array().expect("a list has data");
    assert!(found.len() < 2, "the run is there twice: {found:?}");
    let found = found.first().map(id);
    if heard.run.is_some() {
        assert_eq!(found, heard.run, "the run is lost");
    }
    let run = match found {
        Some(run) => run,
        None => {
            let body = json!({"assistant_id": assistant});
            id(&post_again(client, &runs, &body).await?)
        }
    };
    heard.run = Some(run.clone());
    let path = format!("{runs}/{run}");
    if scenario == Scenario::Cancel {
        let to = format!("{path}/cancel");
        let again = client.send(Method::POST, &to, None).await?.status;
        // Refused if the first time counted.
        assert!(again == 400 || again == 200 && !heard.cancelled, "{again}");
        heard.cancelled = true;
    }
    let resting = [TERMINAL.as_slice(), &["requires_action"]].concat();
    let mut ended = rest(client, &path, &resting).await?;
    if ended["status"] == "requires_action" {
        assert!(!heard.submitted, "the outputs are lost");
        let to = format!("{path}/submit_tool_outputs");
        post_again(client, &to, &outputs(&ended)).await?;
        heard.submitted = true;
        ended = rest(client, &path, &TERMINAL).await?;
    }
    assert_eq!(ended["status"], scenario.end(), "{ended}");
    Ok(run)
}

/// A `GET` that succeeds unless the connection breaks.
async fn get(client: &Client, path: &str) -> Result<Value, Cut> {
    let Reply { status, body, .. } = client.send(Method::GET, path, None).await?;
    assert_eq!(status, 200, "{path}: {body}");
    Ok(body)
}

/// The run once it has one of these statuses, unless the connection breaks.
async fn rest(client: &Client, path: &str, statuses: &[&str]) -> Result<Value, Cut> {
    let begun = Instant::now();
    loop {
        let run = get(client, path).await?;
        let status = run["status"].as_str().expect("a run has a status");
        if statuses.contains(&status) {
            return Ok(run);
        }
        assert!(begun.elapsed() < PATIENCE, "never in {statuses:?}: {run}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything that must hold of an ended run, however it got there.
pub async fn verify(scenario: Scenario, client: &Client, db: &Db, thread: &str, run: &str) {
    let ended = client.get(&format!("/threads/{thread}/runs/{run}")).await;
    let steps = client
        .list(&format!("/threads/{thread}/runs/{run}/steps"))
        .await;
    let messages = client.list(&format!("/threads/{thread}/messages")).await;
    let (asked, answers) = messages.split_first().expect("the question is there");
    assert_eq!(text(asked), QUESTION);
    let texts: Vec<String> = answers.iter().map(text).collect();

    let (status, spoken) = match scenario {
        Scenario::Text => ("completed", vec!["Hello! How can I help?"]),
        Scenario::Function => ("completed", vec!["Let me look.", "The weather: sunny."]),
        Scenario::Code => ("completed", vec![CODED]),
        Scenario::Search => ("completed", vec!["At four fathoms【4:0†wreck.txt】."]),
        // Nothing if the cancellation came before the first word was stored.
        Scenario::Cancel => ("incomplete", texts.iter().map(String::as_str).collect()),
    };
    assert_eq!(ended["status"], scenario.end(), "{ended}");
    assert_eq!(texts, spoken, "{steps:#?}");
    assert!(
        answers.iter().all(|message| message["status"] == status),
        "{answers:#?}"
    );
    assert!(
        steps.iter().all(|step| step["status"] == scenario.end()),
        "{steps:#?}"
    );
    if scenario == Scenario::Cancel {
        assert!(answers.len() < 2, "{answers:#?}");
        assert!(texts.iter().all(|text| SLOW.starts_with(text)), "{texts:?}");
    }
    verify_steps(scenario, &ended, &steps, answers);
    if scenario == Scenario::Code {
        verify_code(client, &steps, &answers[0]).await;
    }

    let told = event_stream::check(&client.follow(thread, run, None).await.rest().await);
    assert_eq!(told.run, ended, "the stream ends with the run as it is");
    for message in answers {
        assert_eq!(
            told.messages.get(&id(message)),
            Some(message),
            "told otherwise"
        );
    }
    for step in &steps {
        let told = told.steps.get(&id(step)).expect("every step was told");
        assert_eq!(
            [&told["status"], &told["usage"]],
            [&step["status"], &step["usage"]]
        );
    }

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
    let hello = client.assistant("hello").await;
    let next = client.run(thread, &hello).await;
    client.run_in(thread, &next, &["completed"]).await;
}

/// What runs and steps say was used is the project's usage: no more, no less, whatever died.
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

/// Steps and messages belong together one to one, and the steps' tokens add up to the run's.
fn verify_steps(scenario: Scenario, run: &Value, steps: &[Value], answers: &[Value]) {
    let made: Vec<&Value> = steps
        .iter()
        .filter(|step| step["type"] == "message_creation")
        .map(|step| &step["step_details"]["message_creation"]["message_id"])
        .collect();
    let written: Vec<&Value> = answers.iter().map(|message| &message["id"]).collect();
    assert_eq!(made, written, "steps and messages");
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
    for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        let sum: u64 = steps
            .iter()
            .filter_map(|step| step["usage"][count].as_u64())
            .sum();
        assert_eq!(run["usage"][count].as_u64(), Some(sum), "{count}");
    }
}

/// What the code put out and the message refers to is there, once.
async fn verify_code(client: &Client, steps: &[Value], answer: &Value) {
    let call = &steps[0]["step_details"]["tool_calls"][0]["code_interpreter"];
    let outputs = call["outputs"].as_array().expect("the code has run");
    let [logs, shown] = outputs.as_slice() else {
        panic!("{call}");
    };
    assert_eq!(logs["logs"], "one\n");
    let picture = &shown["image"]["file_id"];
    let [image, text] = answer["content"].as_array().expect("a list").as_slice() else {
        panic!("{answer}");
    };
    assert_eq!(image["image_file"]["file_id"], *picture);
    assert_eq!(client.content(picture).await, PICTURE);
    let [link] = text["text"]["annotations"]
        .as_array()
        .expect("a list")
        .as_slice()
    else {
        panic!("{answer}");
    };
    assert_eq!(client.content(&link["file_path"]["file_id"]).await, b"a,b");
}

/// What the model `coder` says.
const CODED: &str = "Here: sandbox:/mnt/data/out.csv.";

/// What the model `slow` says.
const SLOW: &str = "One two three four five six seven eight nine ten eleven twelve thirteen \
    fourteen fifteen sixteen seventeen eighteen nineteen twenty twenty-one twenty-two \
    twenty-three twenty-four twenty-five twenty-six twenty-seven twenty-eight twenty-nine thirty.";
