//! What the database refuses to store ends the run that produced it, once, and no other.

use serde_json::{Value, json};

use crate::client::{Client, Event};
use crate::cluster::Db;
use crate::event_stream;
use crate::eventually;
use crate::fake_model::FakeModel;
use crate::fake_worker::FakeWorker;
use crate::server::Server;

/// A server with a model and a sandbox worker that tests play, on a database that refuses things.
struct Stage {
    db: Db,
    model: FakeModel,
    worker: FakeWorker,
    server: Server,
    client: Client,
    assistant: String,
}

impl Stage {
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

    /// Reads a run's events from the log, and checks that the last one is this.
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
    value.as_str().expect("it is text")
}

/// Checks the stream of a run that has failed through no fault of the client's; the run.
#[track_caller]
fn assert_failed(events: &[Event]) -> Value {
    let told = event_stream::check(events);
    assert_eq!(told.run["status"], "failed", "{}", told.run);
    assert_eq!(told.run["last_error"]["code"], "server_error");
    assert_eq!(
        told.run["last_error"]["message"],
        "Sorry, something went wrong."
    );
    told.run
}

#[tokio::test]
async fn a_run_whose_answer_is_refused_fails_once() {
    let stage = Stage::new().await;
    for code in ["22P05", "23514", "P0001"] {
        stage
            .db
            .reject_rows("messages", "new.content::text like '%poison%'", code)
            .await;
        let thread = stage.client.create_thread("Hello?").await;
        let stream = stage.client.stream_run(&thread, &stage.assistant).await;
        stage
            .model
            .next_call()
            .await
            .answer_text("Some poison.")
            .await;
        let run = assert_failed(&stream.read_to_end().await);
        let path = format!("/threads/{thread}/runs/{}", as_text(&run["id"]));
        assert_eq!(stage.client.get(&path).await, run, "{code}");
        assert_eq!(run["usage"]["completion_tokens"], 5, "it was paid for");
        stage.check_log(&run, "thread.run.failed").await;
        assert_eq!(stage.answers(&thread).await, Vec::<Value>::new());

        // The thread goes on.
        let stream = stage.client.stream_run(&thread, &stage.assistant).await;
        stage.model.next_call().await.answer_text("Hello!").await;
        let told = event_stream::check(&stream.read_to_end().await);
        assert_eq!(told.run["status"], "completed");
        stage.db.accept_rows("messages").await;
    }
    assert!(stage.model.is_idle().await, "nobody was asked again");
    let attempts: i32 = stage.db.value("select max(attempt) from runs").await;
    assert_eq!(attempts, 1);
}

#[tokio::test]
async fn code_whose_output_is_refused_is_run_once() {
    let stage = Stage::new().await;
    // The code itself is stored before it runs.
    let output = "new.details::text ~ 'outputs.*poison'";
    stage.db.reject_rows("run_steps", output, "22P05").await;
    let thread = stage.client.create_thread("Go.").await;
    let stream = stage.client.stream_run(&thread, &stage.assistant).await;
    stage
        .model
        .next_call()
        .await
        .answer_code("say poison")
        .await;
    let run = assert_failed(&stream.read_to_end().await);
    assert_eq!(stage.worker.log(), ["say poison"]);
    let path = format!("/threads/{thread}/runs/{}/steps", as_text(&run["id"]));
    let steps = stage.client.list(&path).await;
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0]["status"], "failed", "it was left in progress");
    assert_eq!(steps[0]["last_error"], run["last_error"]);
    stage.check_log(&run, "thread.run.failed").await;
    assert!(stage.model.is_idle().await, "nobody was asked again");
}

#[tokio::test]
async fn calls_that_are_refused_fail_the_run_before_the_caller_sees_them() {
    let stage = Stage::new().await;
    let poison = "new.details::text like '%poison%'";
    stage.db.reject_rows("run_steps", poison, "22021").await;
    let thread = stage.client.create_thread("Go.").await;
    let stream = stage.client.stream_run(&thread, &stage.assistant).await;
    let mut answer = stage.model.next_call().await.start_answer();
    answer
        .send_tool_call(0, "get_weather", &["\"poison\""])
        .await;
    answer.finish().await;
    assert_failed(&stream.read_to_end().await);
    assert!(stage.model.is_idle().await, "nobody was asked again");
}

