//! Runs a command with `DATABASE_URL` set to an empty database server of its own, which is
//! removed afterwards: `cargo run --package embedded-postgres --example with_postgres -- cargo test`.

use std::process::ExitCode;
use std::process::ExitStatus;

use embedded_postgres::Embedded;
use embedded_postgres::Options;

/// Many tests run in parallel, each with a pool of its own.
const CONNECTIONS: u32 = 180;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(status) => ExitCode::from(status.code().map_or(1, |code| code as u8)),
        Err(error) => {
            eprintln!("with_postgres: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<ExitStatus, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().ok_or("name a command to run")?;
    let folder = tempfile::tempdir()?;
    let embedded = Embedded::start(&Options {
        data_dir: folder.path().to_owned(),
        bin_dir: None,
        user: "nobody".to_owned(),
        connections: CONNECTIONS,
    })
    .await?;

    let options = embedded.connect_options();
    let socket = options
        .get_socket()
        .ok_or("the server listens on no socket")?;
    let url = format!(
        "postgres://{user}@localhost/{database}?host={host}",
        user = options.get_username(),
        database = options.get_database().unwrap_or_default(),
        host = socket.display(),
    );
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("DATABASE_URL", url)
        .spawn()?;
    let status = tokio::select! {
        status = child.wait() => status?,
        // The terminal sends Ctrl-C to the command, too, which ends it.
        _ = tokio::signal::ctrl_c() => child.wait().await?,
    };
    embedded.stop().await;
    Ok(status)
}
