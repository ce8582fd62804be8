//! Runs that expire, and runs whose process stops or is killed.

use reqwest::Method;
use serde_json::json;

use crate::client::id;
use crate::cluster::Db;
use crate::event_stream;
use crate::fake_model::FakeModel;
use crate::proxy::{KillPoint, Proxy};
use crate::server::Server;
use crate::two_replicas::TwoReplicas;

/// A lease that outlives every test.
const NEVER: (&str, &str) = ("ASSISTD_LEASE", "1h");

/// Longer than a run needs to reach the state in which it is to expire, on a busy machine.
const EXPIRES_SOON: (&str, &str) = ("ASSISTD_RUN_EXPIRY", "10s");

#[tokio::test]
async fn a_run_expires_while_its_model_is_silent() {
    let replicas = TwoReplicas::start(&[NEVER, EXPIRES_SOON]).await;
    let client = replicas.first.client();
    let thread = client.create_thread("Hello?").await;
    let stream = client.stream_run(&thread, &replicas.assistant).await;
    let mut answer = replicas.model.next_call().await.start_answer();
    answer.send_text("One").await;
    let streamed = event_stream::check(&stream.read_to_end().await);
    assert_eq!(streamed.run["status"], "expired");
    let [message] = streamed.messages.values().collect::<Vec<_>>()[..] else {
        panic!("{streamed:?}");
    };
    assert_eq!(message["incomplete_details"]["reason"], "run_expired");
    assert!(
        streamed
            .steps
            .values()
            .all(|step| step["status"] == "expired")
    );
    let stored = client.list(&format!("/threads/{thread}/messages")).await;
    assert_eq!(stored[1], *message);
    answer.wait_until_closed().await;
}

#[tokio::test]
async fn a_run_expires_while_it_waits_for_the_caller() {
    let db = Db::new().await;
    let server = Server::start(&db, &[NEVER]).await;
    let client = server.client();
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let body = json!({"model": "scripted/weather", "tools": [function]});
    let assistant = client.create_assistant_with(body).await;
    let thread = client.create_thread("Hello?").await;
    let run = client.create_run(&thread, &assistant).await;
    client
        .wait_for_status(&thread, &run, &["requires_action"])
        .await;
    sqlx::query("update runs set expires_at = now(), due_at = now()")
        .execute(&db.pool)
        .await
        .expect("the database answers");
    let expired = client.wait_for_status(&thread, &run, &["expired"]).await;
    assert!(expired["required_action"].is_null(), "{expired}");
    let streamed =
        event_stream::check(&client.follow(&thread, &run, None).await.read_to_end().await);
    assert_eq!(streamed.run, expired);
    let steps = client
        .list(&format!("/threads/{thread}/runs/{run}/steps"))
        .await;
    let statuses: Vec<_> = steps.iter().map(|step| &step["status"]).collect();
    assert_eq!(statuses, ["completed", "expired"]);
}

