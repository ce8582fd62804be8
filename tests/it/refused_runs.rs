//! Rows that the database rejects fail the run that produced them, once, and no other run.

use serde_json::{Value, json};

use crate::client::{Client, Event};
use crate::cluster::Db;
use crate::event_stream;
use crate::eventually;
use crate::fake_model::FakeModel;
use crate::fake_worker::FakeWorker;
use crate::server::Server;

/// A server with a fake model and sandbox worker, on a database that rejects rows.
struct RunFixture {
    db: Db,
    model: FakeModel,
    worker: FakeWorker,
    server: Server,
    client: Client,
    assistant: String,
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
        let assistant = json!({"model": "fake", "tools": tools});
        let assistant = client.create_assistant_with(assistant).await;
        Self {
            db,
            model,
            worker,
            server,
            client,
            assistant,
        }
    }

    /// The assistant's messages on a thread.
    async fn answers(&self, thread: &str) -> Vec<Value> {
        let path = format!("/threads/{thread}/messages");
        let messages = self.client.list(&path).await.into_iter();
        let answers = messages.filter(|message| message["role"] == "assistant");
        answers.collect()
    }

    /// Checks that the last event in the run's log equals this one.
    async fn check_log(&self, run: &Value, last: &str) {
        let (thread, run) = (as_text(&run["thread_id"]), as_text(&run["id"]));
        let events = self
            .client
            .follow(thread, run, None)
            .await
            .read_to_end()
            .await;
        assert_eq!(events[events.len() - 2].name, last);
    }
}

fn as_text(value: &Value) -> &str {
    value.as_str().expect("the value is a string")
}

/// Checks the stream of a run that failed with a server error; the run.
#[track_caller]
fn assert_failed(events: &[Event]) -> Value {
    let streamed = event_stream::check(events);
    assert_eq!(streamed.run["status"], "failed", "{}", streamed.run);
    assert_eq!(streamed.run["last_error"]["code"], "server_error");
    assert_eq!(
        streamed.run["last_error"]["message"],
        "Sorry, something went wrong."
    );
    streamed.run
}

#[tokio::test]
async fn a_run_whose_answer_is_refused_fails_once() {
    let fixture = RunFixture::new().await;
    for code in ["22P05", "23514", "P0001"] {
        fixture
            .db
            .reject_rows("messages", "new.content::text like '%poison%'", code)
            .await;
        let thread = fixture.client.create_thread("Hello?").await;
        let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
        fixture
            .model
            .next_call()
            .await
            .answer_text("Some poison.")
            .await;
        let run = assert_failed(&stream.read_to_end().await);
        let path = format!("/threads/{thread}/runs/{}", as_text(&run["id"]));
        assert_eq!(fixture.client.get(&path).await, run, "{code}");
        assert_eq!(run["usage"]["completion_tokens"], 5, "it was paid for");
        fixture.check_log(&run, "thread.run.failed").await;
        assert_eq!(fixture.answers(&thread).await, Vec::<Value>::new());

        // The thread accepts further runs.
        let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
        fixture.model.next_call().await.answer_text("Hello!").await;
        let streamed = event_stream::check(&stream.read_to_end().await);
        assert_eq!(streamed.run["status"], "completed");
        fixture.db.accept_rows("messages").await;
    }
    assert!(fixture.model.is_idle().await, "the model was called again");
    let attempts: i32 = fixture.db.value("select max(attempt) from runs").await;
    assert_eq!(attempts, 1);
}

#[tokio::test]
async fn code_whose_output_is_refused_is_run_once() {
    let fixture = RunFixture::new().await;
    // The code is stored before its execution.
    let output = "new.details::text ~ 'outputs.*poison'";
    fixture.db.reject_rows("run_steps", output, "22P05").await;
    let thread = fixture.client.create_thread("Go.").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    fixture
        .model
        .next_call()
        .await
        .answer_code("say poison")
        .await;
    let run = assert_failed(&stream.read_to_end().await);
    assert_eq!(fixture.worker.take_log(), ["say poison"]);
    let path = format!("/threads/{thread}/runs/{}/steps", as_text(&run["id"]));
    let steps = fixture.client.list(&path).await;
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0]["status"], "failed", "it was left in progress");
    assert_eq!(steps[0]["last_error"], run["last_error"]);
    fixture.check_log(&run, "thread.run.failed").await;
    assert!(fixture.model.is_idle().await, "the model was called again");
}

