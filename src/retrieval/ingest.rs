//! Files become chunks: a durable job like a run, claimed under a lease and done again by another
//! worker if this one dies. What is stored already is not done again.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::blobs::{BlobError, Blobs};
use crate::retrieval::embeddings::{EmbedError, Embeddings};
use crate::store::vector_store_jobs::{self as jobs, IndexError, IndexJob, NewChunk};
use crate::store::{StoreError};

/// How often the queue is looked at without a hint.
const POLL: Duration = Duration::from_secs(1);

/// How often leases are renewed, in parts of a lease.
const RENEWALS: u32 = 4;

/// Chunks that are embedded and stored at a time: what a crash costs at most.
const BATCH: usize = 64;

/// How often a file is tried that fails for reasons that may pass.
const TRIES: i32 = 5;

/// Most tokens of a file, as the hosted service had it.
const TOKENS_MAX: usize = 5_000_000;

/// Chunks that the sweep deletes at a time.
const SWEPT: i64 = 2_000;

/// What indexing needs.
#[derive(Clone)]
pub struct IndexerDeps {
    /// The database.
    pub pool: PgPool,
    /// File contents.
    pub blobs: Blobs,
    /// Models.
    pub embeddings: Embeddings,
    /// A text search configuration of PostgreSQL.
    pub language: &'static str,
    /// Reads documents in a process of its own.
    pub extractor: documents::child::Program,
    /// Names this process.
    pub owner: String,
    /// How long a file is this process's without a sign of life.
    pub lease: Duration,
    /// How many files are worked on at a time.
    pub parallel: usize,
}

/// The indexing of this process.
pub struct Indexer {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why a file is not indexed yet, or never.
#[derive(Debug, thiserror::Error)]
enum Unindexed {
    /// It never will.
    #[error("{}", .0.message)]
    Failed(IndexError),
    /// It may go better later.
    #[error("{0}")]
    Later(String),
    /// It is in other hands, or gone.
    #[error("it is in other hands")]
    Lost,
}

impl Unindexed {
    fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Failed(IndexError {
            code: code.to_owned(),
            message: message.into(),
        })
    }
}

impl From<StoreError> for Unindexed {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => Self::Lost,
            error => Self::Later(error.to_string()),
        }
    }
}

impl From<EmbedError> for Unindexed {
    fn from(error: EmbedError) -> Self {
        match error {
            EmbedError::Unavailable { .. } => Self::Later(error.to_string()),
            EmbedError::Refused { .. } => Self::failed("server_error", error.to_string()),
        }
    }
}

impl Indexer {
    /// Starts to take files, whenever hinted and now and then.
    pub fn start(deps: IndexerDeps, hint: Arc<Notify>) -> Self {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        tasks.spawn(take(deps.clone(), hint, tasks.clone(), stop.clone()));
        tasks.spawn(keep_leases(deps.clone(), stop.clone()));
        tasks.spawn(sweep(deps, stop.clone()));
        Self { tasks, stop }
    }

    /// Takes no more files, and gives those under way back.
    pub async fn drain(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(5), self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some files could not be given back; their leases will run out");
        }
    }
}
