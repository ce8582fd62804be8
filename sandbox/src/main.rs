//! The program `assistd-sandbox`: runs Python for assistd in confined sessions.
//!
//! One program, three roles. The *supervisor* ([`supervisor`]) takes connections and watches over
//! sessions; it knows no Python. The *zygote* ([`zygote`]) is a warm interpreter that never runs
//! anybody's code. A *session* ([`zygote::session_process`]) is a fork of it, confined by [`confine`].

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
            // Whoever started the worker waits for a line, this one or the one that it is ready.
            println!("error: {error}");
            tracing::error!("{error}");
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
            Command::Serve { door, settings } => supervisor::serve(*door, *settings).await,
            Command::Check { settings } => supervisor::check(*settings).await.map(|it| show(&it)),
            Command::Ping { door } => {
                show(&health_check::ping(&door).await?);
                Ok(())
            }
        }
    });
    // A thread that reads standard input would be waited for.
    runtime.shutdown_background();
    outcome
}

fn show(report: &Report) {
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