#[tokio::test]
async fn a_run_is_cancelled_even_if_what_it_has_said_is_refused() {
    let stage = Stage::new().await;
    let poison = "new.content::text like '%poison%'";
    stage.db.reject_rows("messages", poison, "P0001").await;
    let thread = stage.client.create_thread("Hello?").await;
    let mut stream = stage.client.stream_run(&thread, &stage.assistant).await;
    let mut answer = stage.model.next_call().await.start_answer();
    answer.send_text("Some poison").await;
    let mut seen = stream.until("thread.message.delta").await;
    let run = as_text(&seen[0].data["id"]).to_owned();
    let path = format!("/threads/{thread}/runs/{run}");
    stage
        .client
        .post(&format!("{path}/cancel"), json!({}))
        .await;
    seen.extend(stream.read_to_end().await);
    let told = event_stream::check(&seen);
    assert_eq!(told.run["status"], "cancelled");
    assert_eq!(stage.client.get(&path).await, told.run);
    assert_eq!(stage.answers(&thread).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_run_that_cannot_be_ended_is_only_ended_again_and_later_each_time() {
    let stage = Stage::new().await;
    stage
        .db
        .reject_rows("runs", "new.ended_at is not null", "P0001")
        .await;
    let thread = stage.client.create_thread("Go.").await;
    let run = stage.client.create_run(&thread, &stage.assistant).await;
    stage.model.next_call().await.answer_code("say one").await;
    stage.model.next_call().await.answer_text("One.").await;
    eventually("a third attempt", || async {
        let attempt: i32 = stage.db.value("select attempt from runs").await;
        (attempt >= 3).then_some(())
    })
    .await;
    let status: String = stage.db.value("select status from runs").await;
    assert_eq!(status, "in_progress");
    stage.db.accept_rows("runs").await;
    let run = stage
        .client
        .wait_for_status(&thread, &run, &["failed"])
        .await;
    assert_eq!(run["last_error"]["code"], "server_error");
    stage.check_log(&run, "thread.run.failed").await;
    assert_eq!(stage.worker.log(), ["say one"]);
    assert!(stage.model.is_idle().await, "nobody was asked again");
    assert!(
        stage.server.log().matches("trying again later").count() < 6,
        "attempts have pauses"
    );
}

#[tokio::test]
async fn a_run_whose_events_are_refused_ends_without_them() {
    let stage = Stage::new().await;
    stage.db.reject_rows("run_events", "true", "P0001").await;
    let thread = stage.client.create_thread("Hello?").await;
    let stream = stage.client.stream_run(&thread, &stage.assistant).await;
    stage.model.next_call().await.answer_text("Hello!").await;
    let run = assert_failed(&stream.read_to_end().await);
    let path = format!("/threads/{thread}/runs/{}", as_text(&run["id"]));
    assert_eq!(stage.client.get(&path).await, run);
    assert!(stage.model.is_idle().await, "nobody was asked again");
}

#[tokio::test]
async fn events_that_are_refused_hold_up_no_other_run() {
    let stage = Stage::new().await;
    let poison = "new.events like '%poison%'";
    stage.db.reject_rows("run_events", poison, "P0001").await;
    let client = &stage.client;
    let thread = client.create_thread("Hello?").await;
    let mut poisoned = client.stream_run(&thread, &stage.assistant).await;
    let mut first = stage.model.next_call().await.start_answer();
    first.send_text("Some poison").await;
    let mut seen = poisoned.until("thread.message.delta").await;

    // Another replica has no other way than the log.
    let there = Server::start(&stage.db, &stage.model.settings()).await;
    let thread = client.create_thread("Hello?").await;
    let run = client.create_run(&thread, &stage.assistant).await;
    let mut second = stage.model.next_call().await.start_answer();
    let mut reader = there.client().follow(&thread, &run, None).await;
    second.send_text("Hello").await;
    let mut read = reader.until("thread.message.delta").await;
    second.finish().await;
    read.extend(reader.read_to_end().await);
    assert_eq!(event_stream::check(&read).run["status"], "completed");

    first.finish().await;
    seen.extend(poisoned.read_to_end().await);
    let run = assert_failed(&seen);
    stage.check_log(&run, "thread.run.failed").await;
}
