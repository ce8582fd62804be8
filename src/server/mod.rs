//! The composition root: builds everything from the settings, owns start and drain.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use documents::child::Reader;
use embedder::Embedder;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::config::{Bytes, Config, Secret};
use crate::domain::ids;
use crate::engine::{Deps, Engine};
use crate::events::feed::Feed;
use crate::events::{dispatch, notifications};
use crate::files::blobs::{BlobError, Blobs, BucketKey};
use crate::http;
use crate::http::connections;
use crate::http::connections::tls::{self, Certificate, TlsError};
use crate::http::request::body_memory::BodyMemory;
use crate::http::request::cors::CorsOrigins;
use crate::http::state::{ApiState, Limits};
use crate::jobs::{Maintenance, MaintenanceDeps};
use crate::models;
use crate::models::{SetupError, Upstreams};
use crate::retrieval::{Embeddings, Indexer, IndexerDeps, Reranker, Retrieval};
use crate::sandbox_client::{Address, EmbeddedWorker, SandboxPool, WorkerProgram};
use crate::service::{self, AdminKey, Service};
use crate::store::Pool;
use crate::store::lease::Claimant;
use crate::store::{self, StoreError};
use crate::telemetry;
use crate::webhooks::{self, Webhooks};

/// Connections for the event log, notifications and lease renewals.
const BACKGROUND_CONNECTIONS: u32 = 2;

/// Longest path of a Unix socket that every system takes.
const SOCKET_BYTES: usize = 100;

/// What makes this program read a document from its standard input, confined. Not for people.
pub const EXTRACT: &str = "extract-document";

/// How chunks are cut into words: a text search configuration of PostgreSQL.
const LANGUAGE: &str = "english";

/// Files that a process has open beside the connections of clients: those of the database, of
/// upstreams, of sandboxes, and file contents.
const OTHER_FILES: usize = 512;

/// Fewest connections of clients to serve with, unless the settings want fewer: pools of clients,
/// health checks and metrics need some each.
const LEAST_CONNECTIONS: u64 = 64;

