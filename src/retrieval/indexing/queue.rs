//! Table `vector_store_files` as a leased queue: which outcome is retried, and for how long.

use std::sync::Arc;
use std::time::Duration;

use metrics::histogram;
use tokio::time::Instant;
use tracing::Span;

use crate::domain::vector_store::{IndexError, IndexErrorCode};
use crate::jobs::{Backoff, LeasedQueue};
use crate::retrieval::indexing::failure::{IndexFailure, NOT_STORED};
use crate::retrieval::indexing::pipeline::{Indexed, Pipeline};
use crate::store::vector_store_jobs::{self as jobs, IndexJob};
use crate::store::{Pool, StoreError};

/// Most attempts that end in a transient failure: with [`BACKOFF`] about ten minutes, enough to
/// restart a model server.
const MAX_FAILURES: i32 = 10;

/// Maximum number of attempts, so that a file which crashes the server is given up.
const MAX_ATTEMPTS: i32 = 40;

const BACKOFF: Backoff = Backoff::new(&[
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
    Duration::from_secs(64),
    Duration::from_secs(128),
    Duration::from_secs(256),
]);

pub(super) struct IndexQueue {
    pub(super) pipeline: Pipeline,
    pub(super) owner: String,
    pub(super) lease: Duration,
}

pub(super) struct Attempt {
    begin: Instant,
    result: Result<Indexed, IndexFailure>,
}

impl LeasedQueue for IndexQueue {
    type Job = IndexJob;
    type Outcome = Attempt;

    const JOBS: &'static str = "indexing jobs";

    async fn claim(
        &self,
        limit: usize,
        _in_flight: &[Arc<IndexJob>],
    ) -> Result<Vec<IndexJob>, StoreError> {
        jobs::claim(self.pool(), &self.owner, self.lease, limit).await
    }

    async fn renew(&self, in_flight: &[Arc<IndexJob>]) -> Result<(), StoreError> {
        jobs::renew(self.pool(), in_flight, self.lease).await
    }

    async fn release(&self, job: &IndexJob) -> Result<(), StoreError> {
        jobs::release(self.pool(), job).await
    }

    fn span(&self, job: &IndexJob) -> Span {
        tracing::info_span!(
            "index",
            vector_store.id = %job.vector_store_id,
            file.id = %job.file_id
        )
    }

    async fn execute(&self, job: &IndexJob) -> Attempt {
        let begin = Instant::now();
        let result = if job.attempt > MAX_ATTEMPTS {
            Err(IndexFailure::server_error(format!(
                "The file was begun {MAX_ATTEMPTS} times, and each time the server stopped."
            )))
        } else if job.failures >= MAX_FAILURES {
            // See `record_rejection`.
            Err(IndexFailure::server_error(NOT_STORED))
        } else {
            self.pipeline.index(job).await
        };
        Attempt { begin, result }
    }

    async fn record(&self, job: &IndexJob, attempt: Attempt) {
        let (pool, file) = (self.pool(), &job.file_id);
        let (outcome, recorded) = match attempt.result {
            Ok(Indexed { sha256, incomplete }) => {
                let recorded = jobs::complete(pool, job, &sha256, incomplete.as_ref()).await;
                ("completed", recorded)
            }
            Err(IndexFailure::LeaseLost) => ("lost", Ok(())),
            Err(IndexFailure::Permanent(error)) => {
                tracing::info!("file {file} cannot be indexed: {}", error.message);
                ("failed", jobs::fail(pool, job, &error).await)
            }
            Err(IndexFailure::Transient(reason)) if job.failures + 1 < MAX_FAILURES => {
                let pause = BACKOFF.pause(job.failures);
                tracing::warn!(
                    error.cause = reason,
                    "could not index file {file}: {reason}; retrying in {} s",
                    pause.as_secs()
                );
                ("retried", jobs::retry_after(pool, job, pause).await)
            }
            Err(IndexFailure::Transient(reason)) => {
                tracing::warn!(
                    error.cause = reason,
                    "could not index file {file}: {reason}; giving up after {MAX_FAILURES} attempts"
                );
                let error = IndexError {
                    code: IndexErrorCode::ServerError,
                    message: format!("The file could not be indexed: {reason}"),
                };
                ("failed", jobs::fail(pool, job, &error).await)
            }
        };
        let is_rejected = matches!(&recorded, Err(error) if !error.is_transient());
        log_store_error(recorded);
        if is_rejected {
            self.record_rejection(job).await;
        }
        histogram!("assistd_indexing_seconds", "outcome" => outcome)
            .record(attempt.begin.elapsed());
    }
}

impl IndexQueue {
    fn pool(&self) -> &Pool {
        &self.pipeline.pool
    }

    /// Fails a file whose result the database rejects, without any part of that result. If this is
    /// rejected as well, it counts as a transient failure; after [`MAX_FAILURES`] the file is no
    /// longer read, and each attempt only tries to record the failure.
    async fn record_rejection(&self, job: &IndexJob) {
        let error = IndexError {
            code: IndexErrorCode::ServerError,
            message: NOT_STORED.to_owned(),
        };
        let recorded = jobs::fail(self.pool(), job, &error).await;
        if recorded.is_err() {
            log_store_error(recorded);
            let pause = BACKOFF.pause(job.failures);
            log_store_error(jobs::retry_after(self.pool(), job, pause).await);
        }
    }
}

fn log_store_error(recorded: Result<(), StoreError>) {
    if let Err(error) = recorded {
        tracing::warn!(
            error.cause = %error,
            "could not record indexing result: {error}; the file is indexed again when its lease \
             has expired"
        );
    }
}
