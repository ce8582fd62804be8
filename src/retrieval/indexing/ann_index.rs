//! What large stores need so that searching them stays quick: an index of their vectors, and to
//! know which words are everywhere. One process of all makes them, in the background.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::retrieval::embeddings::Embeddings;
use crate::retrieval::search::NUMBERS_COMPARED;
use crate::store::Pool;
use crate::store::StoreError;
use crate::store::vector_store_indexes::{self as indexes, LargeStore};

/// How often it is looked for large stores.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// From this many chunks on, some words are in too many.
const SAMPLED_FROM: i64 = 20_000;

/// A store that is this much larger than when it was sampled is sampled again, in hundredths.
const GROWN: i64 = 150;

/// From this many chunks on, the model of this machine takes hours.
const SLOW_FROM: i64 = 20_000;

/// Looks after large stores until told to stop.
pub(super) struct Caretaker {
    /// The database.
    pub(super) pool: Pool,
    /// The memory that an index may be built in, in bytes; `None` leaves it to the database.
    pub(super) build_memory: Option<u64>,
    /// Tells which model's vectors are made by this machine.
    pub(super) embeddings: Embeddings,
}

impl Caretaker {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut told = HashSet::new();
        loop {
            match stop.run_until_cancelled(self.look(&mut told)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!(
                    error.cause = %error,
                    "large vector stores have no index yet: {error}"
                ),
                None => return,
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(LOOK_EVERY))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    async fn look(&self, told: &mut HashSet<String>) -> Result<(), StoreError> {
        for name in indexes::abandoned(&self.pool).await? {
            if let Some(mut builder) = indexes::Builder::acquire(&self.pool).await? {
                builder.drop(&name).await?;
                tracing::info!("the index of a vector store that is gone was deleted");
            }
        }
        let fewest = SAMPLED_FROM
            .min(SLOW_FROM)
            .min(NUMBERS_COMPARED / i64::from(indexes::DIMENSIONS_MAX));
        for store in indexes::large(&self.pool, fewest).await? {
            if self.is_slow(&store) && told.insert(store.id.to_string()) {
                tracing::warn!(
                    vector_store.id = %store.id,
                    "vector store {} has {} chunks, and their vectors are made by this machine's \
                     processors, a few a second; a model server is faster: ASSISTD_EMBEDDING_MODEL",
                    store.id, store.chunks
                );
            }
            if store.chunks >= SAMPLED_FROM
                && store.chunks >= store.sampled_chunks.saturating_mul(GROWN) / 100
            {
                indexes::sample(&self.pool, &store).await?;
            }
            if wants_index(&store) && !store.has_index {
                self.build(&store).await?;
            }
        }
        Ok(())
    }

    fn is_slow(&self, store: &LargeStore) -> bool {
        let model = store.embedding_model.as_deref();
        store.chunks >= SLOW_FROM && model.is_some_and(|model| self.embeddings.is_local(model))
    }

    async fn build(&self, store: &LargeStore) -> Result<(), StoreError> {
        let Some(mut builder) = indexes::Builder::acquire(&self.pool).await? else {
            return Ok(());
        };
        let (id, chunks) = (&store.id, store.chunks);
        tracing::info!(vector_store.id = %id, "building an index for the {chunks} chunks of {id}");
        let begin = std::time::Instant::now();
        builder.build(store, self.build_memory).await?;
        let seconds = begin.elapsed().as_secs_f64();
        tracing::info!(vector_store.id = %id, "vector store {id} has an index, made in {seconds:.1} s");
        Ok(())
    }
}

fn wants_index(store: &LargeStore) -> bool {
    store.dimensions.is_some_and(|dimensions| {
        dimensions <= indexes::DIMENSIONS_MAX
            && store.chunks.saturating_mul(dimensions.into()) > NUMBERS_COMPARED
    })
}
