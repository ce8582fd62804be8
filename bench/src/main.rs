//! The benchmark of assistd: load generator, null server, fake upstream, sandbox client, and vector
//! stores of any size.
//!
//! `bench/README.md` describes the measurements and how to read the results.

mod api;
mod benchmark;
mod clock;
mod compare;
mod database;
mod growth;
mod history;
mod http;
mod lines;
mod load;
mod markdown;
mod meter;
mod null;
mod process;
mod report;
mod retrieval;
mod run;
mod sandbox;
mod stamp;
mod steps;
mod subject;
mod targets;
mod upstream;

use crate::compare::Compare;
use crate::history::HistoryError;
use crate::http::CallError;
use crate::http::Http;
use crate::run::Run;
use axum::Router;
use axum::serve::ListenerExt;
use clap::Parser;
use embedded_postgres::PostgresError;
use sandbox_protocol::FrameError;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::net::TcpListener;

/// Why a benchmark or a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    System(#[from] nix::Error),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Call(#[from] CallError),
    /// A server did not start.
    #[error("{name} did not start: {why}\n{tail}")]
    Start {
        name: &'static str,
        why: String,
        tail: String,
    },
    /// The number of model calls does not match the runs.
    #[error("the upstream was called {found} times, not {expected}")]
    Calls { expected: u64, found: u64 },
    /// An unexpected response of a worker.
    #[error("the sandbox worker says {0}")]
    Worker(String),
    #[error("the sandbox worker sent {0}")]
    Frame(#[from] FrameError),
    #[error("no operation was done")]
    Nothing,
    #[error("the step needs the server's database on this machine")]
    NoDatabase,
    #[error("{0}")]
    Unexpected(&'static str),
    #[error("interrupted")]
    Interrupted,
}

/// Measures assistd and compares it with a minimal server.
#[derive(Parser)]
enum Command {
    /// Measure, and print figures with their targets.
    Run(Box<Run>),
    /// Show what has changed between two kept sittings.
    Compare(Compare),
    /// Serve the null server.
    Null {
        #[arg(long)]
        listen: SocketAddr,
        /// Address of the Chat Completions upstream.
        #[arg(long)]
        upstream: SocketAddr,
    },
    /// Serve the fake upstream.
    Upstream {
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Null { listen, upstream } => {
            serve(listen, null::router(Http::new(upstream, "null"))).await
        }
        Command::Upstream { listen } => serve(listen, upstream::router()).await,
        Command::Compare(options) => compare::run(&options),
        Command::Run(options) => tokio::select! {
            done = run::run(&options) => done,
            _ = tokio::signal::ctrl_c() => Err(BenchError::Interrupted),
        },
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(listen: SocketAddr, router: Router) -> Result<ExitCode, BenchError> {
    let listener = TcpListener::bind(listen).await?.tap_io(|socket| {
        // Only delays small responses if it fails.
        let _ = socket.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(ExitCode::SUCCESS)
}
