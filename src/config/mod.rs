//! Every setting, parsed once. Nobody else reads the environment.
//!
//! A setting is looked for on the command line, then in the environment (`NAME`, or the file that
//! `NAME_FILE` names), then in the configuration file, and has a default otherwise. `assistd --help` is
//! the reference.

mod commands;
mod environment;
mod file;
mod values;
mod webhooks;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::CommandFactory;
use clap::FromArgMatches;
use clap::Parser;
use clap::ValueEnum;
use reqwest::Url;

pub use commands::Command;
pub use commands::ExportFormat;
pub use commands::KeysCommand;
pub use commands::LimitArgs;
pub use commands::ProjectsCommand;
pub use commands::UsageArgs;
pub use commands::UsageBy;
pub use file::FileError;
pub use file::Route;
pub use file::Upstream;
pub use file::UpstreamKind;
pub use values::Bytes;
pub use values::CorsOrigin;
pub use values::Days;
pub use values::EmbeddingModel;
pub use values::Limit;
pub use values::Sandbox;
pub use values::Secret;
pub use values::SeedKey;
pub use webhooks::WebhookSettings;
pub use webhooks::WebhooksCommand;

/// The project of servers without keys, and of commands that are told of none.
pub const DEFAULT_PROJECT: &str = "default";
/// The name that routes use for the upstream of `OPENAI_BASE_URL`.
pub const DEFAULT_UPSTREAM: &str = "default";
/// The name that routes use for the built-in scripted model.
pub const SCRIPTED_UPSTREAM: &str = "scripted";

/// Where the official SDKs go when they are given a key and no base URL.
const OPENAI: &str = "https://api.openai.com/v1";

/// The parsed command line: what to do, and with which settings.
#[derive(Debug, Parser)]
#[command(
    name = "assistd",
    version,
    about = "A self-hosted server for the OpenAI Assistants API",
    after_help = "NAME_FILE=/path gives the value of the variable NAME in a file, for secrets.\n\
                  A configuration file holds the same settings under their flags' names, with \
                  underscores (`data_dir = \"/srv/assistd\"`),\nand the tables [[upstream]] and \
                  [[route]], which map model names to upstreams; see docs/configuration.md."
)]
pub struct Cli {
    /// What to do; serving is the default.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings, the same for every command.
    #[command(flatten)]
    pub config: Config,
}

