//! Integration tests: real server processes on a real PostgreSQL.
//!
//! Every test has its own database, usually in the one cluster that this test program starts.
//! Tests wait for events, not for time to pass, and fail after [`TIMEOUT`].

mod admin;
mod architecture;
mod backup;
mod batches;
mod browsers;
mod chat_requests;
mod client;
mod cluster;
mod code;
mod connections;
mod console;
mod crash;
mod default_model;
mod documentation;
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
mod model;
mod pool;
mod pooler;
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
mod run_overview;
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

/// How long a test waits for an event before it fails: far longer than any event takes, so that
/// no test fails because the machine is busy.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Polls every 20 ms until `poll` yields a value; panics after [`TIMEOUT`].
async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut poll: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        assert!(started.elapsed() < TIMEOUT, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Awaits the future; panics after [`TIMEOUT`].
async fn with_timeout<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TIMEOUT, future).await {
        Ok(value) => value,
        Err(_) => panic!("timed out: {what}"),
    }
}
