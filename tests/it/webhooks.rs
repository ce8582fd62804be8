//! Webhook deliveries: signed, at least once, in order per object, and whichever process is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use assistd::domain::audit::Actor;
use assistd::domain::ids::{EndpointId, ProjectId};
use assistd::domain::run::RunStatus;
use assistd::domain::webhook::{EventType, SigningSecret};
use assistd::store::run_queue::Changes;
use assistd::store::{self, Pool, webhook_deliveries, webhook_endpoints};
use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, id};
use crate::cluster::Db;
use crate::eventually;
use crate::retrieval_fixture::{EMBEDDING_MODEL, RetrievalFixture};
use crate::server::Server;
use crate::store_fixture::{StoreFixture, claimant, state};
use crate::webhook_receiver::{ALLOW_PRIVATE_ADDRESSES, WebhookReceiver};

/// The project of servers without API keys.
async fn project(pool: &Pool) -> ProjectId {
    let project = store::projects::find_or_create(pool, "default").await;
    project.expect("the database answers")
}

/// Ends back-off and leases of pending deliveries.
async fn make_deliveries_due(pool: &Pool) {
    sqlx::query("update webhook_deliveries set due_at = now() where due_at is not null")
        .execute(pool)
        .await
        .expect("the database answers");
}

async fn count(pool: &Pool, query: &'static str) -> i64 {
    let count = sqlx::query_scalar(query).fetch_one(pool).await;
    count.expect("the database answers")
}

/// Waits until this many attempts have failed.
async fn wait_for_failures(pool: &Pool, wanted: i64) {
    eventually("a failed delivery", || async {
        let failures = "select coalesce(sum(failures), 0)::bigint from webhook_deliveries";
        (count(pool, failures).await >= wanted).then_some(())
    })
    .await;
}

/// Waits until no delivery is pending.
async fn wait_until_delivered(pool: &Pool) {
    eventually("the end of all deliveries", || async {
        let waiting = "select count(*) from webhook_deliveries where due_at is not null";
        (count(pool, waiting).await == 0).then_some(())
    })
    .await;
}

/// The reason why the endpoint is disabled, if it is.
async fn disabled_reason(pool: &Pool, endpoint: &EndpointId) -> Option<String> {
    let endpoints = webhook_endpoints::list(pool, Some("default")).await;
    let endpoints = endpoints.expect("the database answers");
    let found = endpoints.into_iter().find(|found| found.id == *endpoint);
    let found = found.expect("the endpoint exists");
    found.disabled.map(|(_, reason)| reason)
}

/// Creates a run and waits until it requires action; the ids of thread and run.
async fn waiting_run(client: &Client) -> (String, String) {
    let function = json!({"name": "get_weather", "parameters": {}});
    let tools = json!([{"type": "function", "function": function}]);
    let body = json!({"model": "scripted/weather", "tools": tools, "metadata": {"k": "v"}});
    let assistant = client.create_assistant_with(body).await;
    let thread = client.create_thread("What is it like outside?").await;
    let run = client.create_run(&thread, &assistant).await;
    client
        .wait_for_status(&thread, &run, &["requires_action"])
        .await;
    (thread, run)
}

/// Submits an output and waits for the run's end.
async fn submit_output(client: &Client, thread: &str, run: &str) -> Value {
    let path = format!("/threads/{thread}/runs/{run}");
    let waiting = client.get(&path).await;
    let call = &waiting["required_action"]["submit_tool_outputs"]["tool_calls"][0]["id"];
    let outputs = json!({"tool_outputs": [{"tool_call_id": call, "output": "sunny"}]});
    client
        .post(&format!("{path}/submit_tool_outputs"), outputs)
        .await;
    client.wait_for_status(thread, run, &["completed"]).await
}

/// Executes a run; its id.
async fn finished_run(client: &Client, assistant: &str) -> String {
    let thread = client.create_thread("Hello?").await;
    let run = client.create_run(&thread, assistant).await;
    client.wait_for_status(&thread, &run, &["completed"]).await;
    run
}

