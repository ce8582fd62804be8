//! PostgreSQL cannot store U+0000, so U+FFFD replaces it wherever it enters the server.

use serde_json::{Value, json};

use crate::client::{Client, id};
use crate::cluster::Db;
use crate::event_stream::{self, StreamedRun};
use crate::fake_model::FakeModel;
use crate::fake_worker::FakeWorker;
use crate::retrieval_fixture::RetrievalFixture;
use crate::server::Server;

struct RunFixture {
    model: FakeModel,
    worker: FakeWorker,
    client: Client,
    assistant: String,
    _server: Server,
}

impl RunFixture {
    async fn new() -> Self {
        let db = Db::new().await;
        let model = FakeModel::start().await;
        let worker = FakeWorker::start();
        let address = worker.address();
        let settings = [&model.settings()[..], &[("ASSISTD_SANDBOX", &address)]].concat();
        let server = Server::start(&db, &settings).await;
        let client = server.client();
        let function = json!({"type": "function", "function": {"name": "get_weather"}});
        let tools = json!([{"type": "code_interpreter"}, function]);
        let assistant = client.create_assistant_with(json!({"model": "fake", "tools": tools}));
        Self {
            assistant: assistant.await,
            model,
            worker,
            client,
            _server: server,
        }
    }

    /// Checks a run's stream and its event log, and that the model is not called again.
    async fn end(&self, stream: crate::client::Events) -> StreamedRun {
        let streamed = event_stream::check(&stream.read_to_end().await);
        let (thread, run) = (&streamed.run["thread_id"], &streamed.run["id"]);
        let (thread, run) = (
            thread.as_str().expect("the value is a string"),
            run.as_str().expect("the value is a string"),
        );
        let logged = self
            .client
            .follow(thread, run, None)
            .await
            .read_to_end()
            .await;
        assert_eq!(event_stream::check(&logged).run, streamed.run);
        assert!(self.model.is_idle().await);
        streamed
    }
}

/// The first tool call of a run's steps.
fn call_of(streamed: &StreamedRun) -> &Value {
    let step = streamed
        .steps
        .values()
        .find(|step| step["type"] == "tool_calls");
    &step.expect("the stream has one")["step_details"]["tool_calls"][0]
}

#[tokio::test]
async fn what_code_puts_out_may_hold_any_character() {
    let fixture = RunFixture::new().await;
    let thread = fixture.client.create_thread("Go.").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    fixture.model.next_call().await.answer_code("nul").await;
    let call = fixture.model.next_call().await;
    let messages = call.request["messages"]
        .as_array()
        .expect("the value is a list");
    let logs = "a\u{fffd}b\n".repeat(3);
    assert_eq!(
        messages.last().expect("the request has the output")["content"],
        logs.trim()
    );
    call.answer_text("Done.").await;
    let streamed = fixture.end(stream).await;
    assert_eq!(streamed.run["status"], "completed", "{}", streamed.run);
    let outputs = &call_of(&streamed)["code_interpreter"]["outputs"];
    assert_eq!(*outputs, json!([{"type": "logs", "logs": logs}]));
    assert_eq!(fixture.worker.take_log(), ["nul"], "it ran once");
}

#[tokio::test]
async fn code_may_hold_any_character() {
    let fixture = RunFixture::new().await;
    let thread = fixture.client.create_thread("Go.").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    fixture
        .model
        .next_call()
        .await
        .answer_code("say a\0b")
        .await;
    fixture.model.next_call().await.answer_text("Done.").await;
    let streamed = fixture.end(stream).await;
    assert_eq!(streamed.run["status"], "completed", "{}", streamed.run);
    let code = &call_of(&streamed)["code_interpreter"];
    assert_eq!(code["input"], "say a\u{fffd}b");
    assert_eq!(code["outputs"][0]["logs"], "a\u{fffd}b\n");
}

#[tokio::test]
async fn what_a_model_says_may_hold_any_character() {
    let fixture = RunFixture::new().await;
    for key in ["content", "refusal"] {
        let thread = fixture.client.create_thread("Hello?").await;
        let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
        let mut answer = fixture.model.next_call().await.start_answer();
        for text in ["Name:", " A\0B"] {
            let choice = json!({"index": 0, "delta": {key: text}, "finish_reason": null});
            answer.send_chunk(json!([choice]), Value::Null).await;
        }
        answer.finish().await;
        let streamed = fixture.end(stream).await;
        assert_eq!(streamed.run["status"], "completed", "{}", streamed.run);
        let message = streamed
            .messages
            .values()
            .next()
            .expect("there is a message");
        let part = &message["content"][0];
        let texts = [&part["text"]["value"], &part["refusal"]];
        assert!(texts.contains(&&json!("Name: A\u{fffd}B")), "{message}");
    }
}

