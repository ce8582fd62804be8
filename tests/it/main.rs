//! Tests of the server from the outside: real processes on a real PostgreSQL.
//!
//! Every test has a database of its own, most of them in one cluster that lives as long as this
//! program. Tests wait for events, never for time to pass; what takes longer than [`PATIENCE`]
//! has failed.

mod admin;
mod architecture;
mod backup;
mod browsers;
mod chat_requests;
mod client;
mod cluster;
mod code;
mod connections;
mod crash;
mod default_model;
mod embedded_postgres;
mod embedding_faults;
mod endings;
mod errors;
mod event_stream;
mod fake_embeddings;
mod fake_model;
mod fake_worker;
mod file_search;
mod file_search_runs;
mod full_disk;
mod hang_ups;
mod hostile_files;
mod indexing;
mod indexing_crash;
mod indexing_races;
mod isolation;
mod lease;
mod limits;
mod migrations;
mod pool;
mod process;
mod program;
mod proxy;
mod refused_deliveries;
mod refused_files;
mod refused_runs;
mod replicas;
mod requests;
mod responses;
mod retrieval_fixture;
mod routes;
mod scenario;
mod searching;
mod server;
mod store_fixture;
mod streams;
mod thread_stores;
mod transfer;
mod transitions;
mod two_replicas;
mod unstorable_text;
mod upstream_faults;
mod usage;
mod vector_stores;
mod webhook_receiver;
mod webhooks;
mod webhooks_cli;

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives it up. Far more than anything takes, so that a
/// busy machine fails no test.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for something that must come.
async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, coming).await {
        Ok(came) => came,
        Err(_) => panic!("never came: {what}"),
    }
}