#[tokio::test]
async fn a_run_is_told_signed_and_as_the_api_shows_it() {
    let db = Db::new().await;
    let receiver = WebhookReceiver::start().await;
    let project = project(&db.pool).await;
    let (_, secret) = receiver.subscribe(&db.pool, &project, &[]).await;
    let server = Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await;
    let client = server.client();

    let (thread, run) = waiting_run(&client).await;
    let shown = client.get(&format!("/threads/{thread}/runs/{run}")).await;
    let delivery = receiver.next_delivery().await;
    assert_eq!(delivery.signatures_by(&secret), 1);
    assert_eq!(delivery.headers["content-type"], "application/json");
    let event = &delivery.event;
    assert_eq!(event["id"], delivery.id());
    assert_eq!(event["object"], "event");
    assert_eq!(event["type"], "thread.run.requires_action");
    assert_eq!(event["data"], shown);
    let sent: i64 = delivery.headers["webhook-timestamp"]
        .parse()
        .expect("the value is in seconds");
    let happened = event["created_at"]
        .as_i64()
        .expect("the value is in seconds");
    assert!(
        (happened..happened + 60).contains(&sent),
        "{happened} {sent}"
    );
    let first = delivery.id().to_owned();
    delivery.answer(200);

    let shown = submit_output(&client, &thread, &run).await;
    let delivery = receiver.next_delivery().await;
    assert_eq!(delivery.signatures_by(&secret), 1);
    assert_eq!(delivery.event["type"], "thread.run.completed");
    assert_eq!(delivery.event["data"], shown);
    assert_ne!(delivery.id(), first);
    delivery.answer(200);
    assert!(!server.log().contains(&secret.reveal()));
}

#[tokio::test]
async fn every_end_of_a_run_is_told_and_nothing_else() {
    let fixture = StoreFixture::new().await;
    let receiver = WebhookReceiver::start().await;
    receiver
        .subscribe(fixture.pool(), &fixture.project, &[])
        .await;
    let worker = claimant("worker");
    let mut expected = Vec::new();
    for status in RunStatus::ALL {
        let has_event = status.is_terminal() || status == RunStatus::RequiresAction;
        let (run, lease) = fixture.create_leased_run(&worker).await;
        if status == RunStatus::Cancelling || status == RunStatus::Cancelled {
            let cancel =
                store::runs::cancel(fixture.pool(), &fixture.project, &run.thread, &run.id);
            cancel
                .await
                .expect("the database answers")
                .expect("the run is active");
        }
        if has_event {
            let state = state(&run, status);
            let changes = Changes {
                state: Some(&state),
                ..Changes::default()
            };
            let written = store::run_queue::commit(fixture.pool(), &worker, &lease, &changes).await;
            written.expect("the worker holds the lease");
            let kind = format!("thread.run.{}", status.as_str());
            assert!(kind.parse::<EventType>().is_ok(), "{kind}");
            expected.push((kind, run.id.to_string()));
        }
    }
    let events: Vec<(String, String)> =
        sqlx::query_as("select type, subject from webhook_events order by created_at")
            .fetch_all(fixture.pool())
            .await
            .expect("the database answers");
    assert_eq!(events, expected);
    let waiting = webhook_deliveries::count_pending(fixture.pool()).await;
    assert_eq!(waiting.expect("the database answers"), 6);
}

#[tokio::test]
async fn only_what_an_endpoint_asked_for_is_told_and_only_of_its_project() {
    let db = Db::new().await;
    let receiver = WebhookReceiver::start().await;
    let other = store::projects::find_or_create(&db.pool, "other").await;
    let other = other.expect("the database answers");
    receiver.subscribe(&db.pool, &other, &[]).await;
    let project = project(&db.pool).await;
    receiver
        .subscribe(&db.pool, &project, &["thread.run.failed"])
        .await;
    let server = Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await;
    let client = server.client();
    let assistant = client.create_assistant("hello").await;
    finished_run(&client, &assistant).await;
    assert_eq!(
        count(&db.pool, "select count(*) from webhook_events").await,
        0
    );
}

