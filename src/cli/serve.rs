//! `assistd serve`: starts everything, says where it is, and stops everything at the end.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

use super::CliError;
use super::answer;
use super::database::Database;
use super::disk;
use super::keys;
use crate::config;
use crate::config::Config;
use crate::server;
use crate::store;
use crate::telemetry;
use embedded_postgres::Halter;

/// Exit code of a process that a signal has ended, as shells have it for Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Serves until a signal says to stop.
pub(super) async fn run(config: Config) -> Result<ExitCode, CliError> {
    server::check_open_files(&config.http)?;
    let stop = CancellationToken::new();
    let halter = Arc::new(OnceLock::new());
    tokio::spawn(heed_signals(Signals::new()?, stop.clone(), halter.clone()));

    let database = tokio::select! {
        database = Database::open(&config) => database?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    if let Some(embedded) = database.server() {
        // The only place that sets it.
        let _ = halter.set(embedded.halter());
    }
    let outcome = serve(config, &database, stop).await;
    database.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn serve(
    config: Config,
    database: &Database,
    stop: CancellationToken,
) -> Result<(), CliError> {
    let certificate = server::certificate(&config.http)?;
    database.migrate().await?;
    if database.server().is_some() {
        database.take_over().await?;
    }
    keys::seed(&database.pool, &config.http.api_keys).await?;
    let keys_exist = store::api_keys::any_exist(&database.pool).await?;
    // With an admin key the server opens to nobody until its operator has made the first key.
    if !keys_exist && config.http.admin_key.is_none() && !config.http.listen.ip().is_loopback() {
        return Err(CliError::Exposed(config.http.listen));
    }
    let models = models(&config)?;
    let unusable = |source| CliError::Listen {
        address: config.http.listen,
        source,
    };
    let listener = TcpListener::bind(config.http.listen)
        .await
        .map_err(unusable)?;
    // It differs from the setting if that leaves the port to the system.
    let address = listener.local_addr().map_err(unusable)?;
    answer(greeting(
        &config,
        address,
        &database.place,
        &models,
        keys_exist,
    ));

    let shutdown = stop.clone().cancelled_owned();
    let folders = disk::folders(&config);
    let serving = server::serve(
        &config,
        database.pool.clone(),
        listener,
        certificate,
        shutdown,
    );
    tokio::select! {
        served = serving => served?,
        () = keep_metrics_small() => {}
        () = disk::watch(folders) => {}
    }
    Ok(())
}

/// Sums up the samples of metrics, which would pile up if nobody asked for them. Never ends.
async fn keep_metrics_small() {
    let mut often = tokio::time::interval(Duration::from_secs(5));
    loop {
        often.tick().await;
        telemetry::prometheus().run_upkeep();
    }
}

/// What a person needs to know to use the server.
fn greeting(
    config: &Config,
    address: SocketAddr,
    place: &str,
    models: &str,
    keys_exist: bool,
) -> String {
    let host = if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    };
    let scheme = match config.http.tls_cert {
        Some(_) => "https",
        None => "http",
    };
    let base_url = format!("{scheme}://{host}/v1");
    let (key, keys) = if keys_exist {
        ("your key", "only keys that exist are accepted")
    } else {
        (
            "any",
            "any is accepted until you make one: assistd keys create --project NAME",
        )
    };
    format!(
        r#"assistd {version} serves the OpenAI Assistants API

  Base URL  {base_url}
  API keys  {keys}
  Data      {place}
  Files     {blobs}
  Models    {models}
  Code      {code}
  Search    {search}

Try it, after `pip install openai`:

  from openai import OpenAI
  client = OpenAI(base_url="{base_url}", api_key="{key}")
  assistant = client.beta.assistants.create(model="gpt-4o", instructions="Be brief.")
  thread = client.beta.threads.create(messages=[{{"role": "user", "content": "Hello!"}}])
  with client.beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as run:
      for text in run.text_deltas: print(text, end="", flush=True)

Ctrl-C stops it."#,
        version = env!("CARGO_PKG_VERSION"),
        blobs = config.files.blob_location(),
        code = code(config),
        search = search(config),
    )
}

/// How files are searched.
fn search(config: &Config) -> String {
    let local = || {
        format!(
            "hybrid (lexical + semantic by {}, on this machine)",
            embedder::MODEL
        )
    };
    match &config.retrieval.embedding_model {
        config::EmbeddingModel::Upstream(model) => {
            format!("hybrid (lexical + semantic by {model}, of an upstream)")
        }
        config::EmbeddingModel::Folder(_) => local(),
        config::EmbeddingModel::Installed if server::installed_model().is_some() => local(),
        config::EmbeddingModel::Off | config::EmbeddingModel::Installed => {
            "lexical (no embedding model)".to_owned()
        }
    }
}

/// Where the code of code_interpreter runs.
fn code(config: &Config) -> String {
    match &config.sandbox.sandbox {
        config::SandboxWorkers::Off => "off".to_owned(),
        config::SandboxWorkers::Remote(addresses) => format!("workers at {}", addresses.join(", ")),
        config::SandboxWorkers::Embedded => match server::sandbox_program(config) {
            Ok(_) => "a sandbox worker of this server".to_owned(),
            Err(reason) => format!("off: {reason}"),
        },
    }
}

/// Which model answers.
fn models(config: &Config) -> Result<String, CliError> {
    let routes = server::upstreams(&config.models)?.describe();
    Ok(if config.models.upstreams.is_empty() {
        format!("{routes}\n            (no AI; for one set OPENAI_BASE_URL and OPENAI_API_KEY)")
    } else {
        routes
    })
}

/// The signals that ask a server to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(CliError::Signals)?,
            terminate: signal(SignalKind::terminate()).map_err(CliError::Signals)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Lets the first signal stop the server in good order, and the second end the process at once.
async fn heed_signals(
    mut signals: Signals,
    stop: CancellationToken,
    halter: Arc<OnceLock<Halter>>,
) {
    signals.next().await;
    tracing::info!("stopping; a second signal stops at once");
    stop.cancel();
    signals.next().await;
    if let Some(halter) = halter.get() {
        halter.halt();
    }
    std::process::exit(INTERRUPTED);
}
