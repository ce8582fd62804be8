//! Three replicas on one database, any of which may be killed at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::client::{Client, id};
use crate::cluster::Db;
use crate::event_stream;
use crate::fake_worker::FakeWorker;
use crate::scenario::{Progress, QUESTION, Scenario, finish, verify};
use crate::server::Server;
use crate::two_replicas::TwoReplicas;

const REPLICAS: usize = 3;

/// Runs during which replicas are killed.
const RUNS: usize = 500;

/// Concurrent clients, each of which executes one run after the other.
const CLIENTS: usize = 12;

struct Fleet {
    db: Db,
    replicas: Mutex<Vec<Option<Server>>>,
    worker: FakeWorker,
    blobs: TempDir,
}

impl Fleet {
    async fn start() -> Self {
        let fleet = Self {
            db: Db::new().await,
            replicas: Mutex::default(),
            worker: FakeWorker::start(),
            blobs: tempfile::tempdir().expect("the temporary folder is writable"),
        };
        for _ in 0..REPLICAS {
            let replica = fleet.replica().await;
            fleet.replicas.lock().push(Some(replica));
        }
        fleet
    }

    async fn replica(&self) -> Server {
        let sandbox = self.worker.address();
        let blobs = self
            .blobs
            .path()
            .to_str()
            .expect("temporary paths are UTF-8");
        let settings = [
            ("ASSISTD_LEASE", "2s"),
            ("ASSISTD_EMBEDDING_MODEL", "off"),
            ("ASSISTD_DATABASE_CONNECTIONS", "6"),
            ("ASSISTD_SANDBOX", &*sandbox),
            ("ASSISTD_BLOBS", blobs),
        ];
        Server::start(&self.db, &settings).await
    }

    /// A client of a random running replica.
    fn client(&self) -> Client {
        let replicas = self.replicas.lock();
        let running: Vec<&Server> = replicas.iter().flatten().collect();
        running[rand::rng().random_range(..running.len())].client()
    }