#[tokio::test]
async fn a_runs_later_event_waits_for_the_earlier_one() {
    let db = Db::new().await;
    let receiver = WebhookReceiver::start().await;
    let project = project(&db.pool).await;
    receiver.subscribe(&db.pool, &project, &[]).await;
    let server = Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await;
    let client = server.client();

    let (thread, run) = waiting_run(&client).await;
    let first = receiver.next_delivery().await;
    submit_output(&client, &thread, &run).await;
    // Events of other runs are delivered meanwhile.
    let assistant = client.create_assistant("hello").await;
    let other = finished_run(&client, &assistant).await;
    assert_eq!(
        receiver.accept("thread.run.completed").await["data"]["id"],
        other
    );

    // The event waits while the earlier one is retried, and follows it at once.
    let event = first.id().to_owned();
    first.answer(500);
    wait_for_failures(&db.pool, 1).await;
    let early = "select count(*) from webhook_deliveries where due_at <= now()";
    assert_eq!(
        count(&db.pool, early).await,
        0,
        "both wait for the second attempt"
    );
    let another = finished_run(&client, &assistant).await;
    assert_eq!(
        receiver.accept("thread.run.completed").await["data"]["id"],
        another
    );
    make_deliveries_due(&db.pool).await;
    let again = receiver.next_delivery().await;
    assert_eq!(again.id(), event);
    assert_eq!(again.event["type"], "thread.run.requires_action");
    assert!(receiver.is_idle().await);
    again.answer(200);
    assert_eq!(
        receiver.accept("thread.run.completed").await["data"]["id"],
        run
    );
}

