//! Files become chunks: a durable job like a run, claimed under a lease and done again by another
//! worker if this one dies. What is stored already is not done again.

mod ann_index;

use std::collections::HashMap;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use documents::child::Reader;
use documents::chunk::{Chunk, Strategy, TokenizedText};
use documents::{ErrorCode, ExtractError, Section};
use futures::TryStreamExt;
use metrics::histogram;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::domain::text::without_nul;
use crate::domain::vector_store::{IndexError, IndexErrorCode};
use crate::files::blobs::{BlobError, Blobs};
use crate::retrieval::embeddings::{EmbedError, Embeddings};
use crate::retrieval::indexing::ann_index::Caretaker;
use crate::store::Pool;
use crate::store::StoreError;
use crate::store::vector_store_jobs::{self as jobs, IndexJob, NewChunk};

/// How often the queue is looked at without a hint.
const POLL: Duration = Duration::from_secs(1);

/// How often leases are renewed, in parts of a lease.
const RENEWALS: u32 = 4;

/// Chunks that are embedded and stored at a time: what a crash costs at most.
const BATCH: usize = 64;

/// How many files are worked on at a time. Most of them wait for a model server, or for their turn.
const FILES: usize = 16;

/// How often a file is tried that fails for reasons that may pass: for some ten minutes, so that a
/// model server can be started anew.
const TRIES: i32 = 10;

/// How often a file is begun, whatever stopped it: one that ends the server must not do so for ever.
const ATTEMPTS: i32 = 40;

/// What clients are told when the database refuses what comes of a file.
const NOT_STORED: &str = "The file could not be indexed: what was read of it cannot be stored.";

/// Most tokens of a file, as the hosted service had it.
const TOKENS_MAX: usize = 5_000_000;

/// What indexing needs.
#[derive(Clone)]
pub struct IndexerDeps {
    /// The database.
    pub pool: Pool,
    /// File contents.
    pub blobs: Blobs,
    /// Models.
    pub embeddings: Embeddings,
    /// A text search configuration of PostgreSQL.
    pub language: &'static str,
    /// Reads documents in a process of its own.
    pub reader: Reader,
    /// Names this process.
    pub owner: String,
    /// How long a file is this process's without a sign of life.
    pub lease: Duration,
    /// Permits for what keeps a processor busy, reading documents above all: one a processor.
    pub processors: Arc<Semaphore>,
    /// The memory that an index of a large store may be built in, in bytes; `None` leaves it to the
    /// database.
    pub build_memory: Option<u64>,
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
    fn failed(code: IndexErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Failed(IndexError { code, message })
    }
}

impl From<StoreError> for Unindexed {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => Self::Lost,
            error if error.is_transient() => Self::Later(error.to_string()),
            error => {
                tracing::error!(error.cause = %error, "the database refuses a file: {error}");
                Self::failed(IndexErrorCode::ServerError, NOT_STORED)
            }
        }
    }
}

impl From<EmbedError> for Unindexed {
    fn from(error: EmbedError) -> Self {
        match error {
            EmbedError::Unavailable { .. } => Self::Later(error.to_string()),
            EmbedError::Refused { .. } => {
                Self::failed(IndexErrorCode::ServerError, error.to_string())
            }
        }
    }
}

