//! Every reader of a run sees the same events: early or late, on this replica or another one.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Event, id};
use crate::cluster::Db;
use crate::event_stream;
use crate::fake_model::FakeModel;
use crate::server::Server;
use crate::two_replicas::TwoReplicas;

fn deltas(events: &[Event]) -> String {
    let deltas = events
        .iter()
        .filter(|event| event.name == "thread.message.delta");
    deltas.map(delta).collect()
}

fn delta(event: &Event) -> &str {
    let text = event.data["delta"]["content"][0]["text"]["value"].as_str();
    text.unwrap_or_else(|| panic!("no text in {event:?}"))
}

#[tokio::test]
async fn a_late_follower_sees_what_an_early_one_saw_on_every_replica() {
    let replicas = TwoReplicas::start(&[]).await;
    let (here, there) = (replicas.first.client(), replicas.second.client());
    let (thread, run) = replicas.create_run().await;
    let mut early = here.follow(&thread, &run, None).await;
    let mut far = there.follow(&thread, &run, None).await;
    let mut answer = replicas.model.next_call().await.start_answer();
    answer.send_text("One").await;
    let mut seen = early.until("thread.message.delta").await;
    let mut seen_far = far.until("thread.message.delta").await;
    let mut midway = here.follow(&thread, &run, None).await;
    let mut seen_midway = midway.until("thread.message.delta").await;
    for word in [" two", " three", " four"] {
        answer.send_text(word).await;
        seen.push(early.next().await);
    }
    answer.finish().await;
    seen.extend(early.read_to_end().await);
    seen_far.extend(far.read_to_end().await);
    seen_midway.extend(midway.read_to_end().await);

    event_stream::check(&seen);
    assert_eq!(deltas(&seen), "One two three four");
    assert_eq!(seen_midway, seen, "midway");
    assert_eq!(seen_far, seen, "on the other replica");
    for client in [&here, &there] {
        let late = client.follow(&thread, &run, None).await.read_to_end().await;
        assert_eq!(late, seen, "afterwards");
    }
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_exactly_the_rest() {
    let replicas = TwoReplicas::start(&[]).await;
    let (here, there) = (replicas.first.client(), replicas.second.client());
    let (thread, run) = replicas.create_run().await;
    let mut answer = replicas.model.next_call().await.start_answer();
    let mut first = here.follow(&thread, &run, None).await;
    answer.send_text("One").await;
    let seen = first.until("thread.message.delta").await;
    drop(first);
    answer.send_text(" two").await;
    let last_seen = seen.last().map(|event| event.id.as_str());
    let mut back_here = here.follow(&thread, &run, last_seen).await;
    let mut back_there = there.follow(&thread, &run, last_seen).await;
    assert_eq!(delta(&back_here.next().await), " two");
    assert_eq!(delta(&back_there.next().await), " two");
    answer.finish().await;
    back_here.read_to_end().await;

    let whole = there.follow(&thread, &run, None).await.read_to_end().await;
    for client in [&here, &there] {
        for (n, event) in whole[..whole.len() - 1].iter().enumerate() {
            let rest = client
                .follow(&thread, &run, Some(&event.id))
                .await
                .read_to_end()
                .await;
            let names = |events: &[Event]| -> Vec<(String, Value)> {
                let named = |event: &Event| (event.name.clone(), event.data.clone());
                events.iter().map(named).collect()
            };
            assert_eq!(names(&rest), names(&whole[n + 1..]), "after {}", event.id);
        }
    }
}

#[tokio::test]
async fn a_socket_that_is_dropped_does_not_end_the_run() {
    let replicas = TwoReplicas::start(&[]).await;
    let client = replicas.first.client();
    let thread = client.create_thread("Hello?").await;
    let mut stream = client.stream_run(&thread, &replicas.assistant).await;
    let mut answer = replicas.model.next_call().await.start_answer();
    answer.send_text("One").await;
    let seen = stream.until("thread.message.delta").await;
    drop(stream);
    answer.send_text(" two").await;
    answer.finish().await;
    let run = id(&seen[0].data);
    client.wait_for_status(&thread, &run, &["completed"]).await;
    let messages = client.list(&format!("/threads/{thread}/messages")).await;
    assert_eq!(event_stream::text(&messages[1]), "One two");
}

#[tokio::test]
async fn a_cancellation_on_one_replica_ends_a_run_on_another() {
    let replicas = TwoReplicas::start(&[]).await;
    let client = replicas.first.client();
    let thread = client.create_thread("Hello?").await;
    let mut stream = client.stream_run(&thread, &replicas.assistant).await;
    let mut answer = replicas.model.next_call().await.start_answer();
    answer.send_text("One").await;
    let mut seen = stream.until("thread.message.delta").await;
    let run = id(&seen[0].data);
    let path = format!("/threads/{thread}/runs/{run}/cancel");
    let cancelled = replicas.second.client().post(&path, json!({})).await;
    assert_eq!(cancelled["status"], "cancelling");

    seen.extend(stream.read_to_end().await);
    let streamed = event_stream::check(&seen);
    assert_eq!(streamed.run["status"], "cancelled");
    let [message] = streamed.messages.values().collect::<Vec<_>>()[..] else {
        panic!("{streamed:?}");
    };
    assert_eq!(message["incomplete_details"]["reason"], "run_cancelled");
    assert_eq!(event_stream::text(message), "One");
    answer.wait_until_closed().await;
}

async fn statuses(calls: Vec<(Client, String, Value)>) -> Vec<u16> {
    let calls = calls.into_iter().map(|(client, path, body)| async move {
        let sent = client.send(Method::POST, &path, Some(&body)).await;
        let reply = sent.expect("the server answers");
        if reply.status != 200 {
            assert_eq!(reply.body["error"]["type"], "invalid_request_error");
        }
        reply.status
    });
    let mut statuses = futures::future::join_all(calls).await;
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn of_many_runs_that_are_created_on_a_thread_at_once_there_is_one() {
    let replicas = TwoReplicas::start(&[]).await;
    let clients = [replicas.first.client(), replicas.second.client()];
    for _ in 0..5 {
        let thread = clients[0].create_thread("Hello?").await;
        let path = format!("/threads/{thread}/runs");
        let body = json!({"assistant_id": replicas.assistant});
        let calls = clients.iter().cycle().take(8);
        let calls = calls.map(|client| (client.clone(), path.clone(), body.clone()));
        let statuses = statuses(calls.collect()).await;
        assert_eq!(statuses, [200, 400, 400, 400, 400, 400, 400, 400]);
        assert_eq!(clients[0].list(&path).await.len(), 1);
        replicas.model.next_call().await.answer_text("Hello!").await;
    }
}

#[tokio::test]
async fn of_outputs_that_are_submitted_twice_at_once_one_is_taken() {
    let replicas = TwoReplicas::start(&[]).await;
    let clients = [replicas.first.client(), replicas.second.client()];
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let body = json!({"model": "scripted/weather", "tools": [function]});
    let assistant = clients[0].create_assistant_with(body).await;
    for _ in 0..5 {
        let thread = clients[0].create_thread("Hello?").await;
        let run = clients[0].create_run(&thread, &assistant).await;
        let waiting = clients[0]
            .wait_for_status(&thread, &run, &["requires_action"])
            .await;
        let call = &waiting["required_action"]["submit_tool_outputs"]["tool_calls"][0]["id"];
        let path = format!("/threads/{thread}/runs/{run}/submit_tool_outputs");
        let body = |output| json!({"tool_outputs": [{"tool_call_id": call, "output": output}]});
        let calls = clients.iter().zip(["sunny", "rainy"]);
        let calls = calls.map(|(client, output)| (client.clone(), path.clone(), body(output)));
        assert_eq!(statuses(calls.collect()).await, [200, 400]);
        clients[0]
            .wait_for_status(&thread, &run, &["completed"])
            .await;
        let steps = clients[0]
            .list(&format!("/threads/{thread}/runs/{run}/steps"))
            .await;
        assert_eq!(steps.len(), 3, "the outputs were used once: {steps:#?}");
    }
}

#[tokio::test]
async fn a_reader_hears_what_becomes_of_outputs_that_wait_for_a_worker() {
    let db = Db::new().await;
    let model = FakeModel::start().await;
    let settings = [
        &[("ASSISTD_MAX_CONCURRENT_RUNS", "1")],
        &model.settings()[..],
    ]
    .concat();
    let server = Server::start(&db, &settings).await;
    let client = server.client();
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let body = json!({"model": "fake", "tools": [function]});
    let assistant = client.create_assistant_with(body).await;
    let thread = client.create_thread("What is it like outside?").await;
    let run = client.create_run(&thread, &assistant).await;
    let mut answer = model.next_call().await.start_answer();
    answer.send_tool_call(0, "get_weather", &["{}"]).await;
    answer.finish().await;
    let first = client.follow(&thread, &run, None).await.read_to_end().await;
    let waiting = event_stream::check(&first).run;
    assert_eq!(waiting["status"], "requires_action");

    let other = client.create_thread("Hello?").await;
    client.create_run(&other, &assistant).await;
    let busy = model.next_call().await;
    let call = &waiting["required_action"]["submit_tool_outputs"]["tool_calls"][0]["id"];
    let outputs = json!({"tool_outputs": [{"tool_call_id": call, "output": "sunny"}]});
    let path = format!("/threads/{thread}/runs/{run}/submit_tool_outputs");
    client.post(&path, outputs).await;
    let mut reader = client.follow(&thread, &run, None).await;
    let mut events = reader.until("thread.run.requires_action").await;
    busy.answer_text("Hello!").await;
    model.next_call().await.answer_text("Sunny.").await;
    events.extend(reader.read_to_end().await);
    assert_eq!(event_stream::check(&events).run["status"], "completed");
    assert_eq!(deltas(&events), "Sunny.");
}

#[tokio::test]
async fn no_token_waits_for_the_database() {
    let model = FakeModel::start().await;
    let mut server = Server::start_at("", &model.settings()).await;
    let client = server.client();
    let assistant = client.create_assistant_with(json!({"model": "fake"})).await;
    let thread = client.create_thread("Hello?").await;
    let mut stream = client.stream_run(&thread, &assistant).await;
    let mut answer = model.next_call().await.start_answer();
    answer.send_text("One").await;
    stream.until("thread.message.delta").await;

    let postgres = server.pause_database();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.send(Method::GET, "//readyz", None).await }
    });
    // Longer than the server's periodic tasks take.
    let started = Instant::now();
    let mut word = 0;
    while word < 50 || started.elapsed() < Duration::from_secs(1) {
        answer.send_text(&format!(" {word}")).await;
        assert_eq!(delta(&stream.next().await), format!(" {word}"));
        word += 1;
    }
    assert!(!waiting.is_finished(), "the database answered meanwhile");
    postgres.resume();
    answer.finish().await;
    let rest = stream.read_to_end().await;
    let names: Vec<&str> = rest.iter().map(|event| event.name.as_str()).collect();
    assert!(names.contains(&"thread.run.completed"), "{names:?}");
    let answered = waiting.await.expect("the task does not panic");
    answered.expect("the server answers");
    server.terminate();
    assert!(server.wait().await.success());
}
