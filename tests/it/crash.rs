//! A run survives the death of its process at any statement.
//!
//! For every statement that a scenario makes the server execute, the server is killed once just
//! after it heard that the statement is done, and once just before. Another one starts on the same
//! database, and must bring the run to a good end with nothing lost, doubled or half made.

use crate::cluster::Db;
use crate::fake_worker::FakeWorker;
use crate::proxy::{KillPoint, Proxy};
use crate::scenario::{Progress, QUESTION, Scenario, finish, verify};
use crate::server::Server;

/// Lost runs are to be taken over soon.
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

/// How many kills go on side by side for one moment. Most of the time is spent waiting for leases
/// to run out.
const LANES: usize = 2;

/// The scenario must take at least so many statements, or the kills did not happen.
async fn survives(scenario: Scenario, at_least: usize) {
    let moments = [KillPoint::AfterReply, KillPoint::BeforeReply].into_iter();
    let lanes = moments.flat_map(|moment| (1..=LANES).map(move |first| (moment, first)));
    let lanes = lanes.map(|(moment, first)| {
        tokio::spawn(async move { kill_at_every_statement(scenario, moment, first).await })
    });
    for lane in futures::future::join_all(lanes).await {
        let statements = lane.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        assert!(statements >= at_least, "only {statements} were seen");
    }
}

/// Kills at the statements of one lane until the scenario goes through undisturbed; how many
/// statements it has then.
async fn kill_at_every_statement(scenario: Scenario, moment: KillPoint, first: usize) -> usize {
    let db = Db::new().await;
    let proxy = Proxy::start(&db).await;
    let worker = FakeWorker::start();
    let address = worker.address();
    // One server after the other finds the same files.
    let blobs = tempfile::tempdir().expect("a folder can be made");
    let blobs = blobs.path().to_str().expect("our names are text");
    let more = [("ASSISTD_SANDBOX", &*address), ("ASSISTD_BLOBS", blobs)];
    let settings = [&SETTINGS[..], &more].concat();
    let mut server = Server::start_at(&proxy.url, &settings).await;
    let assistant = scenario.create_assistant(&server.client()).await;
    for statement in (first..).step_by(LANES) {
        let client = server.client();
        let thread = client.create_thread(QUESTION).await;
        let mut progress = Progress::default();
        proxy.kill_at(statement, moment, server.pid());
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
        let client_of_it = || client.clone();
        let run = finish(scenario, client_of_it, &thread, &assistant, &mut progress).await;
        verify(scenario, &client, &db, &thread, &run).await;
    }
    unreachable!("there are no more statements than numbers");
}
