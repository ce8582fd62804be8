//! Builds ANN indexes and statistics of common lexemes for large vector stores. One process at a
//! time builds, behind an advisory lock.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::domain::ids::VectorStoreId;
use crate::retrieval::embeddings::Embeddings;
use crate::retrieval::search::{EXACT_SCAN_MAX, needs_ann_index};
use crate::store::vector_store_indexes::{self as indexes, LargeStore};
use crate::store::{Pool, StoreError};

const CHECK_INTERVAL: Duration = Duration::from_secs(20);

/// From this many chunks on, lexical search needs to know which lexemes are common.
const SAMPLED_FROM: i64 = 20_000;

/// A store is sampled again when it has grown to this many per cent.
const SAMPLE_GROWTH_PERCENT: i64 = 150;

/// From this many chunks on, the local embedding model takes hours.
const SLOW_FROM: i64 = 20_000;

pub(super) struct IndexMaintainer {
    pub(super) pool: Pool,
    pub(super) build_memory: Option<u64>,
    pub(super) embeddings: Embeddings,
}

impl IndexMaintainer {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut warned = HashSet::new();
        let checks = async {
            loop {
                if let Err(error) = self.check(&mut warned).await {
                    tracing::warn!(
                        error.cause = %error,
                        "could not maintain ANN indexes: {error}; retrying in {} s",
                        CHECK_INTERVAL.as_secs()
                    );
                }
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(checks).await;
    }

    /// `warned` are the stores about whose slow embedding the operator has been warned.
    async fn check(&self, warned: &mut HashSet<VectorStoreId>) -> Result<(), StoreError> {
        for name in indexes::list_orphaned(&self.pool).await? {
            if let Some(mut builder) = indexes::Builder::acquire(&self.pool).await? {
                builder.drop(&name).await?;
                tracing::info!("dropped ANN index {name} of a deleted vector store");
            }
        }
        let min_chunks = SAMPLED_FROM
            .min(SLOW_FROM)
            .min(EXACT_SCAN_MAX / i64::from(indexes::MAX_DIMENSIONS));
        for store in indexes::list_large(&self.pool, min_chunks).await? {
            let (id, chunks) = (&store.id, store.chunks);
            if self.is_slow(&store) && warned.insert(id.clone()) {
                tracing::warn!(
                    vector_store.id = %id,
                    "vector store {id} has {chunks} chunks, which the installed model embeds slowly; set \
                     ASSISTD_EMBEDDING_MODEL to use a model server"
                );
            }
            let sampled = store.sampled_chunks.saturating_mul(SAMPLE_GROWTH_PERCENT) / 100;
            if chunks >= SAMPLED_FROM && chunks >= sampled {
                indexes::sample_lexemes(&self.pool, &store).await?;
            }
            if can_have_index(&store) && !store.has_index {
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
        tracing::info!(
            vector_store.id = %id,
            "vector store {id}: building an ANN index of {chunks} chunks"
        );
        let begin = Instant::now();
        builder.build(store, self.build_memory).await?;
        let seconds = begin.elapsed().as_secs_f64();
        tracing::info!(vector_store.id = %id, "vector store {id}: built its ANN index in {seconds:.1} s");
        Ok(())
    }
}

fn can_have_index(store: &LargeStore) -> bool {
    store.dimensions.is_some_and(|dimensions| {
        dimensions <= indexes::MAX_DIMENSIONS && needs_ann_index(store.chunks, dimensions.into())
    })
}