#[tokio::test]
async fn calls_that_are_refused_fail_the_run_before_the_caller_sees_them() {
    let fixture = RunFixture::new().await;
    let poison = "new.details::text like '%poison%'";
    fixture.db.reject_rows("run_steps", poison, "22021").await;
    let thread = fixture.client.create_thread("Go.").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    let mut answer = fixture.model.next_call().await.start_answer();
    answer
        .send_tool_call(0, "get_weather", &["\"poison\""])
        .await;
    answer.finish().await;
    assert_failed(&stream.read_to_end().await);
    assert!(fixture.model.is_idle().await, "the model was called again");
}

#[tokio::test]
async fn a_run_is_cancelled_even_if_what_it_has_said_is_refused() {
    let fixture = RunFixture::new().await;
    let poison = "new.content::text like '%poison%'";
    fixture.db.reject_rows("messages", poison, "P0001").await;
    let thread = fixture.client.create_thread("Hello?").await;
    let mut stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    let mut answer = fixture.model.next_call().await.start_answer();
    answer.send_text("Some poison").await;
    let mut seen = stream.until("thread.message.delta").await;
    let run = as_text(&seen[0].data["id"]).to_owned();
    let path = format!("/threads/{thread}/runs/{run}");
    fixture
        .client
        .post(&format!("{path}/cancel"), json!({}))
        .await;
    seen.extend(stream.read_to_end().await);
    let streamed = event_stream::check(&seen);
    assert_eq!(streamed.run["status"], "cancelled");
    assert_eq!(fixture.client.get(&path).await, streamed.run);
    assert_eq!(fixture.answers(&thread).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_run_that_cannot_be_ended_is_only_ended_again_and_later_each_time() {
    let fixture = RunFixture::new().await;
    fixture
        .db
        .reject_rows("runs", "new.ended_at is not null", "P0001")
        .await;
    let thread = fixture.client.create_thread("Go.").await;
    let run = fixture.client.create_run(&thread, &fixture.assistant).await;
    fixture.model.next_call().await.answer_code("say one").await;
    fixture.model.next_call().await.answer_text("One.").await;
    eventually("a third attempt", || async {
        let attempt: i32 = fixture.db.value("select attempt from runs").await;
        (attempt >= 3).then_some(())
    })
    .await;
    let status: String = fixture.db.value("select status from runs").await;
    assert_eq!(status, "in_progress");
    fixture.db.accept_rows("runs").await;
    let run = fixture
        .client
        .wait_for_status(&thread, &run, &["failed"])
        .await;
    assert_eq!(run["last_error"]["code"], "server_error");
    fixture.check_log(&run, "thread.run.failed").await;
    assert_eq!(fixture.worker.take_log(), ["say one"]);
    assert!(fixture.model.is_idle().await, "the model was called again");
    assert!(
        fixture.server.log().matches("trying again later").count() < 6,
        "attempts have pauses"
    );
}

#[tokio::test]
async fn a_run_whose_events_are_refused_ends_without_them() {
    let fixture = RunFixture::new().await;
    fixture.db.reject_rows("run_events", "true", "P0001").await;
    let thread = fixture.client.create_thread("Hello?").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    fixture.model.next_call().await.answer_text("Hello!").await;
    let run = assert_failed(&stream.read_to_end().await);
    let path = format!("/threads/{thread}/runs/{}", as_text(&run["id"]));
    assert_eq!(fixture.client.get(&path).await, run);
    assert!(fixture.model.is_idle().await, "the model was called again");
}

#[tokio::test]
async fn events_that_are_refused_hold_up_no_other_run() {
    let fixture = RunFixture::new().await;
    let poison = "new.events like '%poison%'";
    fixture.db.reject_rows("run_events", poison, "P0001").await;
    let client = &fixture.client;
    let thread = client.create_thread("Hello?").await;
    let mut poisoned = client.stream_run(&thread, &fixture.assistant).await;
    let mut first = fixture.model.next_call().await.start_answer();
    first.send_text("Some poison").await;
    let mut seen = poisoned.until("thread.message.delta").await;

    // Another replica can only read the stored event log.
    let there = Server::start(&fixture.db, &fixture.model.settings()).await;
    let thread = client.create_thread("Hello?").await;
    let run = client.create_run(&thread, &fixture.assistant).await;
    let mut second = fixture.model.next_call().await.start_answer();
    let mut reader = there.client().follow(&thread, &run, None).await;
    second.send_text("Hello").await;
    let mut read = reader.until("thread.message.delta").await;
    second.finish().await;
    read.extend(reader.read_to_end().await);
    assert_eq!(event_stream::check(&read).run["status"], "completed");

    first.finish().await;
    seen.extend(poisoned.read_to_end().await);
    let run = assert_failed(&seen);
    fixture.check_log(&run, "thread.run.failed").await;
}