#[tokio::test]
async fn the_calls_of_a_model_may_hold_any_character() {
    let fixture = RunFixture::new().await;
    let thread = fixture.client.create_thread("Hello?").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    let mut answer = fixture.model.next_call().await.start_answer();
    let function = json!({"name": "get_weather", "arguments": "{\"city\": \"A\0B\"}"});
    let call = json!({"index": 0, "id": "call_\0", "type": "function", "function": function});
    let choice = json!({"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": null});
    answer.send_chunk(json!([choice]), Value::Null).await;
    answer.finish().await;
    let streamed = event_stream::check(&stream.read_to_end().await);
    let run = streamed.run;
    assert_eq!(run["status"], "requires_action", "{run}");
    let call = &run["required_action"]["submit_tool_outputs"]["tool_calls"][0];
    assert_eq!(call["function"]["arguments"], "{\"city\": \"A\u{fffd}B\"}");
    let outputs = json!({"tool_outputs": [{"tool_call_id": call["id"], "output": "sunny"}]});
    let run = id(&run);
    let path = format!("/threads/{thread}/runs/{run}/submit_tool_outputs");
    fixture.client.post(&path, outputs).await;
    fixture.model.next_call().await.answer_text("Done.").await;
    fixture
        .client
        .wait_for_status(&thread, &run, &["completed"])
        .await;

    // The server's output for an unknown function contains the function's name.
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    let mut answer = fixture.model.next_call().await.start_answer();
    answer.send_tool_call(0, "get\0", &["{}"]).await;
    answer.finish().await;
    fixture.model.next_call().await.answer_text("Done.").await;
    let streamed = fixture.end(stream).await;
    assert_eq!(streamed.run["status"], "completed", "{}", streamed.run);
}

#[tokio::test]
async fn the_error_of_a_model_server_may_hold_any_character() {
    let fixture = RunFixture::new().await;
    let thread = fixture.client.create_thread("Hello?").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    fixture
        .model
        .next_call()
        .await
        .answer_error(400, "bad", "No such\0field.");
    let streamed = fixture.end(stream).await;
    assert_eq!(streamed.run["status"], "failed");
    let message = streamed.run["last_error"]["message"]
        .as_str()
        .expect("the value is a string");
    assert!(message.contains("No such\u{fffd}field."), "{message}");
}

#[tokio::test]
async fn a_search_may_be_for_any_character() {
    let fixture = RetrievalFixture::start().await;
    let (store, _) = fixture.create_store_with("ice.txt", "An iceberg.").await;
    let resources = json!({"file_search": {"vector_store_ids": [store]}});
    let tools = json!([{"type": "file_search"}]);
    let body = json!({"model": "fake", "tools": tools, "tool_resources": resources});
    let assistant = fixture.client.create_assistant_with(body).await;
    let thread = fixture.client.create_thread("Where?").await;
    let stream = fixture.client.stream_run(&thread, &assistant).await;
    fixture
        .model
        .next_call()
        .await
        .answer_search(&["an ice\0berg"])
        .await;
    fixture.model.next_call().await.answer_text("Here.").await;
    let streamed = event_stream::check(&stream.read_to_end().await);
    assert_eq!(streamed.run["status"], "completed", "{}", streamed.run);
}

#[tokio::test]
async fn documents_may_hold_any_character() {
    let fixture = RetrievalFixture::start().await;
    let prose = "The tide rises twice a day, and falls as often. ".repeat(4);
    for (name, text) in [
        ("a.txt", format!("{prose}A\0B")),
        ("a.md", format!("# Ti\0de\n\n{prose}A\0B")),
        (
            "a.html",
            format!("<html><body><h1>T&#0;</h1><p>{prose}A\0B&#0;C"),
        ),
    ] {
        let (store, file) = fixture.create_store_with(name, &text).await;
        let object = fixture.store_file(&store, &file).await;
        assert_eq!(object["status"], "completed", "{name}: {object}");
        let text = fixture.parsed_text(&store, &file).await;
        assert!(
            text.contains("rises twice") && !text.contains('\0'),
            "{text}"
        );
    }
}