    /// Stops a replica with `end`, then starts another one in its place.
    async fn replace(&self, place: usize, end: impl AsyncFnOnce(Server)) {
        let replica = self.replicas.lock()[place].take();
        end(replica.expect("one replica is replaced at a time")).await;
        let next = self.replica().await;
        self.replicas.lock()[place] = Some(next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_run_is_lost_or_doubled_while_replicas_are_killed() {
    let fleet = Arc::new(Fleet::start().await);
    let scenarios = [Scenario::Text, Scenario::Function, Scenario::Code];
    let mut assistants = Vec::new();
    for scenario in scenarios {
        assistants.push(scenario.create_assistant(&fleet.client()).await);
    }
    let assistants = Arc::new(assistants);
    let started = Arc::new(AtomicUsize::new(0));
    let clients = (0..CLIENTS).map(|_| {
        let (fleet, assistants, started) = (fleet.clone(), assistants.clone(), started.clone());
        tokio::spawn(async move {
            let mut played = Vec::new();
            loop {
                let number = started.fetch_add(1, Ordering::Relaxed);
                if number >= RUNS {
                    return played;
                }
                let scenario = scenarios[number % scenarios.len()];
                let assistant = &assistants[number % scenarios.len()];
                let thread = create_thread(&fleet).await;
                let run = play_to_end(&fleet, scenario, &thread, assistant).await;
                played.push((scenario, thread, run));
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut deaths = 0;
    while started.load(Ordering::Relaxed) < RUNS {
        let pause = rand::rng().random_range(200..1200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let place = rand::rng().random_range(..REPLICAS);
        fleet.replace(place, Server::kill).await;
        deaths += 1;
    }
    let mut played = Vec::new();
    for client in clients {
        played.extend(client.await.expect("no client panics"));
    }
    assert_eq!(played.len(), RUNS);
    assert!(deaths >= 5, "only {deaths} replicas were killed");
    eprintln!("{deaths} replicas were killed");

    let open: i64 = sqlx::query_scalar("select count(*) from runs where ended_at is null")
        .fetch_one(&fleet.db.pool)
        .await
        .expect("the database answers");
    assert_eq!(open, 0, "every run has ended");
    let all: i64 = sqlx::query_scalar("select count(*) from runs")
        .fetch_one(&fleet.db.pool)
        .await
        .expect("the database answers");
    assert_eq!(
        all,
        i64::try_from(RUNS).expect("the number is small"),
        "no run is doubled"
    );
    for (scenario, thread, run) in played {
        verify(scenario, &fleet.client(), &fleet.db, &thread, &run).await;
    }
}

/// Creates a thread on any running replica; its id.
async fn create_thread(fleet: &Fleet) -> String {
    let messages = json!([{"role": "user", "content": QUESTION}]);
    let body = json!({ "messages": messages });
    loop {
        let client = fleet.client();
        let sent = client.send(reqwest::Method::POST, "/threads", Some(&body));
        if let Ok(reply) = sent.await {
            assert_eq!(reply.status, 200, "{}", reply.body);
            return id(&reply.body);
        }
    }
}

/// Plays a scenario to its end, on another replica whenever one is killed; the run's id.
async fn play_to_end(fleet: &Fleet, scenario: Scenario, thread: &str, assistant: &str) -> String {
    let mut progress = Progress::default();
    let client = fleet.client();
    let played = scenario
        .play(&client, thread, assistant, &mut progress)
        .await;
    if let (Ok(()), Some(run)) = (played, &progress.run) {
        return run.clone();
    }
    finish(
        scenario,
        || fleet.client(),
        thread,
        assistant,
        &mut progress,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_breaks_no_stream() {
    let fleet = Arc::new(Fleet::start().await);
    let assistant = fleet.client().create_assistant("brisk").await;
    let restarted = Arc::new(AtomicBool::new(false));
    let clients = (0..CLIENTS).map(|_| {
        let (fleet, assistant, restarted) = (fleet.clone(), assistant.clone(), restarted.clone());
        tokio::spawn(async move {
            let mut streams = 0;
            while !restarted.load(Ordering::Relaxed) {
                let thread = create_thread(&fleet).await;
                let path = format!("/threads/{thread}/runs");
                let body = json!({"assistant_id": assistant, "stream": true});
                // A stopping replica refuses connections.
                let Ok(stream) = fleet.client().try_stream(&path, &body).await else {
                    continue;
                };
                let streamed = event_stream::check(&stream.read_to_end().await);
                assert_eq!(streamed.run["status"], "completed");
                streams += 1;
            }
            streams
        })
    });
    let clients: Vec<_> = clients.collect();
    for place in 0..REPLICAS {
        let stop = async |mut replica: Server| {
            replica.terminate();
            assert_eq!(replica.wait().await.code(), Some(0));
        };
        fleet.replace(place, stop).await;
    }
    restarted.store(true, Ordering::Relaxed);
    let mut streams = 0;
    for client in clients {
        streams += client.await.expect("no stream breaks");
    }
    assert!(streams >= CLIENTS, "only {streams} streams");
    let query = "select count(*) from runs where status <> 'completed'";
    let other: i64 = sqlx::query_scalar(query)
        .fetch_one(&fleet.db.pool)
        .await
        .expect("the database answers");
    assert_eq!(other, 0, "every run is completed");
}

#[tokio::test]
async fn a_replica_that_stops_keeps_the_streams_of_others_runs() {
    let replicas = TwoReplicas::start(&[]).await;
    let (thread, run) = replicas.create_run().await;
    let call = replicas.model.next_call().await;
    let mut second = replicas.second;
    let mut stream = second.client().follow(&thread, &run, None).await;
    stream.until("thread.run.in_progress").await;
    second.terminate();
    // Longer than a stopping server keeps idle connections.
    tokio::time::sleep(Duration::from_secs(3)).await;
    call.answer_text("Still there.").await;
    let rest = stream.read_to_end().await;
    let last = &rest[rest.len() - 2];
    assert_eq!(last.name, "thread.run.completed");
    assert_eq!(second.wait().await.code(), Some(0));
}

/// The process that executes a run polls from memory; the change arrives through the other one.
#[tokio::test]
async fn a_poll_never_shows_less_than_another_replica_has_acknowledged() {
    let replicas = TwoReplicas::start(&[]).await;
    let (first, second) = (replicas.first.client(), replicas.second.client());

    let (thread, run) = replicas.create_run().await;
    let path = format!("/threads/{thread}/runs/{run}");
    assert_eq!(first.get(&path).await["status"], "in_progress");
    second.post(&format!("{path}/cancel"), json!({})).await;
    let status = first.get(&path).await["status"].clone();
    assert!(status == "cancelling" || status == "cancelled", "{status}");

    let (thread, run) = replicas.create_run().await;
    let path = format!("/threads/{thread}/runs/{run}");
    assert_eq!(first.get(&path).await["status"], "in_progress");
    let deleted = second
        .send(Method::DELETE, &format!("/threads/{thread}"), None)
        .await;
    assert_eq!(deleted.expect("the server answers").status, 200);
    let polled = first.send(Method::GET, &path, None).await;
    assert_eq!(polled.expect("the server answers").status, 404);
}
