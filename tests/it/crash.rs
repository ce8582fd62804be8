//! Runs survive a kill of their process at any statement.
//!
//! For every statement that a scenario executes, the server is killed once just before and once just
//! after it receives the result. Another server on the same database must then complete the run,
//! with nothing lost, duplicated or left half done.

use crate::cluster::Db;
use crate::fake_worker::FakeWorker;
use crate::proxy::{KillPoint, Proxy};
use crate::scenario::{Progress, QUESTION, Scenario, finish, verify};
use crate::server::Server;

/// A short lease, so that lost runs are soon reassigned.
const SETTINGS: [(&str, &str); 2] = [
    ("ASSISTD_LEASE", "2s"),
    ("ASSISTD_EMBEDDING_MODEL", "scripted/embeddings"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_text_run_survives_a_kill_at_any_statement() {
    survives(Scenario::Text, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_run_survives_a_kill_at_any_statement() {
    survives(Scenario::Function, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_run_survives_a_kill_at_any_statement() {
    survives(Scenario::Code, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_run_survives_a_kill_at_any_statement() {
    survives(Scenario::Search, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_survives_a_kill_at_any_statement() {
    survives(Scenario::Cancel, 6).await;
}

/// How many kills run concurrently for one kill point; each mostly waits for a lease to expire.
const LANES: usize = 2;

/// `min_statements` guards against kills that never happen.
async fn survives(scenario: Scenario, min_statements: usize) {
    let points = [KillPoint::AfterReply, KillPoint::BeforeReply].into_iter();
    let lanes = points.flat_map(|point| (1..=LANES).map(move |first| (point, first)));
    let lanes = lanes.map(|(point, first)| {
        tokio::spawn(async move { kill_at_every_statement(scenario, point, first).await })
    });
    for lane in futures::future::join_all(lanes).await {
        let statements = lane.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        assert!(statements >= min_statements, "only {statements} were seen");
    }
}

/// Kills at every `LANES`th statement until the scenario ends before the kill; the number of its
/// statements.
async fn kill_at_every_statement(scenario: Scenario, point: KillPoint, first: usize) -> usize {
    let db = Db::new().await;
    let proxy = Proxy::start(&db).await;
    let worker = FakeWorker::start();
    let address = worker.address();
    // All servers share one blob storage.
    let blobs = tempfile::tempdir().expect("the temporary folder is writable");
    let blobs = blobs.path().to_str().expect("temporary paths are UTF-8");
    let more = [("ASSISTD_SANDBOX", &*address), ("ASSISTD_BLOBS", blobs)];
    let settings = [&SETTINGS[..], &more].concat();
    let mut server = Server::start_at(&proxy.url, &settings).await;
    let assistant = scenario.create_assistant(&server.client()).await;
    for statement in (first..).step_by(LANES) {
        let client = server.client();
        let thread = client.create_thread(QUESTION).await;
        let mut progress = Progress::default();
        proxy.kill_at(statement, point, server.pid());
        let played = scenario
            .play(&client, &thread, &assistant, &mut progress)
            .await;
        if proxy.disarm() {
            played.expect("the server was spared");
            let run = progress.run.expect("the scenario makes a run");
            verify(scenario, &client, &db, &thread, &run).await;
            return statement - 1;
        }
        server.wait().await;
        server = Server::start_at(&proxy.url, &settings).await;
        let client = server.client();
        let same_client = || client.clone();
        let run = finish(scenario, same_client, &thread, &assistant, &mut progress).await;
        verify(scenario, &client, &db, &thread, &run).await;
    }
    unreachable!("there are no more statements than numbers");
}
