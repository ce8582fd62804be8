//! `assistd-sandbox`, the sandbox worker of assistd: runs Python code in confined sessions.
//!
//! The program has three roles. The *supervisor* ([`supervisor`]) accepts connections and manages
//! sessions; it runs no Python. The *zygote* ([`zygote`]) is a process with a loaded interpreter
//! that never runs the code of a cell. A *session* is a fork of the zygote, confined by
//! [`confine`].

mod confine;
mod descriptors;
mod health_check;
mod interpreter;
mod python;
mod settings;
mod supervisor;
mod zygote;

use std::process::ExitCode;

use clap::Parser;
use sandbox_protocol::Report;
use tracing_subscriber::EnvFilter;

use settings::Cli;
use settings::Command;
use supervisor::WorkerError;

fn main() -> ExitCode {
    if std::env::args_os()
        .next()
        .is_some_and(|name| name == zygote::NAME)
    {
        return zygote::run();
    }
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("ASSISTD_SANDBOX_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The process that started the worker waits for this line or for "ready".
            println!("error: {error}");
            tracing::error!("the sandbox worker failed and ends: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), WorkerError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Serve { listen, settings } => supervisor::serve(*listen, *settings).await,
            Command::Check { settings } => {
                print_report(&supervisor::check(*settings).await?);
                Ok(())
            }
            Command::Ping { listen } => {
                print_report(&health_check::run(&listen).await?);
                Ok(())
            }
        }
    });
    // Dropping the runtime would wait for the blocking read of standard input.
    runtime.shutdown_background();
    outcome
}

fn print_report(report: &Report) {
    println!("tier    {:?}", report.tier);
    println!("python  {}", report.python);
    println!("kernel  {}", report.kernel);
    for layer in &report.layers {
        println!("holds   {layer}");
    }
    for missing in &report.missing {
        println!("missing {missing}");
    }
}
