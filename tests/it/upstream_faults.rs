//! A run reports the model's error, and transient faults do not end it.

use axum::body::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::cluster::Db;
use crate::event_stream::{self, StreamedRun, TERMINAL};
use crate::fake_model::{FakeModel, ModelCall};
use crate::server::Server;
use crate::two_replicas::TwoReplicas;

struct UpstreamFixture {
    model: FakeModel,
    client: Client,
    assistant: String,
    _server: Server,
    _db: Db,
}

impl UpstreamFixture {
    async fn new() -> Self {
        let db = Db::new().await;
        let model = FakeModel::start().await;
        let retries = [("ASSISTD_UPSTREAM_RETRIES", "2")];
        let server = Server::start(&db, &[&model.settings()[..], &retries].concat()).await;
        let client = server.client();
        let assistant = json!({"model": "fake", "instructions": "Be brief."});
        Self {
            model,
            assistant: client.create_assistant_with(assistant).await,
            client,
            _server: server,
            _db: db,
        }
    }

    /// Creates a run on a new thread; the ids of both.
    async fn run(&self) -> (String, String) {
        let thread = self.client.create_thread("Hello?").await;
        let run = self.client.create_run(&thread, &self.assistant).await;
        (thread, run)
    }

    /// Waits for the run's end and checks its stream.
    async fn end(&self, thread: &str, run: &str) -> (Value, StreamedRun) {
        let ended = self.client.wait_for_status(thread, run, &TERMINAL).await;
        let events = self
            .client
            .follow(thread, run, None)
            .await
            .read_to_end()
            .await;
        let streamed = event_stream::check(&events);
        assert_eq!(streamed.run, ended);
        (ended, streamed)
    }

    /// The assistant's messages on the thread.
    async fn answers(&self, thread: &str) -> Vec<Value> {
        let messages = self
            .client
            .list(&format!("/threads/{thread}/messages"))
            .await;
        let answers = messages
            .into_iter()
            .filter(|message| message["role"] == "assistant");
        answers.collect()
    }
}

#[track_caller]
fn assert_failed(run: &Value, code: &str) {
    assert_eq!(run["status"], "failed", "{run}");
    assert_eq!(run["last_error"]["code"], code, "{run}");
    let message = run["last_error"]["message"].as_str().unwrap_or_default();
    assert!(
        !message.is_empty() && !message.contains("sk-model"),
        "{run}"
    );
}

#[tokio::test]
async fn a_model_that_cannot_be_reached_fails_the_run() {
    let db = Db::new().await;
    // A port that was bound and closed: nothing listens there.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let address = listener.and_then(|listener| listener.local_addr());
    let url = format!("http://{}/v1", address.expect("a port is free"));
    let settings = [
        ("OPENAI_BASE_URL", url.as_str()),
        ("OPENAI_API_KEY", "sk-model"),
        ("ASSISTD_UPSTREAM_RETRIES", "1"),
    ];
    let server = Server::start(&db, &settings).await;
    let client = server.client();
    let assistant = client.create_assistant_with(json!({"model": "fake"})).await;
    let thread = client.create_thread("Hello?").await;
    let run = client.create_run(&thread, &assistant).await;
    let run = client.wait_for_status(&thread, &run, &TERMINAL).await;
    assert_failed(&run, "server_error");
    assert!(
        !run.to_string().contains(&url),
        "the address is shown: {run}"
    );
}

#[tokio::test]
async fn a_model_that_is_busy_for_a_moment_is_asked_again() {
    let fixture = UpstreamFixture::new().await;
    let (thread, run) = fixture.run().await;
    let busy = json!({"error": {"message": "Slow down.", "code": "rate_limit_exceeded"}});
    let call = fixture.model.next_call().await;
    call.answer(429, &[("retry-after", "0")], busy.to_string());
    fixture
        .model
        .next_call()
        .await
        .answer_error(503, "overloaded", "Not now.");
    fixture.model.next_call().await.answer_text("Hello!").await;
    let (ended, _) = fixture.end(&thread, &run).await;
    assert_eq!(ended["status"], "completed");
    assert_eq!(fixture.answers(&thread).await.len(), 1);
}