/// Every setting of the server.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// TOML file with more settings
    #[arg(long, env = "ASSISTD_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Address to serve on; one other than this machine's own needs API keys
    #[arg(
        long,
        env = "ASSISTD_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8000",
        value_parser = values::listen_address,
        help_heading = "Serving",
        global = true
    )]
    pub listen: SocketAddr,
    /// Keys to accept, as project:key,project:key; once a key exists, only known keys are accepted
    #[arg(
        long,
        env = "ASSISTD_API_KEYS",
        value_name = "PROJECT:KEY",
        value_delimiter = ',',
        hide_env_values = true,
        hide_default_value = true,
        help_heading = "Serving",
        global = true
    )]
    pub api_keys: Vec<SeedKey>,
    /// Key of the admin API under /admin, 16 characters or more; absent: there is no admin API
    #[arg(
        long,
        env = "ASSISTD_ADMIN_KEY",
        value_name = "KEY",
        hide_env_values = true,
        hide_default_value = true,
        value_parser = values::admin_key,
        help_heading = "Serving",
        global = true
    )]
    pub admin_key: Option<Secret>,
    /// Refuse Assistants requests without the header `OpenAI-Beta: assistants=v2`
    #[arg(
        long,
        env = "ASSISTD_REQUIRE_BETA_HEADER",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false",
        action = clap::ArgAction::Set,
        help_heading = "Serving",
        global = true
    )]
    pub require_beta_header: bool,
    /// Web pages that may call the API, as origins such as https://app.example, or * for all
    #[arg(
        long,
        env = "ASSISTD_CORS_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = "Serving",
        global = true
    )]
    pub cors_origins: Vec<CorsOrigin>,
    /// Largest JSON body of a request
    #[arg(
        long,
        env = "ASSISTD_MAX_BODY_BYTES",
        value_name = "BYTES",
        default_value = "32MiB",
        help_heading = "Serving",
        global = true
    )]
    pub max_body_bytes: Bytes,
    /// Memory for all JSON bodies together, at about four times their size; further ones wait for 5s
    /// and are then refused with 503 [default: an eighth of the memory]
    #[arg(
        long,
        env = "ASSISTD_MAX_BODY_MEMORY",
        value_name = "BYTES",
        help_heading = "Serving",
        global = true
    )]
    pub max_body_memory: Option<Bytes>,
    /// Largest file that may be uploaded
    #[arg(
        long,
        env = "ASSISTD_MAX_FILE_BYTES",
        value_name = "BYTES",
        default_value = "512MiB",
        help_heading = "Serving",
        global = true
    )]
    pub max_file_bytes: Bytes,
    /// Certificate to serve HTTPS with: a PEM file with the chain, looked at every minute and at SIGHUP
    #[arg(
        long,
        env = "ASSISTD_TLS_CERT",
        value_name = "FILE",
        help_heading = "Serving",
        global = true
    )]
    pub tls_cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM
    #[arg(
        long,
        env = "ASSISTD_TLS_KEY",
        value_name = "FILE",
        help_heading = "Serving",
        global = true
    )]
    pub tls_key: Option<PathBuf>,
    /// Maximum concurrent client connections; further ones queue
    #[arg(
        long,
        env = "ASSISTD_MAX_CONNECTIONS",
        value_name = "N",
        default_value = "10000",
        value_parser = values::at_least(1),
        help_heading = "Serving",
        global = true
    )]
    pub max_connections: u32,
    /// Close a connection that has sent no complete request head for this long
    #[arg(
        long,
        env = "ASSISTD_IDLE_TIMEOUT",
        value_name = "DURATION",
        default_value = "75s",
        value_parser = values::positive_duration,
        help_heading = "Serving",
        global = true
    )]
    pub idle_timeout: Duration,
    /// Maximum stall while receiving a request body; every KiB received earns one more second, up to
    /// this value
    #[arg(
        long,
        env = "ASSISTD_BODY_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = values::positive_duration,
        help_heading = "Serving",
        global = true
    )]
    pub body_timeout: Duration,
    /// Close a connection whose client has read nothing for this long
    #[arg(
        long,
        env = "ASSISTD_READER_TIMEOUT",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = values::positive_duration,
        help_heading = "Serving",
        global = true
    )]
    pub reader_timeout: Duration,
    /// Time limit for a handler to start its response; uploads and requests passed on to an upstream
    /// are excepted
    #[arg(
        long,
        env = "ASSISTD_REQUEST_TIMEOUT",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = values::positive_duration,
        help_heading = "Serving",
        global = true
    )]
    pub request_timeout: Duration,
    /// Milliseconds that polling clients are asked to wait between polls
    #[arg(
        long,
        env = "ASSISTD_POLL_AFTER_MS",
        value_name = "MS",
        default_value = "250",
        value_parser = values::at_least(1),
        help_heading = "Serving",
        global = true
    )]
    pub poll_after_ms: u32,
    /// How long runs may go on after the signal to stop
    #[arg(
        long,
        env = "ASSISTD_SHUTDOWN_GRACE",
        value_name = "DURATION",
        default_value = "20s",
        value_parser = values::duration,
        help_heading = "Serving",
        global = true
    )]
    pub shutdown_grace: Duration,

    /// Folder for the embedded database and the files
    #[arg(
        long,
        env = "ASSISTD_DATA_DIR",
        value_name = "DIR",
        default_value = "./data",
        help_heading = "Storage",
        global = true
    )]
    pub data_dir: PathBuf,
    /// PostgreSQL 16 or later with pgvector, as a postgres:// URL; absent: assistd runs its own
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        hide_default_value = true,
        help_heading = "Storage",
        global = true
    )]
    pub database_url: Option<Secret>,
    /// Password for that database, instead of one in the URL
    #[arg(
        long,
        env = "ASSISTD_DATABASE_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        hide_default_value = true,
        help_heading = "Storage",
        global = true
    )]
    pub database_password: Option<Secret>,
    /// Maximum concurrent database connections
    #[arg(
        long,
        env = "ASSISTD_DATABASE_CONNECTIONS",
        value_name = "N",
        default_value = "20",
        value_parser = values::at_least(2),
        help_heading = "Storage",
        global = true
    )]
    pub database_connections: u32,
    /// Folder of the embedded database's programs (initdb, postgres); absent: looked for
    #[arg(
        long,
        env = "ASSISTD_POSTGRES_BIN",
        value_name = "DIR",
        help_heading = "Storage",
        global = true
    )]
    pub postgres_bin: Option<PathBuf>,
    /// User that runs a new embedded database when assistd is started by root
    #[arg(
        long,
        env = "ASSISTD_POSTGRES_USER",
        value_name = "USER",
        default_value = "nobody",
        help_heading = "Storage",
        global = true
    )]
    pub postgres_user: String,
    /// Blob storage for file contents: a folder, or s3://bucket/prefix with region and endpoint in
    /// AWS_REGION and AWS_ENDPOINT [default: blobs in the data folder]
    #[arg(
        long,
        env = "ASSISTD_BLOBS",
        value_name = "WHERE",
        help_heading = "Storage",
        global = true
    )]
    pub blobs: Option<String>,
    /// Access key for the bucket
    #[arg(
        long,
        env = "AWS_ACCESS_KEY_ID",
        value_name = "ID",
        hide_env_values = true,
        hide_default_value = true,
        help_heading = "Storage",
        global = true
    )]
    pub aws_access_key_id: Option<Secret>,
    /// Secret of that access key
    #[arg(
        long,
        env = "AWS_SECRET_ACCESS_KEY",
        value_name = "SECRET",
        hide_env_values = true,
        hide_default_value = true,
        help_heading = "Storage",
        global = true
    )]
    pub aws_secret_access_key: Option<Secret>,
    /// How long the event log of an ended run is kept
    #[arg(
        long,
        env = "ASSISTD_EVENT_RETENTION",
        value_name = "DURATION",
        default_value = "24h",
        value_parser = values::duration,
        help_heading = "Storage",
        global = true
    )]
    pub event_retention: Duration,
    /// Expire vector stores created for thread attachments after this many idle days; 0 is never
    #[arg(
        long,
        env = "ASSISTD_THREAD_STORE_EXPIRY",
        value_name = "DAYS",
        default_value = "7d",
        help_heading = "Storage",
        global = true
    )]
    pub thread_store_expiry: Days,

    /// Base URL of the Chat Completions upstream; absent: OpenAI's if there is a key for it,
    /// else the scripted model answers
    #[arg(
        long,
        env = "OPENAI_BASE_URL",
        value_name = "URL",
        value_parser = values::http_url,
        help_heading = "Models",
        global = true
    )]
    pub openai_base_url: Option<Url>,
    /// Key for that upstream
    #[arg(
        long,
        env = "OPENAI_API_KEY",
        value_name = "KEY",
        hide_env_values = true,
        hide_default_value = true,
        help_heading = "Models",
        global = true
    )]
    pub openai_api_key: Option<Secret>,
    /// Model used for names that match no route, and for retired names that an upstream does not know;
    /// absent: names are passed on
    #[arg(
        long,
        env = "ASSISTD_DEFAULT_MODEL",
        value_name = "MODEL",
        help_heading = "Models",
        global = true
    )]
    pub default_model: Option<String>,
    /// YAML file for the scripted model, instead of the built-in script
    #[arg(
        long,
        env = "ASSISTD_SCRIPT",
        value_name = "FILE",
        help_heading = "Models",
        global = true
    )]
    pub script: Option<PathBuf>,
    /// Embedding model: a folder with all-MiniLM-L6-v2, the name of a model of an upstream, or off;
    /// absent: the model that set-up has installed, which needs no upstream
    #[arg(
        long,
        env = "ASSISTD_EMBEDDING_MODEL",
        value_name = "MODEL",
        default_value = "installed",
        help_heading = "Models",
        global = true
    )]
    pub embedding_model: EmbeddingModel,
    /// PDFium library, readable by everybody, for parsing PDF files; absent: the built-in parser
    #[arg(
        long,
        env = "ASSISTD_PDFIUM",
        value_name = "FILE",
        help_heading = "Storage",
        global = true
    )]
    pub pdfium: Option<PathBuf>,
    /// Reranking model of an upstream (`/rerank`) for search results; absent: none
    #[arg(
        long,
        env = "ASSISTD_RERANK_MODEL",
        value_name = "MODEL",
        help_heading = "Models",
        global = true
    )]
    pub rerank_model: Option<String>,
    /// Fail a call to an upstream that has sent nothing for this long
    #[arg(
        long,
        env = "ASSISTD_UPSTREAM_TIMEOUT",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = values::positive_duration,
        help_heading = "Models",
        global = true
    )]
    pub upstream_timeout: Duration,
    /// How often a failed call to an upstream is retried
    #[arg(
        long,
        env = "ASSISTD_UPSTREAM_RETRIES",
        value_name = "N",
        default_value = "4",
        value_parser = values::at_least(0),
        help_heading = "Models",
        global = true
    )]
    pub upstream_retries: u32,
    /// Longest line of an upstream's streamed answer; a longer one fails the run
    #[arg(
        long,
        env = "ASSISTD_MAX_UPSTREAM_LINE_BYTES",
        value_name = "BYTES",
        default_value = "16MiB",
        help_heading = "Models",
        global = true
    )]
    pub max_upstream_line_bytes: Bytes,
    /// Longest answer of an upstream to one turn of a run, as it is sent; a longer one fails the run
    #[arg(
        long,
        env = "ASSISTD_MAX_UPSTREAM_ANSWER_BYTES",
        value_name = "BYTES",
        default_value = "64MiB",
        help_heading = "Models",
        global = true
    )]
    pub max_upstream_answer_bytes: Bytes,
    /// Maximum size of a prompt's stored pictures together; more of them fail the run
    #[arg(
        long,
        env = "ASSISTD_MAX_PROMPT_PICTURE_BYTES",
        value_name = "BYTES",
        default_value = "48MiB",
        help_heading = "Models",
        global = true
    )]
    pub max_prompt_picture_bytes: Bytes,

    /// Maximum concurrent runs of this process
    #[arg(
        long,
        env = "ASSISTD_MAX_CONCURRENT_RUNS",
        value_name = "N",
        default_value = "2048",
        value_parser = values::at_least(1),
        help_heading = "Runs",
        global = true
    )]
    pub max_concurrent_runs: u32,
    /// Lease duration: runs of a process are reassigned this long after its last heartbeat
    #[arg(
        long,
        env = "ASSISTD_LEASE",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = values::positive_duration,
        help_heading = "Runs",
        global = true
    )]
    pub lease: Duration,
    /// Expire a run after this long, waiting for tool outputs included
    #[arg(
        long,
        env = "ASSISTD_RUN_EXPIRY",
        value_name = "DURATION",
        default_value = "10m",
        value_parser = values::positive_duration,
        help_heading = "Runs",
        global = true
    )]
    pub run_expiry: Duration,

    /// Sandbox workers for code_interpreter: embedded (one that assistd starts), off, or workers at unix:/PATH,tcp:HOST:PORT; unix:/FOLDER/ stands for all sockets in that folder
    #[arg(
        long,
        env = "ASSISTD_SANDBOX",
        value_name = "WHERE",
        default_value = "embedded",
        help_heading = "Code interpreter",
        global = true
    )]
    pub sandbox: Sandbox,
    /// Token for sandbox workers on TCP
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        hide_default_value = true,
        help_heading = "Code interpreter",
        global = true
    )]
    pub sandbox_token: Option<Secret>,
    /// The embedded worker's program; absent: assistd-sandbox beside assistd. Its own settings,
    /// which `assistd-sandbox serve --help` lists, are passed on from the environment
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_PROGRAM",
        value_name = "FILE",
        help_heading = "Code interpreter",
        global = true
    )]
    pub sandbox_program: Option<PathBuf>,

    /// How webhooks are delivered.
    #[command(flatten)]
    pub webhooks: WebhookSettings,

    /// What to log: a level, or directives such as `info,assistd::engine=debug`
    #[arg(
        long,
        env = "ASSISTD_LOG",
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Observability",
        global = true
    )]
    pub log: String,
    /// Form of the log lines
    #[arg(
        long,
        env = "ASSISTD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Observability",
        global = true
    )]
    pub log_format: LogFormat,
    /// OTLP/HTTP endpoint to send traces to; absent: none are made
    #[arg(
        long = "otlp-endpoint",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL",
        value_parser = values::http_url,
        help_heading = "Observability",
        global = true
    )]
    pub otlp_endpoint: Option<Url>,

    /// The upstream of `OPENAI_BASE_URL`, if there is one, then the `[[upstream]]` tables of the
    /// configuration file. The first gets the model names that no route matches; without any, the
    /// scripted model does.
    #[arg(skip)]
    pub upstreams: Vec<Upstream>,
    /// The `[[route]]` tables of the configuration file, then one for `ASSISTD_DEFAULT_MODEL` if
    /// it is set. The first match counts.
    #[arg(skip)]
    pub routes: Vec<Route>,
    /// The variables `ASSISTD_SANDBOX_…` that are not settings of this program but of the embedded
    /// sandbox worker.
    #[arg(skip)]
    pub sandbox_environment: Vec<(String, String)>,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl Cli {
    /// Reads the command line, the environment and the configuration file.
    ///
    /// Ends the process, as is usual for command lines, with the help text when that is asked
    /// for, and with a message that names the mistake when there is one.
    pub fn load() -> Self {
        let mut cli = Self::try_load(std::env::args_os(), |name| std::env::var(name).ok())
            .unwrap_or_else(|error| error.exit());
        let command = Self::command();
        let ours = |name: &str| {
            let variables = command
                .get_arguments()
                .filter_map(|arg| arg.get_env()?.to_str());
            variables
                .into_iter()
                .any(|it| name == it || name == environment::file_of(it))
        };
        let all = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        cli.config.sandbox_environment = all
            .filter(|(name, _)| name.starts_with("ASSISTD_SANDBOX_") && !ours(name))
            .collect();
        cli
    }

    /// [`load`](Self::load) with the arguments given. Only environment variables that `variable`
    /// knows count.
    fn try_load(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let refused = |mistake: String| {
            Self::command().error(clap::error::ErrorKind::ValueValidation, mistake)
        };
        let set = match environment::settings(&command(), &variable) {
            Ok(set) => set,
            // The help must be there for those who want to put it right.
            Err(error) => match Self::from_matches(command(), &arguments) {
                Err(help) if !help.use_stderr() => return Err(help),
                _ => return Err(refused(error.to_string())),
            },
        };
        let first = Self::from_matches(with(command(), &set), &arguments)?;
        let Some(path) = first.config.config.clone() else {
            return Ok(first.with_defaults());
        };

        let refused =
            |error: FileError| refused(format!("configuration file {}: {error}", path.display()));
        let file = file::read(&path, command(), &variable).map_err(refused)?;
        let command = with(with(command(), &file.settings), &set);
        let mut cli = Self::from_matches(command, &arguments)?;
        cli.config.upstreams = file.upstreams;
        cli.config.routes = file.routes;
        let cli = cli.with_defaults();
        file::check_routes(&cli.config.upstreams, &cli.config.routes).map_err(refused)?;
        Ok(cli)
    }

    fn from_matches(command: clap::Command, arguments: &[OsString]) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    /// Makes the data folder's path absolute, and adds the upstream of `OPENAI_BASE_URL` and the
    /// route of `ASSISTD_DEFAULT_MODEL`.
    fn with_defaults(mut self) -> Self {
        let config = &mut self.config;
        // So that messages say where it is.
        if let Ok(data_dir) = std::path::absolute(&config.data_dir) {
            config.data_dir = data_dir;
        }
        let base_url = config.openai_base_url.clone().or_else(|| {
            let openai = || Url::parse(OPENAI).expect("a constant that is a URL");
            config.openai_api_key.as_ref().map(|_| openai())
        });
        if let Some(base_url) = base_url {
            let upstream = Upstream {
                name: DEFAULT_UPSTREAM.to_owned(),
                kind: UpstreamKind::OpenAi,
                base_url,
                api_key: config.openai_api_key.clone(),
                api_version: None,
                unsupported: Vec::new(),
            };
            config.upstreams.insert(0, upstream);
        }
        if let Some(model) = &config.default_model {
            let first = config.upstreams.first();
            config.routes.push(Route {
                pattern: "*".to_owned(),
                upstream: first
                    .map_or(SCRIPTED_UPSTREAM, |first| &first.name)
                    .to_owned(),
                model: Some(model.clone()),
                context_window: None,
            });
        }
        self
    }
}