#[tokio::test]
async fn what_was_committed_before_a_process_died_is_told_by_the_next() {
    let fixture = StoreFixture::new().await;
    let receiver = WebhookReceiver::start().await;
    receiver
        .subscribe(fixture.pool(), &fixture.project, &[])
        .await;
    // Simulates a process that dies right after its commit.
    let worker = claimant("worker");
    let (run, lease) = fixture.create_leased_run(&worker).await;
    let state = state(&run, RunStatus::Completed);
    let changes = Changes {
        state: Some(&state),
        ..Changes::default()
    };
    let written = store::run_queue::commit(fixture.pool(), &worker, &lease, &changes).await;
    written.expect("the worker holds the lease");

    let mut server = Server::start(fixture.db(), &[ALLOW_PRIVATE_ADDRESSES]).await;
    let delivery = receiver.next_delivery().await;
    assert_eq!(delivery.event["data"]["id"], run.id.as_str());
    let event = delivery.id().to_owned();
    // The server is killed before it receives the response.
    kill(server.pid(), Signal::SIGKILL).expect("the server is running");
    server.wait().await;
    drop(delivery);
    make_deliveries_due(fixture.pool()).await;
    let _server = Server::start(fixture.db(), &[ALLOW_PRIVATE_ADDRESSES]).await;
    let delivery = receiver.next_delivery().await;
    assert_eq!(delivery.id(), event, "receivers can tell that they know it");
    delivery.answer(200);
    wait_until_delivered(fixture.pool()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_tell_each_event_once() {
    const RUNS: usize = 40;
    let db = Db::new().await;
    let receiver = WebhookReceiver::start().await;
    let project = project(&db.pool).await;
    receiver.subscribe(&db.pool, &project, &[]).await;
    let replicas = [
        Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await,
        Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await,
    ];
    let assistant = replicas[0].client().create_assistant("hello").await;
    let runs = (0..RUNS).map(|n| {
        let (client, assistant) = (replicas[n % 2].client(), assistant.clone());
        tokio::spawn(async move { finished_run(&client, &assistant).await })
    });
    let receiving = async {
        let mut delivered = BTreeSet::new();
        for _ in 0..RUNS {
            let event = receiver.accept("thread.run.completed").await;
            assert!(
                delivered.insert(id(&event["data"])),
                "delivered twice: {event}"
            );
        }
        delivered
    };
    let (runs, delivered) = tokio::join!(futures::future::try_join_all(runs), receiving);
    let runs: BTreeSet<String> = runs.expect("no client panics").into_iter().collect();
    assert_eq!(delivered, runs);
    wait_until_delivered(&db.pool).await;
    assert!(receiver.is_idle().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_told_whoever_is_killed_meanwhile() {
    let db = Db::new().await;
    let receiver = WebhookReceiver::start().await;
    let project = project(&db.pool).await;
    receiver.subscribe(&db.pool, &project, &[]).await;
    let settings = [ALLOW_PRIVATE_ADDRESSES, ("ASSISTD_LEASE", "1s")];
    let steady = Server::start(&db, &settings).await;
    let client = steady.client();
    let assistant = client.create_assistant("hello").await;
    let (mut delivered, mut runs) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..3 {
        let mut doomed = Server::start(&db, &settings).await;
        for n in 0..10 {
            let client = [&steady, &doomed][n % 2].client();
            let thread = client.create_thread("Hello?").await;
            runs.insert(client.create_run(&thread, &assistant).await);
        }
        // Both replicas hold deliveries, and maybe runs.
        let delivery = receiver.next_delivery().await;
        kill(doomed.pid(), Signal::SIGKILL).expect("the server is running");
        doomed.wait().await;
        delivered.insert(id(&delivery.event["data"]));
        delivery.answer(200);
        make_deliveries_due(&db.pool).await;
        while delivered != runs {
            let accepted = receiver.accept("thread.run.completed");
            match tokio::time::timeout(Duration::from_secs(10), accepted).await {
                Ok(event) => _ = delivered.insert(id(&event["data"])),
                // A claim of the killed server has committed late.
                Err(_) => make_deliveries_due(&db.pool).await,
            }
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_switched_off_until_it_is_switched_on() {
    let db = Db::new().await;
    let receiver = WebhookReceiver::start().await;
    let project = project(&db.pool).await;
    let (endpoint, _) = receiver.subscribe(&db.pool, &project, &[]).await;
    let server = Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await;
    let client = server.client();
    let assistant = client.create_assistant("hello").await;
    finished_run(&client, &assistant).await;
    receiver.next_delivery().await.answer(410);
    let reason = eventually("an endpoint that is off", || {
        disabled_reason(&db.pool, &endpoint)
    })
    .await;
    assert!(reason.contains("410"), "{reason}");

    let events = count(&db.pool, "select count(*) from webhook_events").await;
    finished_run(&client, &assistant).await;
    let now = count(&db.pool, "select count(*) from webhook_events").await;
    assert_eq!(now, events, "nothing is kept for it");
    let enabled = webhook_endpoints::enable(&db.pool, &Actor::Settings, &endpoint).await;
    assert!(enabled.expect("the database answers"));
    let run = finished_run(&client, &assistant).await;
    assert_eq!(
        receiver.accept("thread.run.completed").await["data"]["id"],
        run
    );
}

#[tokio::test]
async fn an_event_is_given_up_in_the_end_and_an_endpoint_that_takes_nothing_is_switched_off() {
    let db = Db::new().await;
    let receiver = WebhookReceiver::start().await;
    let project = project(&db.pool).await;
    let (endpoint, _) = receiver.subscribe(&db.pool, &project, &[]).await;
    let settings = [
        ALLOW_PRIVATE_ADDRESSES,
        ("ASSISTD_WEBHOOK_RETRY_FOR", "1h"),
        ("ASSISTD_WEBHOOK_DISABLE_AFTER", "2d"),
    ];
    let server = Server::start(&db, &settings).await;
    let client = server.client();
    let assistant = client.create_assistant("hello").await;
    finished_run(&client, &assistant).await;
    receiver.next_delivery().await.answer(500);
    wait_for_failures(&db.pool, 1).await;
    let pause: f64 = sqlx::query_scalar(
        "select extract(epoch from max(due_at) - now())::double precision from webhook_deliveries",
    )
    .fetch_one(&db.pool)
    .await
    .expect("a delivery is pending");
    assert!(
        (0.0..5.5).contains(&pause),
        "the first pause is short: {pause}"
    );

    // Simulates an hour.
    let later = "update webhook_events set created_at = created_at - interval '1 hour'";
    sqlx::query(later)
        .execute(&db.pool)
        .await
        .expect("the database answers");
    make_deliveries_due(&db.pool).await;
    receiver.next_delivery().await.answer(500);
    wait_until_delivered(&db.pool).await;
    assert_eq!(disabled_reason(&db.pool, &endpoint).await, None);

    // Simulates two days.
    let later = "update webhook_endpoints set failing_since = failing_since - interval '2 days'";
    sqlx::query(later)
        .execute(&db.pool)
        .await
        .expect("the database answers");
    finished_run(&client, &assistant).await;
    receiver.next_delivery().await.answer(503);
    let reason = eventually("an endpoint that is off", || {
        disabled_reason(&db.pool, &endpoint)
    })
    .await;
    assert!(reason.contains("503"), "{reason}");
    eventually("the log line about the disabled endpoint", || async {
        let log = server.log();
        log.contains("disabled: nothing could be delivered")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn success_ends_the_time_of_failure() {
    let db = Db::new().await;
    let receiver = WebhookReceiver::start().await;
    let project = project(&db.pool).await;
    receiver.subscribe(&db.pool, &project, &[]).await;
    let server = Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await;
    let client = server.client();
    let assistant = client.create_assistant("hello").await;
    finished_run(&client, &assistant).await;
    receiver.next_delivery().await.answer(500);
    let failing = "select count(*) from webhook_endpoints where failing_since is not null";
    eventually("a failing endpoint", || async {
        (count(&db.pool, failing).await == 1).then_some(())
    })
    .await;
    make_deliveries_due(&db.pool).await;
    receiver.accept("thread.run.completed").await;
    eventually("an endpoint that does well", || async {
        (count(&db.pool, failing).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn after_a_rotation_both_secrets_sign_for_a_while() {
    let db = Db::new().await;
    let receiver = WebhookReceiver::start().await;
    let project = project(&db.pool).await;
    let (endpoint, old) = receiver.subscribe(&db.pool, &project, &[]).await;
    let server = Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await;
    let client = server.client();
    let assistant = client.create_assistant("hello").await;
    let new = SigningSecret::generate().expect("the system's random source works");
    let day = Duration::from_secs(86_400);
    let rotated = webhook_endpoints::rotate(&db.pool, &Actor::Settings, &endpoint, &new, day).await;
    assert!(rotated.expect("the database answers"));
    finished_run(&client, &assistant).await;
    let delivery = receiver.next_delivery().await;
    assert_eq!(
        (delivery.signatures_by(&old), delivery.signatures_by(&new)),
        (1, 1)
    );
    delivery.answer(200);

    let later = "update webhook_endpoints set old_secret_until = now()";
    sqlx::query(later)
        .execute(&db.pool)
        .await
        .expect("the database answers");
    finished_run(&client, &assistant).await;
    let delivery = receiver.next_delivery().await;
    assert_eq!(
        (delivery.signatures_by(&old), delivery.signatures_by(&new)),
        (0, 1)
    );
    delivery.answer(200);
}

#[tokio::test]
async fn a_slow_endpoint_holds_up_no_other_and_no_run() {
    const RUNS: usize = 10;
    let db = Db::new().await;
    let (slow, quick) = (
        WebhookReceiver::start().await,
        WebhookReceiver::start().await,
    );
    let project = project(&db.pool).await;
    slow.subscribe(&db.pool, &project, &[]).await;
    quick.subscribe(&db.pool, &project, &[]).await;
    let server = Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await;
    let client = server.client();
    let assistant = client.create_assistant("hello").await;
    // Received but not answered.
    let mut held = Vec::new();
    for _ in 0..RUNS {
        finished_run(&client, &assistant).await;
        quick.accept("thread.run.completed").await;
        if held.len() < 8 {
            held.push(slow.next_delivery().await);
        }
    }
    assert!(slow.is_idle().await, "no more than eight at a time");
    for delivery in held {
        delivery.answer(200);
    }
    for _ in 8..RUNS {
        slow.accept("thread.run.completed").await;
    }
}

#[tokio::test]
async fn redirects_are_not_followed_and_private_networks_not_posted_to_by_default() {
    let db = Db::new().await;
    let (receiver, elsewhere) = (
        WebhookReceiver::start().await,
        WebhookReceiver::start().await,
    );
    let project = project(&db.pool).await;
    receiver.subscribe(&db.pool, &project, &[]).await;
    let errors = || async {
        let error: Option<String> =
            sqlx::query_scalar("select max(last_error) from webhook_deliveries")
                .fetch_one(&db.pool)
                .await
                .expect("the database answers");
        error
    };
    {
        let server = Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await;
        let client = server.client();
        let assistant = client.create_assistant("hello").await;
        finished_run(&client, &assistant).await;
        receiver.next_delivery().await.redirect(&elsewhere.url);
        let error = eventually("a failed delivery", errors).await;
        assert!(error.contains("307"), "{error}");
        assert!(elsewhere.is_idle().await);
    }
    make_deliveries_due(&db.pool).await;
    let server = Server::start(&db, &[]).await;
    eventually("a refused delivery", || async {
        errors().await?.contains("ALLOW_PRIVATE").then_some(())
    })
    .await;
    assert!(receiver.is_idle().await);
    assert!(
        !server.log().contains(&receiver.url),
        "URLs may have secrets in them"
    );
}

#[tokio::test]
async fn files_and_batches_are_told_as_the_api_shows_them() {
    let fixture = RetrievalFixture::start_with(&[EMBEDDING_MODEL, ALLOW_PRIVATE_ADDRESSES]).await;
    let receiver = WebhookReceiver::start().await;
    let project = project(&fixture.db.pool).await;
    receiver.subscribe(&fixture.db.pool, &project, &[]).await;
    let files = [
        ("one.txt", "Ships."),
        ("two.txt", "Wrecks."),
        ("bad.pdf", "%PDF-nonsense"),
    ];
    let files = fixture.upload_files(&files).await;
    let store = fixture.create_store(&[]).await;
    let path = format!("/vector_stores/{store}/file_batches");
    let batch = fixture.client.post(&path, json!({"file_ids": files})).await;
    let batch = format!("{path}/{}", id(&batch));
    // Files are delivered in any order, and the batch maybe before the last file.
    let mut delivered = BTreeMap::new();
    for _ in 0..4 {
        let delivery = receiver.next_delivery().await;
        let data = delivery.event["data"].clone();
        let kind = delivery.event["type"]
            .as_str()
            .expect("the value is a string")
            .to_owned();
        assert!(
            delivered.insert((kind, id(&data)), data).is_none(),
            "{}",
            delivery.event
        );
        delivery.answer(200);
    }
    let file = |kind: &str, n: usize| {
        let delivered = &delivered;
        let key = (format!("vector_store.file.{kind}"), files[n].clone());
        delivered
            .get(&key)
            .unwrap_or_else(|| panic!("{key:?} in {delivered:?}"))
    };
    for (kind, n) in [("completed", 0), ("completed", 1), ("failed", 2)] {
        let shown = fixture
            .client
            .get(&format!("/vector_stores/{store}/files/{}", files[n]))
            .await;
        assert_eq!(*file(kind, n), shown);
    }
    let shown = fixture.client.get(&batch).await;
    let key = ("vector_store.file_batch.completed".to_owned(), id(&shown));
    assert_eq!(delivered[&key], shown);
    wait_until_delivered(&fixture.db.pool).await;
    assert!(receiver.is_idle().await, "a batch has one event");
}

#[tokio::test]
async fn batches_are_told_as_cancelled_failed_or_emptied() {
    let fixture = RetrievalFixture::start_with(&[EMBEDDING_MODEL, ALLOW_PRIVATE_ADDRESSES]).await;
    let receiver = WebhookReceiver::start().await;
    let project = project(&fixture.db.pool).await;
    let kinds = EventType::ALL.map(EventType::as_str);
    let of_batches: Vec<&str> = kinds
        .into_iter()
        .filter(|kind| kind.starts_with("vector_store.file_batch."))
        .collect();
    receiver
        .subscribe(&fixture.db.pool, &project, &of_batches)
        .await;
    let store = fixture.create_store(&[]).await;
    let path = format!("/vector_stores/{store}/file_batches");
    let bad = fixture.upload_files(&[("bad.pdf", "%PDF-nonsense")]).await;
    let failed = fixture.client.post(&path, json!({"file_ids": bad})).await;
    let event = receiver.accept("vector_store.file_batch.failed").await;
    assert_eq!(event["data"]["id"], failed["id"]);
    assert_eq!(event["data"]["status"], "failed");

    fixture.db.disable_indexing().await;
    let files = fixture
        .upload_files(&[("one.txt", "Ships."), ("two.txt", "Wrecks.")])
        .await;
    let batch = fixture.client.post(&path, json!({"file_ids": files})).await;
    let cancel = format!("{path}/{}/cancel", id(&batch));
    fixture.client.post(&cancel, json!({})).await;
    let event = receiver.accept("vector_store.file_batch.cancelled").await;
    let shown = fixture.client.get(&format!("{path}/{}", id(&batch))).await;
    assert_eq!(event["data"], shown);

    // The last file in progress is removed.
    let files = fixture.upload_files(&[("three.txt", "Masts.")]).await;
    let batch = fixture.client.post(&path, json!({"file_ids": files})).await;
    let file = format!("/vector_stores/{store}/files/{}", files[0]);
    let gone = fixture.client.send(Method::DELETE, &file, None).await;
    assert_eq!(gone.expect("the server answers").status, 200);
    let event = receiver.accept("vector_store.file_batch.completed").await;
    assert_eq!(event["data"]["id"], batch["id"]);
    assert_eq!(event["data"]["file_counts"]["total"], 0);
    let files = "select count(*) from webhook_events where type like 'vector_store.file.%'";
    assert_eq!(
        count(&fixture.db.pool, files).await,
        0,
        "the endpoint does not subscribe to these"
    );
}

#[tokio::test]
async fn what_was_told_is_forgotten_after_a_day_and_what_was_not_is_kept() {
    let fixture = StoreFixture::new().await;
    let receiver = WebhookReceiver::start().await;
    let (endpoint, _) = receiver
        .subscribe(fixture.pool(), &fixture.project, &[])
        .await;
    sqlx::query(
        "with v as (
             insert into webhook_events (id, created_at, type, subject, snapshot)
             select 'evt_' || name, now() - age, 'thread.run.completed', name, '{}'
             from (values ('told', interval '25 hours'), ('new', interval '1 hour'),
                          ('late', interval '3 days'),
                          ('waiting', interval '10 days')) as t (name, age)
             returning id, subject)
         insert into webhook_deliveries (event_id, endpoint_id, subject, due_at)
         select id, $1, subject, case when subject in ('late', 'waiting') then now() end
         from v",
    )
    .bind(&endpoint)
    .execute(fixture.pool())
    .await
    .expect("the rows satisfy the constraints");
    let left = || async {
        let (day, four) = (Duration::from_secs(86_400), Duration::from_secs(345_600));
        let swept = webhook_deliveries::delete_old_events(fixture.pool(), day, four).await;
        swept.expect("the database answers");
        let left: Vec<String> =
            sqlx::query_scalar("select subject from webhook_events order by subject")
                .fetch_all(fixture.pool())
                .await
                .expect("the database answers");
        left
    };
    assert_eq!(left().await, ["late", "new", "waiting"]);
    // A disabled endpoint keeps events that would still be retried: four days here.
    let off = "update webhook_endpoints set disabled_at = now(), disabled_reason = 'gone'";
    let off = sqlx::query(off).execute(fixture.pool()).await;
    off.expect("the endpoint exists");
    assert_eq!(left().await, ["late", "new"]);
    let removed = webhook_endpoints::remove(fixture.pool(), &Actor::Settings, &endpoint).await;
    assert!(removed.expect("the database answers"));
    assert_eq!(left().await, ["new"]);
}
