//! Settings of the HTTP server.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use reqwest::Url;

use super::values;
use super::values::Bytes;
use super::values::Secret;

/// Project of requests to a server without keys, and default of commands.
pub const DEFAULT_PROJECT: &str = "default";

/// Settings of the HTTP server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Serving")]
pub struct HttpSettings {
    /// Address to serve on; one that other machines can reach needs API keys
    #[arg(
        long,
        env = "ASSISTD_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8000",
        value_parser = listen_address
    )]
    pub listen: SocketAddr,
    /// API keys to accept, as project:key,project:key; once a key exists, every request needs one
    #[arg(
        long,
        env = "ASSISTD_API_KEYS",
        value_name = "PROJECT:KEY",
        value_delimiter = ',',
        hide_env_values = true,
        hide_default_value = true
    )]
    pub api_keys: Vec<SeedKey>,
    /// Key of the admin API under /admin, at least 16 characters; absent: no admin API
    #[arg(
        long,
        env = "ASSISTD_ADMIN_KEY",
        value_name = "KEY",
        hide_env_values = true,
        hide_default_value = true,
        value_parser = admin_key
    )]
    pub admin_key: Option<Secret>,
    /// Serve the console, a web page for browsers, under /console
    #[arg(
        long,
        env = "ASSISTD_CONSOLE",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "true",
        action = clap::ArgAction::Set
    )]
    pub console: bool,
    /// Refuse Assistants requests without the header `OpenAI-Beta: assistants=v2`
    #[arg(
        long,
        env = "ASSISTD_REQUIRE_BETA_HEADER",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false",
        action = clap::ArgAction::Set
    )]
    pub require_beta_header: bool,
    /// Origins of web pages that may call the API, such as https://app.example, or * for all
    #[arg(
        long,
        env = "ASSISTD_CORS_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub cors_origins: Vec<CorsOrigin>,
    /// Largest JSON body of a request
    #[arg(
        long,
        env = "ASSISTD_MAX_BODY_BYTES",
        value_name = "BYTES",
        default_value = "32MiB"
    )]
    pub max_body_bytes: Bytes,
    /// Memory for all JSON bodies together, at about four times their size; further ones wait for 5s
    /// and are then refused with 503 [default: an eighth of the memory]
    #[arg(long, env = "ASSISTD_MAX_BODY_MEMORY", value_name = "BYTES")]
    pub max_body_memory: Option<Bytes>,
    /// Largest file that may be uploaded
    #[arg(
        long,
        env = "ASSISTD_MAX_FILE_BYTES",
        value_name = "BYTES",
        default_value = "512MiB"
    )]
    pub max_file_bytes: Bytes,
    /// Certificate chain to serve HTTPS with, in PEM; read again every minute and on SIGHUP
    #[arg(long, env = "ASSISTD_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, env = "ASSISTD_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Maximum concurrent client connections; further ones queue
    #[arg(
        long,
        env = "ASSISTD_MAX_CONNECTIONS",
        value_name = "N",
        default_value = "10000",
        value_parser = values::at_least(1)
    )]
    pub max_connections: u32,
    /// Close a connection that has sent no complete request head for this long
    #[arg(
        long,
        env = "ASSISTD_IDLE_TIMEOUT",
        value_name = "DURATION",
        default_value = "75s",
        value_parser = values::positive_duration
    )]
    pub idle_timeout: Duration,
    /// Maximum stall while receiving a request body; every KiB received earns one more second, up to
    /// this value
    #[arg(
        long,
        env = "ASSISTD_BODY_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = values::positive_duration
    )]
    pub body_timeout: Duration,
    /// Close a connection whose client has read nothing for this long
    #[arg(
        long,
        env = "ASSISTD_READER_TIMEOUT",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = values::positive_duration
    )]
    pub reader_timeout: Duration,
    /// Time limit for a handler to start its response; uploads and requests passed on to an upstream
    /// are excepted
    #[arg(
        long,
        env = "ASSISTD_REQUEST_TIMEOUT",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = values::positive_duration
    )]
    pub request_timeout: Duration,
    /// Polling interval suggested to clients, in milliseconds
    #[arg(
        long,
        env = "ASSISTD_POLL_AFTER_MS",
        value_name = "MS",
        default_value = "250",
        value_parser = values::at_least(1)
    )]
    pub poll_after_ms: u32,
    /// Time limit for active runs to finish after the signal to stop
    #[arg(
        long,
        env = "ASSISTD_SHUTDOWN_GRACE",
        value_name = "DURATION",
        default_value = "20s",
        value_parser = values::duration
    )]
    pub shutdown_grace: Duration,
}

/// An API key that is created at the start, with its project if that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedKey {
    pub project: String,
    pub key: Secret,
}

impl FromStr for SeedKey {
    type Err = &'static str;

    /// Reads `project:key`. The messages never repeat the text, which may be a key.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (project, key) = text.split_once(':').ok_or("expected PROJECT:KEY")?;
        let project = values::name(project.trim())
            .map_err(|_| "expected PROJECT:KEY, with a project of 1 to 200 characters")?;
        let key = key.trim();
        // Clients send the key in a header, which can carry nothing else.
        if key.len() < 8 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("expected PROJECT:KEY, with a key of at least 8 visible ASCII characters");
        }
        Ok(Self {
            project,
            key: key.into(),
        })
    }
}

/// An origin in the form that browsers send, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsOrigin(String);

impl fmt::Display for CorsOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CorsOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self(text.to_owned()));
        }
        let invalid = |reason: &str| {
            format!(
                "{text:?} is not an origin: {reason}; expected scheme://host[:port], such as \
                 https://app.example, or *"
            )
        };
        if text.contains('*') {
            return Err(invalid("`*` stands alone, not for part of a name"));
        }
        if text == "null" || text.starts_with("file:") {
            return Err(invalid("every local file and sandboxed page has it"));
        }
        let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(invalid("it has no host"));
        };
        let is_bare = matches!(url.path(), "" | "/") && !text.ends_with('/');
        let has_more = url.query().is_some() || url.fragment().is_some();
        let has_user = !url.username().is_empty() || url.password().is_some();
        if !is_bare || has_more || has_user {
            return Err(invalid("it has more than scheme, host and port"));
        }
        // Not `Url::origin`: schemes such as `tauri` have an opaque origin in the URL standard, but
        // browsers send scheme and host.
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        Ok(Self(format!("{}://{host}{port}", url.scheme())))
    }
}

fn admin_key(text: &str) -> Result<Secret, String> {
    if text.len() < 16 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected at least 16 visible ASCII characters".to_owned());
    }
    Ok(text.into())
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:8000 or [::]:8000".to_owned()
    })
}
