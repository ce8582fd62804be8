//! What every part of the server works with, built once from the settings.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use super::error::ServeError;
use super::resources;
use super::resources::document_reader;
use super::sandbox::Sandbox;
use crate::config::{Config, DEFAULT_PROJECT, HttpSettings};
use crate::domain::ids;
use crate::engine;
use crate::events::dispatch::Inbox;
use crate::events::feed::Feed;
use crate::events::notifications::Outbox;
use crate::events::{dispatch, notifications};
use crate::files::blobs::Blobs;
use crate::http::state::{ApiState, BodyMemory, CorsOrigins, Limits};
use crate::jobs::MaintenanceDeps;
use crate::models::Upstreams;
use crate::retrieval::{Embeddings, IndexerDeps, Reranker, Retrieval};
use crate::service::{self, AdminKey, Service};
use crate::store;
use crate::store::Pool;
use crate::store::lease::Claimant;
use crate::telemetry;
use crate::webhooks;

/// Connections for the event log, notifications and lease renewals.
const BACKGROUND_CONNECTIONS: u32 = 2;

/// Text search configuration of PostgreSQL by which chunks and queries are split into words.
const LANGUAGE: &str = "english";

pub(super) struct Deps {
    pub(super) engine: engine::Deps,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) indexer: IndexerDeps,
    pub(super) index_trigger: Arc<Notify>,
    pub(super) webhooks: webhooks::Deps,
    pub(super) maintenance: MaintenanceDeps,
    pub(super) api: ApiState,
    pub(super) sandbox: Sandbox,
    pub(super) blobs: Blobs,
}

impl Deps {
    /// `is_local`: only this machine can reach the server, so it may serve without keys.
    pub(super) async fn new(
        config: &Config,
        pool: Pool,
        is_local: bool,
    ) -> Result<Self, ServeError> {
        let keyless_project = match is_local {
            true => Some(store::projects::find_or_create(&pool, DEFAULT_PROJECT).await?),
            false => None,
        };
        let blobs = resources::blobs(&config.files)?;
        let upstreams = resources::upstreams(&config.models)?;
        let embeddings = resources::embeddings(&config.retrieval, upstreams.clone())?;
        let rerank_model = config.retrieval.rerank_model.clone();
        let reranker = rerank_model.map(|model| Reranker::new(model, upstreams.clone()));
        let retrieval = Retrieval::new(pool.clone(), embeddings.clone(), reranker, LANGUAGE);
        let sandbox = Sandbox::start(config)?;

        let claimant = Claimant {
            owner: ids::hex32(),
            lease: config.runs.lease,
        };
        let slots = usize::try_from(config.runs.max_concurrent_runs).unwrap_or(usize::MAX);
        let (dispatcher, inbox) = dispatch::channel(slots, claimant);
        let (notifier, outbox) = notifications::channel();
        let feed = Feed::new(pool.clone(), notifier.clone());
        let index_trigger = Arc::new(Notify::new());

        let engine = engine::Deps {
            pool: pool.clone(),
            background: background(&pool),
            blobs: blobs.clone(),
            feed: feed.clone(),
            notifier: notifier.clone(),
            upstreams: upstreams.clone(),
            retrieval: retrieval.clone(),
            sandbox: sandbox.pool.clone().with_unsafe(is_local),
            prompt_picture_bytes: config.models.max_prompt_picture_bytes.0,
        };
        let maintenance = MaintenanceDeps {
            pool: pool.clone(),
            blobs: blobs.clone(),
            event_retention: config.maintenance.event_retention,
            webhook_retry_for: config.webhooks.webhook_retry_for,
        };
        let indexer = indexer(config, &pool, &blobs, embeddings)?;
        let webhooks = webhooks(config, &pool)?;
        let sandbox_pool = sandbox.pool.clone();
        let admin_key = config.http.admin_key.as_ref();
        let service = Service::new(service::Deps {
            pool,
            blobs: blobs.clone(),
            feed: feed.clone(),
            dispatcher,
            notifier,
            indexing: index_trigger.clone(),
            retrieval,
            code_interpreter_unavailable: Box::new(move || sandbox_pool.unavailable()),
            keyless_project,
            admin_key: admin_key.map(|key| AdminKey::new(key.expose())),
            settings: service::Settings {
                max_file_bytes: config.http.max_file_bytes.0,
                run_expiry: config.runs.run_expiry,
                thread_store_expiry: config.maintenance.thread_store_expiry.days(),
            },
        });
        let api = api(&config.http, service, feed, upstreams);
        Ok(Self {
            engine,
            inbox,
            outbox,
            indexer,
            index_trigger,
            webhooks,
            maintenance,
            api,
            sandbox,
            blobs,
        })
    }
}

fn indexer(
    config: &Config,
    pool: &Pool,
    blobs: &Blobs,
    embeddings: Embeddings,
) -> Result<IndexerDeps, ServeError> {
    // A database on another machine keeps its own setting.
    let build_memory = match config.database.database_url {
        None => embedded_postgres::memory().map(|bytes| bytes / 4),
        Some(_) => None,
    };
    let reader = document_reader(&config.retrieval)?;
    if reader.pdfium.is_none() {
        tracing::warn!(
            "PDFium is not installed, so PDF files are refused; `make setup` installs it, or name \
             its library in ASSISTD_PDFIUM"
        );
    }
    Ok(IndexerDeps {
        pool: pool.clone(),
        blobs: blobs.clone(),
        embeddings,
        language: LANGUAGE,
        reader,
        owner: ids::hex32(),
        lease: config.runs.lease,
        processors: Arc::new(Semaphore::new(
            std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        )),
        build_memory,
    })
}

fn webhooks(config: &Config, pool: &Pool) -> Result<webhooks::Deps, ServeError> {
    let settings = &config.webhooks;
    Ok(webhooks::Deps {
        pool: pool.clone(),
        sender: webhooks::Sender::new(settings.webhook_allow_private)
            .map_err(ServeError::Webhooks)?,
        owner: ids::hex32(),
        retry_for: settings.webhook_retry_for,
        disable_after: settings.webhook_disable_after,
    })
}

fn api(http: &HttpSettings, service: Service, feed: Feed, upstreams: Upstreams) -> ApiState {
    let prometheus = telemetry::prometheus();
    ApiState {
        service,
        feed,
        upstreams,
        cors_origins: CorsOrigins::new(http.cors_origins.iter().map(ToString::to_string)),
        body_memory: BodyMemory::new(resources::body_memory(http)),
        limits: Arc::new(Limits {
            max_body_bytes: usize::try_from(http.max_body_bytes.0).unwrap_or(usize::MAX),
            body_timeout: http.body_timeout,
            request_timeout: http.request_timeout,
            poll_after: Duration::from_millis(http.poll_after_ms.into()),
            has_tls: http.tls_cert.is_some(),
            has_console: http.console,
            require_beta_header: http.require_beta_header,
        }),
        handlers: TaskTracker::new(),
        metrics: Arc::new(move || prometheus.render()),
        started: Instant::now(),
    }
}

/// Connections whose commits do not wait for the disk.
fn background(pool: &Pool) -> Pool {
    let options = pool.options().clone();
    let options = options.options([("synchronous_commit", "off")]);
    Pool::new(options, BACKGROUND_CONNECTIONS)
}