/// Makes settings of the environment or of a file the defaults, so that flags win over them.
fn with(command: clap::Command, settings: &[file::Setting]) -> clap::Command {
    settings
        .iter()
        .cloned()
        .fold(command, |command, (id, values)| {
            command.mut_arg(id, |arg| arg.default_values(values))
        })
}

/// The description of the command line. The environment is read here and not by clap, whose errors
/// name the flag where the variable is at fault, and repeat secrets.
fn command() -> clap::Command {
    Cli::command().mut_args(|arg| {
        let name = arg.get_env().and_then(|name| name.to_str());
        let Some(name) = name.map(str::to_owned) else {
            return arg;
        };
        let with_name = |help: &clap::builder::StyledStr| format!("{help} [env: {name}]");
        let help = arg.get_help().map(with_name);
        let long_help = arg.get_long_help().map(with_name);
        let mut arg = arg.env(None::<&'static str>);
        if let Some(help) = help {
            arg = arg.help(help);
        }
        match long_help {
            Some(help) => arg.long_help(help),
            None => arg,
        }
    })
}

impl Config {
    /// Where file contents go: as set, or in the data folder.
    pub fn blobs(&self) -> String {
        match &self.blobs {
            Some(place) => place.clone(),
            None => self.data_dir.join("blobs").display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
