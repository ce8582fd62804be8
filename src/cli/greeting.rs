//! The greeting of `assistd serve`: what a user needs to know to call the server.

use std::net::SocketAddr;

use super::error::CliError;
use crate::config::{Config, EmbeddingModel, SandboxWorkers};
use crate::server;

pub(super) fn text(
    config: &Config,
    address: SocketAddr,
    database: &str,
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
        ("your key", "required")
    } else {
        (
            "any",
            "any is accepted until you create one: assistd keys create --project NAME",
        )
    };
    format!(
        r#"assistd {version} serves the OpenAI Assistants API

  Base URL  {base_url}
  Console   {console}
  API keys  {keys}
  Data      {database}
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
        console = match config.http.console {
            true => format!("{scheme}://{host}/console"),
            false => "switched off".to_owned(),
        },
        blobs = config.files.blob_location(),
        code = describe_sandbox(config),
        search = describe_search(config),
    )
}

fn describe_search(config: &Config) -> String {
    let local = || {
        format!(
            "hybrid (lexical + semantic by {}, on this machine)",
            embedder::MODEL
        )
    };
    match &config.retrieval.embedding_model {
        EmbeddingModel::Upstream(model) => {
            format!("hybrid (lexical + semantic by {model}, of an upstream)")
        }
        EmbeddingModel::Folder(_) => local(),
        EmbeddingModel::Installed if server::installed_model().is_some() => local(),
        EmbeddingModel::Off | EmbeddingModel::Installed => {
            "lexical (no embedding model)".to_owned()
        }
    }
}

fn describe_sandbox(config: &Config) -> String {
    match &config.sandbox.sandbox {
        SandboxWorkers::Off => "off".to_owned(),
        SandboxWorkers::Remote(addresses) => format!("workers at {}", addresses.join(", ")),
        SandboxWorkers::Embedded => match server::sandbox_program(config) {
            Ok(_) => "a sandbox worker of this server".to_owned(),
            Err(reason) => format!("off: {reason}"),
        },
    }
}

pub(super) fn describe_models(config: &Config) -> Result<String, CliError> {
    let routes = server::upstreams(&config.models)?.describe();
    Ok(if config.models.upstreams.is_empty() {
        format!("{routes}\n            (no AI; for one set OPENAI_BASE_URL and OPENAI_API_KEY)")
    } else {
        routes
    })
}
