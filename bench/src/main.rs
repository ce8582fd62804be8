//! The benchmark of assistd: load generator, null server, fake upstream, sandbox client, and vector
//! stores of any size.
//!
//! `bench/README.md` describes the measurements and how to read the results.

mod api;
mod benchmark;
mod clock;
mod database;
mod http;
mod lines;
mod load;
mod meter;
mod null;
mod process;
mod report;
mod retrieval;
mod sandbox;
mod stamp;
mod steps;
mod subject;
mod targets;
mod upstream;

use crate::http::CallError;
use crate::http::Http;
use crate::retrieval::Assets;
use crate::sandbox::Programs;
use crate::steps::Plan;
use crate::subject::Kind;
use axum::Router;
use axum::serve::ListenerExt;
use clap::Parser;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use sandbox_protocol::FrameError;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
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
    Run(Run),
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

#[derive(Parser)]
struct Run {
    /// Measure less: five minutes instead of an hour and a half.
    #[arg(long)]
    quick: bool,
    /// Run only steps whose name starts with this, after a warm-up; write no results.
    #[arg(long, value_name = "PREFIX")]
    only: Option<String>,
    /// Measure a second null server instead of assistd, to see the variance of the method.
    #[arg(long)]
    null: bool,
    /// The server to measure [default: assistd beside this program]
    #[arg(long, value_name = "PATH")]
    assistd: Option<PathBuf>,
    /// The sandbox worker to measure [default: assistd-sandbox beside the server]
    #[arg(long, value_name = "PATH")]
    sandbox: Option<PathBuf>,
    /// A Python with Jupyter, to compare with the sandbox worker
    #[arg(long, value_name = "PATH", default_value = "bench/.venv/bin/python3")]
    jupyter: PathBuf,
    /// A folder with the Cranfield collection, to measure search quality
    #[arg(long, value_name = "DIR", env = "BENCH_CRANFIELD")]
    cranfield: Option<PathBuf>,
    /// A folder with the local embedding model
    #[arg(
        long,
        value_name = "DIR",
        default_value = ".venv/models/all-minilm-l6-v2"
    )]
    embedding_model: PathBuf,
    /// A scratch database for assistd [default: its embedded one]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// An environment variable for assistd, as NAME=VALUE
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Folder for the results
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Null { listen, upstream } => {
            serve(listen, null::router(Http::new(upstream, "null"))).await
        }
        Command::Upstream { listen } => serve(listen, upstream::router()).await,
        Command::Run(options) => tokio::select! {
            done = run(options) => done,
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

async fn run(options: Run) -> Result<ExitCode, BenchError> {
    // A thousand streams need three thousand descriptors; children inherit the limit.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let plan = if options.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    let binary = match options.assistd {
        Some(binary) => binary,
        None => std::env::current_exe()?.with_file_name("assistd"),
    };
    let worker = options
        .sandbox
        .unwrap_or_else(|| binary.with_file_name("assistd-sandbox"));
    let programs = (!options.null && worker.exists()).then(|| Programs {
        worker,
        jupyter: Some(options.jupyter).filter(|python| python.exists()),
    });
    let tested = if options.null {
        Kind::Null
    } else {
        Kind::Assistd {
            binary,
            database_url: options.database_url,
            settings: options.settings,
        }
    };
    let assets = Assets {
        cranfield: options.cranfield,
        model: options.embedding_model,
    };
    let only = options.only.as_deref();
    let report = benchmark::measure(tested, programs.as_ref(), &assets, &plan, only).await?;
    let title = if options.quick {
        "Benchmark, quick"
    } else {
        "Benchmark"
    };
    let table = report.markdown(title);
    println!("\n{table}");
    if options.only.is_none() && !options.null {
        fs::create_dir_all(&options.results)?;
        let name = if options.quick { "quick" } else { "latest" };
        fs::write(options.results.join(format!("{name}.md")), table)?;
        let json = format!("{:#}\n", report.json());
        fs::write(options.results.join(format!("{name}.json")), json)?;
    }
    Ok(if report.has_failures() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
