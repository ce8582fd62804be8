//! From a stored file to its chunks: hash, then copy the chunks of the same contents if the project
//! has them, or else extract, cut, embed and store.

use std::io;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use documents::child::{Limits, Reader};
use documents::chunk::{Chunk, Strategy, TokenizedText};
use documents::{Extraction, Section};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::StreamReader;

use crate::domain::text::without_nul;
use crate::domain::vector_store::{IndexError, IndexErrorCode};
use crate::files::blobs::{BlobError, Blobs};
use crate::retrieval::embeddings::Embeddings;
use crate::retrieval::indexing::failure::IndexFailure;
use crate::store::Pool;
use crate::store::vector_store_jobs::{self as jobs, IndexJob, NewChunk};

/// Chunks that are embedded and stored together: the most that a crash costs.
const CHUNK_BATCH: usize = 64;

/// Most tokens of a file, the bound of OpenAI's hosted service.
const MAX_TOKENS: usize = 5_000_000;

pub(super) struct Pipeline {
    pub(super) pool: Pool,
    pub(super) blobs: Blobs,
    pub(super) embeddings: Embeddings,
    pub(super) language: &'static str,
    pub(super) reader: Reader,
    pub(super) processors: Arc<Semaphore>,
}

pub(super) struct Indexed {
    pub(super) sha256: Vec<u8>,
    /// Why a part of the file's text is missing in its chunks.
    pub(super) incomplete: Option<IndexError>,
}

impl Pipeline {
    /// Stores the chunks of a file that are not stored yet.
    pub(super) async fn index(&self, job: &IndexJob) -> Result<Indexed, IndexFailure> {
        let sha256 = self.hash(job).await?;
        let default_model = self.embeddings.default_model();
        if let Some(copied) = jobs::copy_chunks(&self.pool, job, &sha256, default_model).await? {
            return Ok(Indexed {
                sha256,
                incomplete: copied.incomplete,
            });
        }
        let extraction = self.extract(job).await?;
        let chunks = cut(job, extraction.sections).await?;
        self.store_missing(job, &chunks).await?;
        Ok(Indexed {
            sha256,
            incomplete: extraction.loss.map(|loss| IndexError {
                code: IndexErrorCode::InvalidFile,
                message: loss.to_string(),
            }),
        })
    }

    async fn hash(&self, job: &IndexJob) -> Result<Vec<u8>, IndexFailure> {
        let mut contents = self.open(job).await?;
        let mut hasher = Sha256::new();
        while let Some(bytes) = contents.try_next().await? {
            hasher.update(&bytes);
        }
        Ok(hasher.finalize().to_vec())
    }

    async fn extract(&self, job: &IndexJob) -> Result<Extraction, IndexFailure> {
        let contents = self.open(job).await?.map_err(io::Error::other);
        let contents = StreamReader::new(contents);
        let permit = self.acquire_processor().await?;
        let limits = Limits::default();
        let extracted = self.reader.read(&job.filename, contents, &limits).await;
        drop(permit);
        let mut extraction = extracted?;
        // A malicious document may control the process that reads it, so what that process
        // sends is not trusted to be free of U+0000.
        for section in &mut extraction.sections {
            section.text = without_nul(mem::take(&mut section.text));
            for heading in &mut section.headings {
                *heading = without_nul(mem::take(heading));
            }
        }
        Ok(extraction)
    }