#[tokio::test]
async fn a_run_expires_while_it_waits_for_a_worker() {
    let db = Db::new().await;
    let model = FakeModel::start().await;
    let one_slot = ("ASSISTD_MAX_CONCURRENT_RUNS", "1");
    let settings = [&model.settings()[..], &[NEVER, one_slot]].concat();
    let patient = Server::start(&db, &settings).await;
    let hasty = Server::start(&db, &[&settings[..], &[EXPIRES_SOON]].concat()).await;
    let client = patient.client();
    let assistant = client.create_assistant_with(json!({"model": "fake"})).await;
    // Both replicas are fully used by runs that do not expire soon.
    let mut silent = Vec::new();
    for _ in 0..2 {
        let thread = client.create_thread("Hello?").await;
        client.create_run(&thread, &assistant).await;
        silent.push(model.next_call().await);
    }
    let client = hasty.client();
    let thread = client.create_thread("Hello?").await;
    let run = client.create_run(&thread, &assistant).await;
    let expired = client.wait_for_status(&thread, &run, &["expired"]).await;
    assert!(expired["started_at"].is_null(), "{expired}");
    let streamed =
        event_stream::check(&client.follow(&thread, &run, None).await.read_to_end().await);
    assert_eq!(streamed.run, expired);
    assert!(streamed.steps.is_empty());
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_lets_its_runs_finish() {
    let mut replicas = TwoReplicas::start(&[NEVER, ("ASSISTD_SHUTDOWN_GRACE", "1h")]).await;
    let client = replicas.first.client();
    let thread = client.create_thread("Hello?").await;
    let mut stream = client.stream_run(&thread, &replicas.assistant).await;
    let mut answer = replicas.model.next_call().await.start_answer();
    answer.send_text("One").await;
    let mut seen = stream.until("thread.message.delta").await;
    replicas.first.terminate();
    // A stopping server refuses connections.
    crate::eventually("the end of the listener", || async {
        let client = replicas.first.client();
        let sent = client.send(Method::GET, "//healthz", None).await;
        sent.is_err().then_some(())
    })
    .await;
    answer.send_text(" two").await;
    answer.finish().await;
    seen.extend(stream.read_to_end().await);
    let streamed = event_stream::check(&seen);
    assert_eq!(streamed.run["status"], "completed");
    assert!(replicas.first.wait().await.success());
}

#[tokio::test]
async fn a_server_that_stops_gives_back_what_it_cannot_finish() {
    let mut replicas = TwoReplicas::start(&[NEVER, ("ASSISTD_SHUTDOWN_GRACE", "10ms")]).await;
    let (thread, run) = replicas.create_run().await;
    let mut abandoned = replicas.model.next_call().await.start_answer();
    abandoned.send_text("One").await;
    replicas.first.terminate();
    replicas.model.next_call().await.answer_text("Hello!").await;
    let client = replicas.second.client();
    let ended = client.wait_for_status(&thread, &run, &["completed"]).await;
    assert!(replicas.first.wait().await.success());
    let streamed =
        event_stream::check(&client.follow(&thread, &run, None).await.read_to_end().await);
    assert_eq!(streamed.run, ended);
    let messages = client.list(&format!("/threads/{thread}/messages")).await;
    assert_eq!(messages.len(), 2, "{messages:#?}");
    assert_eq!(event_stream::text(&messages[1]), "Hello!");
}

#[tokio::test]
async fn a_replica_takes_over_the_runs_of_one_that_was_killed() {
    let replicas = TwoReplicas::start(&[("ASSISTD_LEASE", "1s")]).await;
    let (thread, run) = replicas.create_run().await;
    let client = replicas.second.client();
    let mut stream = client.follow(&thread, &run, None).await;
    let mut abandoned = replicas.model.next_call().await.start_answer();
    abandoned.send_text("One").await;
    let mut seen = stream.until("thread.message.delta").await;
    replicas.first.kill().await;
    replicas.model.next_call().await.answer_text("Hello!").await;
    seen.extend(stream.read_to_end().await);

    // The stream ends the first message, then has the whole second one.
    let streamed = event_stream::check(&seen);
    let mut messages: Vec<_> = streamed.messages.values().collect();
    messages.sort_by_key(|message| message["status"].to_string());
    let [whole, broken] = messages[..] else {
        panic!("{messages:#?}");
    };
    assert_eq!(broken["incomplete_details"]["reason"], "run_failed");
    assert_eq!(event_stream::text(broken), "One");
    let stored = client.list(&format!("/threads/{thread}/messages")).await;
    assert_eq!(stored.len(), 2, "the broken message was never stored");
    assert_eq!(stored[1], *whole);
    let ended = client.get(&format!("/threads/{thread}/runs/{run}")).await;
    assert_eq!(ended["status"], "completed");
    assert_eq!(id(&ended), run);
}

#[tokio::test]
async fn outputs_whose_taker_died_are_told_of_even_when_the_run_is_cancelled() {
    let db = Db::new().await;
    let proxy = Proxy::start(&db).await;
    let settings = [("ASSISTD_LEASE", "4s")];
    let mut server = Server::start_at(&proxy.url, &settings).await;
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let body = json!({"model": "scripted/weather", "tools": [function]});
    let assistant = server.client().create_assistant_with(body).await;
    // The test searches for the statement that commits the outputs. Its number varies: a new
    // connection needs additional statements.
    let mut statement: usize = 1;
    for _ in 0..40 {
        let client = server.client();
        let thread = client.create_thread("Hello?").await;
        let run = client.create_run(&thread, &assistant).await;
        let waiting = client
            .wait_for_status(&thread, &run, &["requires_action"])
            .await;
        let call = &waiting["required_action"]["submit_tool_outputs"]["tool_calls"][0]["id"];
        let outputs = json!({"tool_outputs": [{"tool_call_id": call, "output": "sunny"}]});
        let path = format!("/threads/{thread}/runs/{run}");
        let submit = format!("{path}/submit_tool_outputs");
        proxy.kill_at(statement, KillPoint::BeforeReply, server.pid());
        let sent = client.send(Method::POST, &submit, Some(&outputs)).await;
        if proxy.disarm() {
            server.kill().await;
        } else {
            server.wait().await;
        }
        server = Server::start_at(&proxy.url, &settings).await;
        if sent.is_ok() {
            // Killed too late: the server had responded, and maybe continued the run.
            statement = statement.saturating_sub(1).max(1);
            continue;
        }
        let client = server.client();
        if client.get(&path).await["status"] == "requires_action" {
            statement += 1;
            continue;
        }
        client.post(&format!("{path}/cancel"), json!({})).await;
        let ended = client.wait_for_status(&thread, &run, &["cancelled"]).await;
        let streamed =
            event_stream::check(&client.follow(&thread, &run, None).await.read_to_end().await);
        assert_eq!(streamed.run, ended);
        let statuses: Vec<_> = streamed
            .steps
            .values()
            .map(|step| &step["status"])
            .collect();
        assert_eq!(statuses, ["completed", "completed"]);
        return;
    }
    panic!("the server was never killed just after it had committed the outputs");
}
