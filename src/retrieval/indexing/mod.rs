//! Indexing: files of vector stores become chunks that searches find.
//!
//! A file is a job of a leased queue, like a run. What an attempt has stored, the next one does not
//! repeat.

mod ann_index;
mod failure;
mod pipeline;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use documents::child::Reader;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::files::blobs::Blobs;
use crate::jobs::{Consumer, Settings};
use crate::retrieval::embeddings::Embeddings;
use crate::retrieval::indexing::ann_index::IndexMaintainer;
use crate::retrieval::indexing::pipeline::Pipeline;
use crate::retrieval::indexing::queue::IndexQueue;
use crate::store::Pool;

/// Files indexed at a time. Most of them wait for a model server or a processor.
const FILES_IN_FLIGHT: usize = 16;

pub struct IndexerDeps {
    pub pool: Pool,
    pub blobs: Blobs,
    pub embeddings: Embeddings,
    pub language: &'static str,
    pub reader: Reader,
    /// Names this process in the leases.
    pub owner: String,
    pub lease: Duration,
    /// Permits for CPU-bound work, one for each processor.
    pub processors: Arc<Semaphore>,
    /// Most memory for building an ANN index, in bytes; `None` keeps the database's setting.
    pub build_memory: Option<u64>,
}

pub struct Indexer {
    consumer: Consumer,
    maintainer: TaskTracker,
    stop: CancellationToken,
}

impl Indexer {
    pub fn start(deps: IndexerDeps, wake: Arc<Notify>) -> Self {
        let maintainer = IndexMaintainer {
            pool: deps.pool.clone(),
            build_memory: deps.build_memory,
            embeddings: deps.embeddings.clone(),
        };
        let settings = Settings {
            capacity: FILES_IN_FLIGHT,
            // A large batch would leave other processes without work.
            batch: 1,
            lease: deps.lease,
            grace: Duration::ZERO,
        };
        let queue = IndexQueue {
            pipeline: Pipeline {
                pool: deps.pool,
                blobs: deps.blobs,
                embeddings: deps.embeddings,
                language: deps.language,
                reader: deps.reader,
                processors: deps.processors,
            },
            owner: deps.owner,
            lease: deps.lease,
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(maintainer.run(stop.clone()));
        Self {
            consumer: Consumer::start(queue, settings, wake),
            maintainer: tasks,
            stop,
        }
    }

    /// Claims no more files, and releases those in flight.
    pub async fn drain(self) {
        self.stop.cancel();
        self.maintainer.close();
        tokio::join!(self.consumer.drain(), self.maintainer.wait());
    }
}