#[tokio::test]
async fn a_model_that_stays_broken_fails_the_run_with_the_right_code() {
    let fixture = UpstreamFixture::new().await;
    let refusals = [
        (500, "server_error", 3, "server_error"),
        (429, "rate_limit_exceeded", 3, "rate_limit_exceeded"),
        (429, "insufficient_quota", 1, "rate_limit_exceeded"),
        (400, "invalid_request", 1, "invalid_prompt"),
        (401, "invalid_api_key", 1, "server_error"),
        (404, "model_not_found", 1, "server_error"),
    ];
    for (status, code, tries, last_error) in refusals {
        let (thread, run) = fixture.run().await;
        for _ in 0..tries {
            let call = fixture.model.next_call().await;
            call.answer_error(status, code, "It will not do; your key is sk-model.");
        }
        let (ended, streamed) = fixture.end(&thread, &run).await;
        assert_failed(&ended, last_error);
        assert!(
            streamed.messages.is_empty() && streamed.steps.is_empty(),
            "{streamed:?}"
        );
        assert!(fixture.answers(&thread).await.is_empty());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_fails_the_run_and_keeps_what_was_said() {
    let fixture = UpstreamFixture::new().await;
    for garbage in [None, Some("data: {\"choices\": [nonsense\n\n")] {
        let (thread, run) = fixture.run().await;
        let mut answer = fixture.model.next_call().await.start_answer();
        answer.send_text("Half an").await;
        if let Some(garbage) = garbage {
            answer.send(garbage).await;
        }
        drop(answer);
        let (ended, streamed) = fixture.end(&thread, &run).await;
        assert_failed(&ended, "server_error");
        let answers = fixture.answers(&thread).await;
        let [answer] = answers.as_slice() else {
            panic!("{answers:#?}");
        };
        assert_eq!(answer["status"], "incomplete");
        assert_eq!(answer["incomplete_details"]["reason"], "run_failed");
        assert_eq!(event_stream::text(answer), "Half an");
        assert!(
            streamed
                .steps
                .values()
                .all(|step| step["status"] == "failed")
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_no_completion_at_all_fails_the_run() {
    let fixture = UpstreamFixture::new().await;
    let page = "<html><body>It works!</body></html>";
    let answers: [(&str, Bytes); 3] = [
        ("text/html", page.into()),
        ("application/json", "{\"hello\": 1}".into()),
        (
            "text/event-stream",
            vec![0xff, 0xfe, 0x00, 0x0a, 0x0a].into(),
        ),
    ];
    for (kind, body) in answers {
        let (thread, run) = fixture.run().await;
        // A request may be retried until the first token has arrived.
        let answer =
            async |call: ModelCall| call.answer(200, &[("content-type", kind)], body.clone());
        let ended = fixture.client.wait_for_status(&thread, &run, &TERMINAL);
        let mut ended = std::pin::pin!(ended);
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended,
                call = fixture.model.next_call() => answer(call).await,
            }
        };
        assert_failed(&ended, "server_error");
    }
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_shortened_and_sent_again() {
    let fixture = UpstreamFixture::new().await;
    let client = &fixture.client;
    let old = "old ".repeat(500);
    let thread = client.create_thread(&old).await;
    for text in [&*old, "What is new?"] {
        let message = json!({"role": "user", "content": text});
        client
            .post(&format!("/threads/{thread}/messages"), message)
            .await;
    }
    let run = client.create_run(&thread, &fixture.assistant).await;
    let first = fixture.model.next_call().await;
    let whole = first.request["messages"].as_array().map_or(0, Vec::len);
    assert_eq!(whole, 4, "instructions and three messages");
    let message = "This model's maximum context length is 600 tokens. However, your messages \
                   resulted in 1029 tokens. Please reduce the length of the messages.";
    first.answer_error(400, "context_length_exceeded", message);
    let second = fixture.model.next_call().await;
    let sent = second.request["messages"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(sent.len() < whole, "{sent:#?}");
    assert_eq!(sent[0]["content"], "Be brief.");
    assert_eq!(
        sent.last().map(|last| &last["content"]),
        Some(&json!("What is new?"))
    );
    second.answer_text("Nothing.").await;
    let (ended, _) = fixture.end(&thread, &run).await;
    assert_eq!(ended["status"], "completed");
}

/// The number of measurements of added latency.
async fn measured(client: &Client) -> u32 {
    let request = client.request(Method::GET, "//metrics");
    let metrics = request.send().await.expect("the server answers").text();
    let metrics = metrics.await.expect("metrics are UTF-8");
    let count = "assistd_added_first_token_seconds_count ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(count));
    line.map_or(0, |number| number.parse().expect("a count is a number"))
}

#[tokio::test]
async fn added_latency_is_measured_once_a_run_before_the_first_call_of_a_model() {
    let fixture = UpstreamFixture::new().await;
    let old = "Something that was said long ago. ".repeat(40);
    let thread = fixture.client.create_thread(&old).await;
    let path = format!("/threads/{thread}/messages");
    let new = json!({"role": "user", "content": "Hello?"});
    fixture.client.post(&path, new).await;
    let run = fixture.client.create_run(&thread, &fixture.assistant).await;
    let call = fixture.model.next_call().await;
    assert_eq!(measured(&fixture.client).await, 1);
    let message = "This model's maximum context length is 300 tokens.";
    call.answer_error(400, "context_length_exceeded", message);
    fixture.model.next_call().await.answer_text("Hello!").await;
    let (ended, _) = fixture.end(&thread, &run).await;
    assert_eq!(ended["status"], "completed");
    assert_eq!(
        measured(&fixture.client).await,
        1,
        "not with the model's time"
    );
}

#[tokio::test]
async fn added_latency_is_not_measured_of_a_run_whose_worker_was_lost() {
    let replicas = TwoReplicas::start(&[("ASSISTD_LEASE", "1s")]).await;
    let (thread, run) = replicas.create_run().await;
    let abandoned = replicas.model.next_call().await;
    replicas.first.kill().await;
    replicas.model.next_call().await.answer_text("Hello!").await;
    drop(abandoned);
    let client = replicas.second.client();
    client.wait_for_status(&thread, &run, &["completed"]).await;
    assert_eq!(measured(&client).await, 0);
}

#[tokio::test]
async fn a_prompt_that_can_be_shortened_no_further_fails_the_run() {
    let fixture = UpstreamFixture::new().await;
    let (thread, run) = fixture.run().await;
    let ended = fixture.client.wait_for_status(&thread, &run, &TERMINAL);
    let mut ended = std::pin::pin!(ended);
    let message = "This model's maximum context length is 4 tokens.";
    let ended = loop {
        tokio::select! {
            ended = &mut ended => break ended,
            call = fixture.model.next_call() => call.answer_error(400, "context_length_exceeded", message),
        }
    };
    assert_failed(&ended, "invalid_prompt");
}

#[tokio::test]
async fn tokens_that_the_model_does_not_count_are_counted_here() {
    let fixture = UpstreamFixture::new().await;
    let (thread, run) = fixture.run().await;
    let mut answer = fixture.model.next_call().await.start_answer();
    answer
        .send_text("Hello there, how can I help you today?")
        .await;
    answer.send_stop().await;
    answer.end().await;
    let (ended, streamed) = fixture.end(&thread, &run).await;
    assert_eq!(ended["status"], "completed");
    let usage = &ended["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap_or_default();
    assert!((8..=14).contains(&count("completion_tokens")), "{usage}");
    assert!((5..=30).contains(&count("prompt_tokens")), "{usage}");
    assert_eq!(
        count("total_tokens"),
        count("prompt_tokens") + count("completion_tokens")
    );
    let [step] = streamed.steps.values().collect::<Vec<_>>()[..] else {
        panic!("{streamed:?}");
    };
    assert_eq!(step["usage"], *usage);
}

#[tokio::test]
async fn calls_by_the_names_of_training_reach_the_caller_under_plain_names() {
    let fixture = UpstreamFixture::new().await;
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let assistant = json!({"model": "fake", "tools": [function("get"), function("set")]});
    let assistant = fixture.client.create_assistant_with(assistant).await;
    let bundle = json!({"tool_uses": [
        {"recipient_name": "functions.get", "parameters": {"a": 1}},
        {"recipient_name": "functions.set", "parameters": {"b": 2}},
    ]})
    .to_string();
    let (head, tail) = bundle.split_at(bundle.len() / 2);
    let cases = [
        (
            "functions.get",
            vec!["{\"a\"", ":1}"],
            json!([["get", "{\"a\":1}"]]),
        ),
        (
            "multi_tool_use.parallel",
            vec![head, tail],
            json!([["get", "{\"a\":1}"], ["set", "{\"b\":2}"]]),
        ),
    ];
    for (name, arguments, expected) in cases {
        let thread = fixture.client.create_thread("Hello?").await;
        let run = fixture.client.create_run(&thread, &assistant).await;
        let mut answer = fixture.model.next_call().await.start_answer();
        answer.send_tool_call(0, name, &arguments).await;
        answer.finish().await;
        let run = fixture
            .client
            .wait_for_status(&thread, &run, &["requires_action"])
            .await;
        let calls = &run["required_action"]["submit_tool_outputs"]["tool_calls"];
        let calls = calls.as_array().expect("there are calls").iter();
        let calls =
            calls.map(|call| json!([call["function"]["name"], call["function"]["arguments"]]));
        assert_eq!(calls.collect::<Value>(), expected);
    }
}

#[tokio::test]
async fn half_characters_and_bytes_that_are_no_text_do_not_fail_a_run() {
    let fixture = UpstreamFixture::new().await;
    let (thread, run) = fixture.run().await;
    let mut answer = fixture.model.next_call().await.start_answer();
    for content in ["\"a\\ud83d\"", "\"\\ude00\\ud83d\"", "\"b\\u0000\""] {
        let choice = format!("{{\"choices\":[{{\"delta\":{{\"content\":{content}}}}}]}}");
        answer.send(format!("data: {choice}\n\n")).await;
    }
    let bytes = b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n";
    answer.send(Bytes::from_static(bytes)).await;
    answer.finish().await;
    let (ended, _) = fixture.end(&thread, &run).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    let answers = fixture.answers(&thread).await;
    let text = &answers[0]["content"][0]["text"]["value"];
    assert_eq!(text, "a😀\u{fffd}b\u{fffd}\u{fffd}");
}

#[tokio::test]
async fn a_call_whose_name_comes_late_is_made() {
    let fixture = UpstreamFixture::new().await;
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let assistant = json!({"model": "fake", "tools": [function("get"), function("set")]});
    let assistant = fixture.client.create_assistant_with(assistant).await;
    let thread = fixture.client.create_thread("Hello?").await;
    let run = fixture.client.create_run(&thread, &assistant).await;
    let mut answer = fixture.model.next_call().await.start_answer();
    for call in [
        json!({"index": 0, "id": "call_a", "function": {"arguments": "{}"}}),
        json!({"index": 1, "id": "call_b", "function": {"name": "set", "arguments": "{}"}}),
        json!({"index": 0, "function": {"name": "get"}}),
    ] {
        let choice = json!({"index": 0, "delta": {"tool_calls": [call]}});
        answer.send_chunk(json!([choice]), Value::Null).await;
    }
    answer.finish().await;
    let run = fixture
        .client
        .wait_for_status(&thread, &run, &["requires_action"])
        .await;
    let calls = &run["required_action"]["submit_tool_outputs"]["tool_calls"];
    let names = [&calls[0]["function"]["name"], &calls[1]["function"]["name"]];
    assert_eq!(names, ["set", "get"], "{run}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_fails_the_run_and_names_the_setting() {
    let db = Db::new().await;
    let model = FakeModel::start().await;
    let bounds = [
        ("ASSISTD_MAX_UPSTREAM_LINE_BYTES", "2KiB"),
        ("ASSISTD_MAX_UPSTREAM_ANSWER_BYTES", "4KiB"),
    ];
    let server = Server::start(&db, &[&model.settings()[..], &bounds].concat()).await;
    let client = server.client();
    let assistant = client.create_assistant_with(json!({"model": "fake"})).await;
    let lines = [(2_048, 1, bounds[0].0), (1_024, 5, bounds[1].0)];
    for (length, times, setting) in lines {
        let thread = client.create_thread("Hello?").await;
        let run = client.create_run(&thread, &assistant).await;
        let mut answer = model.next_call().await.start_answer();
        for _ in 0..times {
            answer.send_text(&"x".repeat(length)).await;
        }
        let run = client.wait_for_status(&thread, &run, &TERMINAL).await;
        assert_failed(&run, "server_error");
        let message = run["last_error"]["message"].to_string();
        assert!(message.contains(setting), "{message}");
    }
}