/// How long open connections may take to end after the last run has.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Why serving ended early, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener failed.
    #[error("cannot serve: {0}")]
    Listener(#[from] std::io::Error),
    /// No place for files.
    #[error("file storage (ASSISTD_BLOBS) is not usable: {0}")]
    Blobs(#[from] BlobError),
    /// The address of a sandbox worker is none.
    #[error("cannot use a sandbox worker: {0}")]
    Sandbox(&'static str),
    /// The embedding model cannot be loaded.
    #[error("cannot load the embedding model: {0}")]
    Embedder(#[source] embedder::OpenError),
    /// The settings of models are not usable.
    #[error("the models cannot be set up: {0}")]
    Models(#[from] SetupError),
    /// Too few files may be open.
    #[error(
        "this process may have {allowed} files open and needs {needed} to serve; raise the limit \
         (`ulimit -n 4096` in the shell, LimitNOFILE= of a systemd service, `ulimits` of a container)"
    )]
    OpenFiles {
        /// How many it may have open.
        allowed: u64,
        /// How many it needs.
        needed: u64,
    },
    /// No HTTP client for webhooks.
    #[error("webhooks cannot be set up: {0}")]
    Webhooks(#[source] reqwest::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Serves on `listener`, encrypted if there is a `certificate`, until `shutdown` resolves, then
/// drains.
///
/// That is: no new requests, runs under way may finish within the grace period, the rest is given
/// back for others to go on with.
///
/// # Errors
/// If something the server needs is not there.
pub async fn serve(
    config: Config,
    pool: Pool,
    listener: TcpListener,
    certificate: Option<Certificate>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let blobs = blobs(&config)?;
    let upstreams = Upstreams::new(upstream_options(&config))?;
    let open_to = match listener.local_addr()?.ip().is_loopback() {
        true => Some(store::projects::find_or_create(&pool, config::DEFAULT_PROJECT).await?),
        false => None,
    };
    let claimant = Claimant {
        owner: ids::hex32(),
        lease: config.runs.lease,
    };
    let slots = usize::try_from(config.runs.max_concurrent_runs).unwrap_or(usize::MAX);
    let (dispatcher, inbox) = dispatch::channel(slots, claimant);
    let (notifier, outbox) = notifications::channel();
    let feed = Feed::new(pool.clone(), notifier.clone());
    let sandbox = Sandbox::start(&config)?;
    let embeddings = embeddings(&config, upstreams.clone())?;
    let retrieval = Retrieval::new(
        pool.clone(),
        embeddings.clone(),
        config
            .retrieval
            .rerank_model
            .clone()
            .map(|model| Reranker::new(model, upstreams.clone())),
        LANGUAGE,
    );
    let indexing = Arc::new(Notify::new());
    let indexer = IndexerDeps {
        pool: pool.clone(),
        blobs: blobs.clone(),
        embeddings,
        language: LANGUAGE,
        reader: Reader {
            program: std::env::current_exe()?,
            arguments: vec![EXTRACT.to_owned()],
            pdfium: config.retrieval.pdfium.clone(),
        },
        owner: ids::hex32(),
        lease: config.runs.lease,
        processors: Arc::new(Semaphore::new(
            std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        )),
        build_memory: config
            .database
            .database_url
            .is_none()
            .then(embedded_postgres::memory)
            .flatten()
            .map(|bytes| bytes / 4),
    };
    let deps = Deps {
        pool: pool.clone(),
        background: background(&pool),
        blobs: blobs.clone(),
        feed: feed.clone(),
        notifier: notifier.clone(),
        upstreams: upstreams.clone(),
        retrieval: retrieval.clone(),
        sandbox: sandbox.pool.clone().with_unsafe(open_to.is_some()),
        prompt_picture_bytes: config.models.max_prompt_picture_bytes.0,
    };
    let maintenance = MaintenanceDeps {
        pool: pool.clone(),
        blobs: blobs.clone(),
        event_retention: config.maintenance.event_retention,
        webhook_retry_for: config.webhooks.webhook_retry_for,
    };
    let webhooks = webhooks::Deps {
        pool: pool.clone(),
        sender: webhooks::Sender::new(config.webhooks.webhook_allow_private)
            .map_err(ServeError::Webhooks)?,
        owner: ids::hex32(),
        retry_for: config.webhooks.webhook_retry_for,
        disable_after: config.webhooks.webhook_disable_after,
    };
    let prometheus = telemetry::prometheus();
    let pool_of_sandboxes = sandbox.pool.clone();
    let handlers = TaskTracker::new();
    let service = Service::new(service::Deps {
        pool,
        blobs: blobs.clone(),
        feed: feed.clone(),
        dispatcher,
        notifier,
        indexing: indexing.clone(),
        retrieval,
        code_interpreter_unavailable: Box::new(move || pool_of_sandboxes.unavailable()),
        keyless_project: open_to,
        admin_key: config
            .http
            .admin_key
            .as_ref()
            .map(|key| AdminKey::new(key.expose())),
        settings: service::Settings {
            max_file_bytes: config.http.max_file_bytes.0,
            run_expiry: config.runs.run_expiry,
            thread_store_expiry: config.maintenance.thread_store_expiry.days(),
        },
    });
    let state = ApiState {
        service,
        feed,
        upstreams,
        cors_origins: CorsOrigins::new(config.http.cors_origins.iter().map(ToString::to_string)),
        body_memory: BodyMemory::new(body_memory(&config)),
        limits: Arc::new(limits(&config)),
        handlers: handlers.clone(),
        metrics: Arc::new(move || prometheus.render()),
    };

    let engine = Engine::start(deps, inbox, outbox);
    let indexer = Indexer::start(indexer, indexing);
    let webhooks = Webhooks::start(webhooks);
    let maintenance = Maintenance::start(maintenance);
    let stopping = CancellationToken::new();
    let fresh = certificate.clone().map(|certificate| {
        let stopping = stopping.clone();
        tokio::spawn(certificate.keep_fresh(stopping))
    });
    let limits = connection_limits(&config);
    let router = http::router(state);
    let server = connections::serve(listener, router, certificate, limits, stopping.clone());
    let closed = CancellationToken::new();
    let guard = closed.clone().drop_guard();
    let mut server = tokio::spawn(async move {
        let _guard = guard;
        server.await;
    });
    shutdown.await;
    stopping.cancel();
    // A handler that has stored a run under our lease dispatches it while the engine still takes it.
    handlers.close();
    let dispatched = tokio::time::timeout(CLOSE_WITHIN, handlers.wait()).await;
    if dispatched.is_err() {
        tracing::info!("shutdown: some requests take longer; draining the engine meanwhile");
    }
    engine
        .drain(config.http.shutdown_grace, closed.cancelled())
        .await;
    indexer.drain().await;
    webhooks.drain().await;
    maintenance.stop().await;
    sandbox.stop().await;
    if let Some(fresh) = fresh {
        fresh.await.map_err(std::io::Error::other)??;
    }
    match tokio::time::timeout(CLOSE_WITHIN, &mut server).await {
        Ok(served) => served.map_err(std::io::Error::other)?,
        Err(_) => {
            tracing::info!("some connections did not end in time; closing them");
            server.abort();
        }
    }
    let rest = async {
        handlers.wait().await;
        blobs.close().await;
    };
    if tokio::time::timeout(CLOSE_WITHIN, rest).await.is_err() {
        tracing::warn!(
            handlers = handlers.len(),
            "shutdown: some requests did not end in time; abandoning them"
        );
    }
    Ok(())
}

/// The certificate of the settings, if they name one.
///
/// # Errors
/// If it cannot be used.
pub fn certificate(config: &Config) -> Result<Option<Certificate>, TlsError> {
    match (&config.http.tls_cert, &config.http.tls_key) {
        (None, None) => Ok(None),
        (Some(chain), Some(key)) => {
            let (chain, key) = (chain.clone(), key.clone());
            Certificate::open(tls::Files { chain, key }).map(Some)
        }
        (Some(_), None) | (None, Some(_)) => Err(TlsError::Half),
    }
}

/// Checks that this process may have enough files open to serve.
///
/// # Errors
/// If not: most clients would wait for ever for a connection.
pub fn check_open_files(config: &Config) -> Result<u64, ServeError> {
    let allowed = connections::open_file_limit();
    let needed = OTHER_FILES as u64 + LEAST_CONNECTIONS.min(config.http.max_connections.into());
    match allowed < needed {
        true => Err(ServeError::OpenFiles { allowed, needed }),
        false => Ok(allowed),
    }
}

fn connection_limits(config: &Config) -> connections::Limits {
    let wanted = usize::try_from(config.http.max_connections).unwrap_or(usize::MAX);
    let files = usize::try_from(connections::allow_open_files()).unwrap_or(usize::MAX);
    let connections = wanted.min(files.saturating_sub(OTHER_FILES).max(1));
    if connections < wanted {
        tracing::warn!(
            "at most {connections} connections at a time, as this process may have only {files} \
             files open; allow it more (ulimit -n, LimitNOFILE)"
        );
    }
    connections::Limits {
        connections,
        idle: config.http.idle_timeout,
        stalled: config.http.reader_timeout,
    }
}

/// Where file contents lie.
pub fn blobs(config: &Config) -> Result<Blobs, BlobError> {
    let text = |secret: &Option<Secret>| secret.as_ref().map(|it| it.expose().to_owned());
    let key = BucketKey {
        id: text(&config.files.aws_access_key_id),
        secret: text(&config.files.aws_secret_access_key),
    };
    Blobs::open(&config.files.blob_location(), key)
}

/// Where code runs, with the worker that is ours.
pub struct Sandbox {
    /// Asked for sessions.
    pub pool: SandboxPool,
    embedded: Option<EmbeddedWorker>,
}

impl Sandbox {
    /// Finds or starts the workers.
    ///
    /// # Errors
    /// If an address is none.
    pub fn start(config: &Config) -> Result<Self, ServeError> {
        let pool = match &config.sandbox.sandbox {
            config::SandboxWorkers::Off => {
                SandboxPool::off("it is switched off by ASSISTD_SANDBOX")
            }
            config::SandboxWorkers::Remote(addresses) => {
                let addresses: Result<Vec<Address>, _> =
                    addresses.iter().map(|address| address.parse()).collect();
                let addresses = addresses.map_err(ServeError::Sandbox)?;
                let token = config.sandbox.sandbox_token.as_ref();
                SandboxPool::remote(addresses, token.map(|token| token.expose().to_owned()))
            }
            config::SandboxWorkers::Embedded => match sandbox_program(config) {
                Ok(program) => {
                    let embedded = EmbeddedWorker::start(program);
                    return Ok(Self {
                        pool: SandboxPool::embedded(&embedded),
                        embedded: Some(embedded),
                    });
                }
                Err(reason) => {
                    tracing::warn!("code_interpreter is off: {reason}");
                    SandboxPool::off(reason)
                }
            },
        };
        let embedded = None;
        Ok(Self { pool, embedded })
    }

    async fn stop(self) {
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

/// The embedded sandbox worker's program and settings, or why there is none.
pub fn sandbox_program(config: &Config) -> Result<WorkerProgram, String> {
    let here = std::env::current_exe().ok();
    let beside = || here.as_deref().and_then(WorkerProgram::beside);
    let path = config.sandbox.sandbox_program.clone().or_else(beside);
    let path = path.ok_or(
        "the program assistd-sandbox is not beside assistd; `make setup` says what it needs, and \
         `make run` builds it",
    )?;
    Ok(WorkerProgram {
        path,
        environment: config.sandbox.sandbox_environment.clone(),
        socket: sandbox_socket(&config.files.data_dir),
    })
}

/// A Unix socket's path has about a hundred bytes at most, so a long one moves to the folder for
/// temporary files.
fn sandbox_socket(data_dir: &Path) -> PathBuf {
    let path = data_dir.join("sandbox").join("worker.sock");
    if path.as_os_str().len() <= SOCKET_BYTES {
        return path;
    }
    let mut hasher = DefaultHasher::new();
    data_dir.hash(&mut hasher);
    let folder = format!("assistd-sandbox-{:016x}", hasher.finish());
    std::env::temp_dir().join(folder).join("worker.sock")
}

/// The models that make vectors: the one that is set, or the one that set-up has installed.
///
/// # Errors
/// If the folder that is set has no model.
pub fn embeddings(config: &Config, upstreams: Upstreams) -> Result<Embeddings, ServeError> {
    let here = Some(embedder::MODEL.to_owned());
    // Stores that have the installed model keep it under any other default.
    let installed = installed_model();
    let (default, local) = match &config.retrieval.embedding_model {
        config::EmbeddingModel::Off => (None, installed),
        config::EmbeddingModel::Folder(folder) => {
            Embedder::open(folder).map_err(ServeError::Embedder)?;
            (here, Some(folder.clone()))
        }
        config::EmbeddingModel::Upstream(name) => {
            let installed = installed.filter(|_| name != embedder::MODEL);
            (Some(name.clone()), installed)
        }
        config::EmbeddingModel::Installed if installed.is_some() => (here, installed),
        config::EmbeddingModel::Installed => {
            tracing::warn!(
                "no embedding model is installed, so vector stores are searched by words alone; \
                 `make setup` installs one, or name one in ASSISTD_EMBEDDING_MODEL"
            );
            (None, None)
        }
    };
    Ok(Embeddings::new(default, local, upstreams))
}

/// The folder of the model that set-up has installed.
pub fn installed_model() -> Option<PathBuf> {
    let model = Path::new("models").join(embedder::MODEL);
    let mut folders = installed::environments().into_iter();
    folders.find_map(|environment| Some(environment.join(&model)).filter(|it| it.is_dir()))
}

/// A few connections that do not wait for the disk when they commit.
fn background(pool: &Pool) -> Pool {
    let options = pool.options().clone();
    let options = options.options([("synchronous_commit", "off")]);
    Pool::new(options, BACKGROUND_CONNECTIONS)
}

/// The memory of request bodies: what is set, or else an eighth of what there is.
fn body_memory(config: &Config) -> u64 {
    const UNKNOWN: u64 = 4 << 30;
    match config.http.max_body_memory {
        Some(Bytes(bytes)) => bytes,
        None => embedded_postgres::memory().unwrap_or(UNKNOWN) / 8,
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        max_body_bytes: usize::try_from(config.http.max_body_bytes.0).unwrap_or(usize::MAX),
        body_timeout: config.http.body_timeout,
        request_timeout: config.http.request_timeout,
        poll_after: Duration::from_millis(config.http.poll_after_ms.into()),
        has_tls: config.http.tls_cert.is_some(),
        require_beta_header: config.http.require_beta_header,
    }
}

/// The settings that concern models, in the form that [`upstream::Upstreams::new`] takes.
pub fn upstream_options(config: &Config) -> models::Options {
    let upstreams = config
        .models
        .upstreams
        .iter()
        .map(|one| models::UpstreamOptions {
            name: one.name.clone(),
            kind: match (one.kind, &one.api_version) {
                (config::UpstreamKind::Azure, Some(version)) => models::UpstreamKind::Azure {
                    api_version: version.clone(),
                },
                (config::UpstreamKind::OpenAi | config::UpstreamKind::Azure, _) => {
                    models::UpstreamKind::OpenAi
                }
            },
            base_url: one.base_url.to_string(),
            api_key: one.api_key.as_ref().map(|key| key.expose().to_owned()),
            unsupported: one.unsupported.clone(),
        });
    let routes = config
        .models
        .routes
        .iter()
        .map(|route| models::RouteOptions {
            pattern: route.pattern.clone(),
            upstream: route.upstream.clone(),
            model: route.model.clone(),
            context_window: route.context_window,
        });
    models::Options {
        upstreams: upstreams.collect(),
        routes: routes.collect(),
        default_model: config.models.default_model.clone(),
        script: config.models.script.clone(),
        idle_timeout: config.models.upstream_timeout,
        max_line_bytes: usize::try_from(config.models.max_upstream_line_bytes.0)
            .unwrap_or(usize::MAX),
        max_answer_bytes: usize::try_from(config.models.max_upstream_answer_bytes.0)
            .unwrap_or(usize::MAX),
        retries: config.models.upstream_retries,
        ..models::Options::default()
    }
}