    async fn open(
        &self,
        job: &IndexJob,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, IndexFailure> {
        let contents = self.blobs.get(job.file_id.as_str(), None).await?;
        Ok(contents.stream)
    }

    async fn store_missing(&self, job: &IndexJob, chunks: &[Chunk]) -> Result<(), IndexFailure> {
        let stored = jobs::count_stored_chunks(&self.pool, job).await?;
        let mut ordinal = i32::try_from(stored).unwrap_or(i32::MAX);
        let missing = chunks.get(usize::try_from(stored).unwrap_or(usize::MAX)..);
        for batch in missing.unwrap_or_default().chunks(CHUNK_BATCH) {
            let vectors = self.embed(job, batch).await?;
            let mut rows = Vec::with_capacity(batch.len());
            for (n, chunk) in batch.iter().enumerate() {
                let embedding = vectors.as_ref().and_then(|vectors| vectors.get(n).cloned());
                rows.push(new_chunk(chunk, ordinal, embedding));
                ordinal += 1;
            }
            jobs::add_chunks(&self.pool, job, self.language, &rows).await?;
        }
        Ok(())
    }

    /// Embeds chunks by the vector store's model. A store without one gets the default model; if
    /// there is none, there are no vectors.
    async fn embed(
        &self,
        job: &IndexJob,
        chunks: &[Chunk],
    ) -> Result<Option<Vec<Vec<f32>>>, IndexFailure> {
        let fixed = jobs::find_model(&self.pool, &job.vector_store_id).await?;
        let fixed_name = fixed.as_ref().map(|(model, _)| model.as_str());
        let Some(model) = fixed_name.or(self.embeddings.default_model()) else {
            return Ok(None);
        };
        let texts: Vec<String> = chunks.iter().map(embedded_text).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let permit = match self.embeddings.is_local(model) {
            true => Some(self.acquire_processor().await?),
            false => None,
        };
        let vectors = self.embeddings.embed_chunks(model, &texts).await?;
        drop(permit);
        let dimensions = vectors.first().map_or(0, Vec::len);
        let dimensions = i32::try_from(dimensions).unwrap_or(i32::MAX);
        let fixed = match &fixed {
            None => jobs::fix_model(&self.pool, &job.vector_store_id, model, dimensions).await?,
            Some(fixed) => Some(fixed.clone()),
        };
        match fixed {
            Some((fixed_model, fixed_dimensions))
                if fixed_model == model && fixed_dimensions == dimensions =>
            {
                Ok(Some(vectors))
            }
            Some((fixed_model, fixed_dimensions)) => Err(IndexFailure::Transient(format!(
                "the vector store has embeddings of {fixed_model} with {fixed_dimensions} \
                 dimensions, and those of {model} have {dimensions}"
            ))),
            // The vector store was deleted.
            None => Err(IndexFailure::LeaseLost),
        }
    }

    async fn acquire_processor(&self) -> Result<OwnedSemaphorePermit, IndexFailure> {
        let permit = self.processors.clone().acquire_owned().await;
        permit.map_err(|closed| IndexFailure::Transient(closed.to_string()))
    }
}

fn new_chunk(chunk: &Chunk, ordinal: i32, embedding: Option<Vec<f32>>) -> NewChunk {
    NewChunk {
        ordinal,
        page: chunk.page.and_then(|page| i32::try_from(page).ok()),
        heading: (!chunk.headings.is_empty()).then(|| chunk.headings.join(" > ")),
        content: chunk.text.clone(),
        tokens: i32::try_from(chunk.tokens).unwrap_or(i32::MAX),
        overlap_bytes: i32::try_from(chunk.overlap_bytes).unwrap_or(i32::MAX),
        embedding,
    }
}

/// The text of a chunk, below its heading: often only the heading names the topic.
fn embedded_text(chunk: &Chunk) -> String {
    match chunk.headings.last() {
        Some(heading) if !chunk.text.contains(heading) => format!("{heading}\n{}", chunk.text),
        _ => chunk.text.clone(),
    }
}

async fn cut(job: &IndexJob, sections: Vec<Section>) -> Result<Vec<Chunk>, IndexFailure> {
    let tokens = |number: i32| u32::try_from(number).unwrap_or_default();
    let strategy = Strategy::new(tokens(job.chunk_tokens), tokens(job.chunk_overlap))
        .map_err(|error| IndexFailure::server_error(error.to_string()))?;
    let chunks = tokio::task::spawn_blocking(move || {
        TokenizedText::new(sections, MAX_TOKENS)
            .map(|text| text.chunks(strategy).collect::<Vec<_>>())
    });
    match chunks.await {
        Ok(Ok(chunks)) => Ok(chunks),
        Ok(Err(error)) => {
            let message = format!("{error}. Split it into smaller files.");
            Err(IndexFailure::permanent(
                IndexErrorCode::InvalidFile,
                message,
            ))
        }
        Err(panic) => Err(IndexFailure::server_error(panic.to_string())),
    }
}