impl Indexer {
    /// Starts to take files, whenever hinted and now and then.
    pub fn start(deps: IndexerDeps, hint: Arc<Notify>) -> Self {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let caretaker = Caretaker {
            pool: deps.pool.clone(),
            build_memory: deps.build_memory,
            embeddings: deps.embeddings.clone(),
        };
        tasks.spawn(caretaker.run(stop.clone()));
        let held = HeldJobs::default();
        let taking = take(
            deps.clone(),
            held.clone(),
            hint,
            tasks.clone(),
            stop.clone(),
        );
        tasks.spawn(taking);
        tasks.spawn(keep_leases(deps, held, stop.clone()));
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

/// Claims due files until told to stop.
async fn take(
    deps: IndexerDeps,
    held: HeldJobs,
    hint: Arc<Notify>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(FILES));
    loop {
        let Some(Ok(slot)) = stop
            .run_until_cancelled(slots.clone().acquire_owned())
            .await
        else {
            return;
        };
        match jobs::claim(&deps.pool, &deps.owner, deps.lease, 1).await {
            Ok(mut claimed) => {
                if let Some(job) = claimed.pop() {
                    let span = tracing::info_span!(
                        "index",
                        vector_store.id = %job.vector_store_id,
                        file.id = %job.file_id
                    );
                    let held = held.hold(&job);
                    let work = work(deps.clone(), job, slot, stop.clone());
                    let work = async move {
                        work.await;
                        drop(held);
                    };
                    tasks.spawn(work.instrument(span));
                    continue;
                }
            }
            Err(error) => {
                tracing::warn!(error.cause = %error, "the queue of files cannot be read: {error}");
            }
        }
        drop(slot);
        tokio::select! {
            () = stop.cancelled() => return,
            () = hint.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// The jobs of this process that have a worker, by `seq`, with their attempts. Only their leases are
/// renewed: one whose result could not be stored is to be claimed again.
#[derive(Clone, Default)]
struct HeldJobs(Arc<Mutex<HashMap<i64, i32>>>);

impl HeldJobs {
    fn hold(&self, job: &IndexJob) -> HeldJob {
        self.0.lock().insert(job.seq, job.attempt);
        HeldJob {
            jobs: self.clone(),
            seq: job.seq,
            attempt: job.attempt,
        }
    }

    fn all(&self) -> Vec<(i64, i32)> {
        let jobs = self.0.lock();
        jobs.iter().map(|(seq, attempt)| (*seq, *attempt)).collect()
    }
}

/// A job among those that have a worker, until it is dropped.
struct HeldJob {
    jobs: HeldJobs,
    seq: i64,
    attempt: i32,
}

impl Drop for HeldJob {
    fn drop(&mut self) {
        let mut jobs = self.jobs.0.lock();
        if jobs.get(&self.seq) == Some(&self.attempt) {
            jobs.remove(&self.seq);
        }
    }
}

async fn keep_leases(deps: IndexerDeps, held: HeldJobs, stop: CancellationToken) {
    loop {
        let pause = tokio::time::sleep(deps.lease / RENEWALS);
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
        let jobs = held.all();
        if jobs.is_empty() {
            continue;
        }
        if let Err(error) = jobs::renew(&deps.pool, &jobs, deps.lease).await {
            tracing::warn!(error.cause = %error, "leases of files were not renewed: {error}");
        }
    }
}

/// Indexes one file, and says what came of it.
async fn work(
    deps: IndexerDeps,
    job: IndexJob,
    slot: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let begin = Instant::now();
    let outcome = match stop.run_until_cancelled(index(&deps, &job)).await {
        Some(outcome) => outcome,
        None => {
            settle(jobs::release(&deps.pool, &job).await);
            return;
        }
    };
    drop(slot);
    let (label, recorded) = match outcome {
        Ok(sha256) => ("completed", jobs::complete(&deps.pool, &job, &sha256).await),
        Err(Unindexed::Lost) => ("lost", Ok(())),
        Err(Unindexed::Failed(error)) => {
            tracing::info!("a file cannot be indexed: {}", error.message);
            ("failed", jobs::fail(&deps.pool, &job, &error).await)
        }
        Err(Unindexed::Later(reason)) if job.failures + 1 < TRIES => {
            tracing::warn!(
                error.cause = reason,
                "a file could not be indexed yet: {reason}"
            );
            let recorded = jobs::retry_after(&deps.pool, &job, pause(&job)).await;
            ("retried", recorded)
        }
        Err(Unindexed::Later(reason)) => {
            tracing::warn!(
                error.cause = reason,
                "a file could not be indexed: {reason}"
            );
            let message = format!("The file could not be indexed: {reason}");
            let code = IndexErrorCode::ServerError;
            let error = IndexError { code, message };
            ("failed", jobs::fail(&deps.pool, &job, &error).await)
        }
    };
    let refused = matches!(&recorded, Err(error) if !error.is_transient());
    settle(recorded);
    if refused {
        refuse(&deps, &job).await;
    }
    histogram!("assistd_indexing_seconds", "outcome" => label).record(begin.elapsed());
}

/// Ends a file whose result the database refuses, without anything of that result. If it refuses
/// this too, the file waits longer after each attempt, and after [`TRIES`] is read no more.
async fn refuse(deps: &IndexerDeps, job: &IndexJob) {
    let error = IndexError {
        code: IndexErrorCode::ServerError,
        message: NOT_STORED.to_owned(),
    };
    let failed = jobs::fail(&deps.pool, job, &error).await;
    if failed.is_err() {
        settle(failed);
        settle(jobs::retry_after(&deps.pool, job, pause(job)).await);
    }
}

/// How long a file waits after an attempt that failed.
fn pause(job: &IndexJob) -> Duration {
    Duration::from_secs(2_u64.pow(job.failures.clamp(0, 8) as u32))
}

/// Logs a result that was not stored. The file is indexed again when the lease has run out.
fn settle(written: Result<(), StoreError>) {
    if let Err(error) = written {
        tracing::warn!(error.cause = %error, "could not record indexing result: {error}");
    }
}

/// Reads, cuts, embeds and stores a file; the hash of its contents.
async fn index(deps: &IndexerDeps, job: &IndexJob) -> Result<Vec<u8>, Unindexed> {
    if job.attempt > ATTEMPTS {
        return Err(Unindexed::failed(
            IndexErrorCode::ServerError,
            format!("The file was begun {ATTEMPTS} times, and each time the server stopped."),
        ));
    }
    if job.failures >= TRIES {
        return Err(Unindexed::failed(IndexErrorCode::ServerError, NOT_STORED));
    }
    let sha256 = hash(deps, job).await?;
    let model = deps.embeddings.default_model();
    if jobs::copy_chunks(&deps.pool, job, &sha256, model).await? {
        return Ok(sha256);
    }
    let sections = read(deps, job).await?;
    let chunks = cut(job, sections).await?;
    let stored = jobs::stored_chunks(&deps.pool, job).await?;
    let mut ordinal = i32::try_from(stored).unwrap_or(i32::MAX);
    let left = chunks.get(usize::try_from(stored).unwrap_or(usize::MAX)..);
    for batch in left.unwrap_or_default().chunks(BATCH) {
        let vectors = embed(deps, job, batch).await?;
        let mut new = Vec::with_capacity(batch.len());
        for (n, chunk) in batch.iter().enumerate() {
            new.push(NewChunk {
                ordinal,
                page: chunk.page.and_then(|page| i32::try_from(page).ok()),
                heading: (!chunk.headings.is_empty()).then(|| chunk.headings.join(" > ")),
                content: chunk.text.clone(),
                tokens: i32::try_from(chunk.tokens).unwrap_or(i32::MAX),
                overlap_bytes: i32::try_from(chunk.overlap_bytes).unwrap_or(i32::MAX),
                embedding: vectors.as_ref().and_then(|vectors| vectors.get(n).cloned()),
            });
            ordinal += 1;
        }
        jobs::add_chunks(&deps.pool, job, deps.language, &new).await?;
    }
    Ok(sha256)
}

/// Vectors of these chunks, by the store's model, which is the default one if it has none yet.
async fn embed(
    deps: &IndexerDeps,
    job: &IndexJob,
    chunks: &[Chunk],
) -> Result<Option<Vec<Vec<f32>>>, Unindexed> {
    let texts: Vec<String> = chunks
        .iter()
        .map(|chunk| match chunk.headings.last() {
            // What a passage is about is often said above it only.
            Some(heading) if !chunk.text.contains(heading) => format!("{heading}\n{}", chunk.text),
            _ => chunk.text.clone(),
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let settled = jobs::find_model(&deps.pool, &job.vector_store_id).await?;
    let of_store = settled.as_ref().map(|(model, _)| model.as_str());
    let Some(model) = of_store.or(deps.embeddings.default_model()) else {
        return Ok(None);
    };
    let permit = match deps.embeddings.is_local(model) {
        true => Some(busy(deps).await?),
        false => None,
    };
    let vectors = deps.embeddings.embed_passages(model, &texts).await?;
    drop(permit);
    let dimensions = vectors.first().map_or(0, Vec::len);
    let dimensions = i32::try_from(dimensions).unwrap_or(i32::MAX);
    let of_store = match &settled {
        None => jobs::fix_model(&deps.pool, &job.vector_store_id, model, dimensions).await?,
        Some(settled) => Some(settled.clone()),
    };
    match of_store {
        Some((of_store, wanted)) if of_store == model && wanted == dimensions => Ok(Some(vectors)),
        Some((of_store, wanted)) => Err(Unindexed::Later(format!(
            "the vector store has vectors of {of_store} with {wanted} numbers, and {model} makes \
             {dimensions}"
        ))),
        None => Err(Unindexed::Lost),
    }
}

async fn hash(deps: &IndexerDeps, job: &IndexJob) -> Result<Vec<u8>, Unindexed> {
    let mut contents = open(deps, job).await?;
    let mut hasher = Sha256::new();
    while let Some(piece) = contents.try_next().await.map_err(later)? {
        hasher.update(&piece);
    }
    Ok(hasher.finalize().to_vec())
}

async fn read(deps: &IndexerDeps, job: &IndexJob) -> Result<Vec<Section>, Unindexed> {
    let contents = open(deps, job).await?.map_err(io::Error::other);
    let limits = documents::child::Limits::default();
    let contents = StreamReader::new(contents);
    let permit = busy(deps).await?;
    let read = deps.reader.read(&job.filename, contents, &limits).await;
    drop(permit);
    let mut sections = read.map_err(|error| match &error {
        ExtractError::Internal(reason) => {
            Unindexed::Later(format!("the process that reads documents {reason}"))
        }
        _ => Unindexed::failed(code(error.code()), without_nul(error.message())),
    })?;
    // A document may have taken over the process that read it.
    for section in &mut sections {
        section.text = without_nul(mem::take(&mut section.text));
        for heading in &mut section.headings {
            *heading = without_nul(mem::take(heading));
        }
    }
    Ok(sections)
}

async fn busy(deps: &IndexerDeps) -> Result<OwnedSemaphorePermit, Unindexed> {
    let permit = deps.processors.clone().acquire_owned().await;
    permit.map_err(|closed| Unindexed::Later(closed.to_string()))
}

fn code(code: ErrorCode) -> IndexErrorCode {
    match code {
        ErrorCode::UnsupportedFile => IndexErrorCode::UnsupportedFile,
        ErrorCode::InvalidFile => IndexErrorCode::InvalidFile,
        ErrorCode::ServerError => IndexErrorCode::ServerError,
    }
}

async fn cut(job: &IndexJob, sections: Vec<Section>) -> Result<Vec<Chunk>, Unindexed> {
    let tokens = |number: i32| u32::try_from(number).unwrap_or_default();
    let strategy = Strategy::new(tokens(job.chunk_tokens), tokens(job.chunk_overlap))
        .map_err(|error| Unindexed::failed(IndexErrorCode::ServerError, error.to_string()))?;
    let encoded = tokio::task::spawn_blocking(move || {
        TokenizedText::new(sections, TOKENS_MAX)
            .map(|text| text.chunks(strategy).collect::<Vec<_>>())
    });
    match encoded.await {
        Ok(Ok(chunks)) => Ok(chunks),
        Ok(Err(error)) => {
            let message = format!("{error}. Split it into smaller files.");
            Err(Unindexed::failed(IndexErrorCode::InvalidFile, message))
        }
        Err(panic) => Err(Unindexed::failed(
            IndexErrorCode::ServerError,
            panic.to_string(),
        )),
    }
}

type Contents = futures::stream::BoxStream<'static, Result<bytes::Bytes, BlobError>>;

async fn open(deps: &IndexerDeps, job: &IndexJob) -> Result<Contents, Unindexed> {
    match deps.blobs.get(job.file_id.as_str(), None).await {
        Ok(contents) => Ok(contents.stream),
        // Imported without them. If the file was deleted meanwhile, nothing is written.
        Err(BlobError::Missing { .. }) => Err(Unindexed::Failed(IndexError::without_contents())),
        Err(error) => Err(later(error)),
    }
}

fn later(error: BlobError) -> Unindexed {
    Unindexed::Later(format!("its contents cannot be read: {error}"))
}
