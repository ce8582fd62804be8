//! Hybrid search of a vector store: a lexical and a semantic search, combined by reciprocal rank
//! fusion.

mod calibration;
mod lexical;
mod rank;
mod rewrite;
mod semantic;

use metrics::histogram;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::domain::vector_store::{Filter, SearchableStore, Weights};
use crate::retrieval::embeddings::{EmbedError, Embeddings};
use crate::retrieval::rerank::Reranker;
use crate::retrieval::search::calibration::CosineScale;
use crate::retrieval::search::rank::Scoring;
use crate::store::chunks::{self, ChunkRow};
use crate::store::{Pool, StoreError};

pub use rewrite::rewrite_query;
pub(super) use semantic::{EXACT_SCAN_MAX, needs_ann_index};

/// Candidates that the lexical and the semantic search each return.
const CANDIDATES: usize = 50;

/// Longest query in bytes; the rest is ignored.
const QUERY_BYTES: usize = 8 << 10;

#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Embed(#[from] EmbedError),
}

#[derive(Debug, Clone, Copy)]
pub struct SearchQuery<'a> {
    /// Each is searched for; a hit answers at least one of them.
    pub queries: &'a [String],
    pub filter: Option<&'a Filter>,
    pub limit: usize,
    /// Lowest score of a hit, 0 to 1.
    pub threshold: f64,
    pub weights: Weights,
    /// Whether the reranking model, if there is one, sorts the hits.
    pub rerank: bool,
}

#[derive(Debug, Clone)]
pub struct SearchHit {
    pub chunk: ChunkRow,
    /// Relevance, 0 to 1. Hits are sorted by it, best first.
    pub score: f64,
}

#[derive(Clone)]
pub struct Retrieval {
    pool: Pool,
    embeddings: Embeddings,
    reranker: Option<Reranker>,
    language: &'static str,
}

impl Retrieval {
    /// The model that computes embeddings of new files.
    pub fn embedding_model(&self) -> Option<&str> {
        self.embeddings.default_model()
    }

    /// `language` is the text search configuration of PostgreSQL that chunks were indexed with.
    pub fn new(
        pool: Pool,
        embeddings: Embeddings,
        reranker: Option<Reranker>,
        language: &'static str,
    ) -> Self {
        Self {
            pool,
            embeddings,
            reranker,
            language,
        }
    }

    pub async fn search(
        &self,
        store: &SearchableStore,
        search: &SearchQuery<'_>,
    ) -> Result<Vec<SearchHit>, SearchError> {
        let begin = Instant::now();
        let queries: Vec<&str> = search
            .queries
            .iter()
            .map(|query| &query[..query.floor_char_boundary(QUERY_BYTES)])
            .collect();
        let mut hits = self.search_hybrid(store, search, &queries).await?;
        if let Some(reranker) = self.reranker.as_ref().filter(|_| search.rerank) {
            rerank(reranker, &queries, &mut hits).await;
        }
        hits.retain(|hit| hit.score >= search.threshold);
        hits.truncate(search.limit);
        histogram!("assistd_search_seconds").record(begin.elapsed());
        Ok(hits)
    }

    /// Runs the lexical search while the queries are embedded, and the semantic one beside it.
    /// Neither holds a connection while it waits for anything but the database.
    async fn search_hybrid(
        &self,
        store: &SearchableStore,
        search: &SearchQuery<'_>,
        queries: &[&str],
    ) -> Result<Vec<SearchHit>, SearchError> {
        let scope = OnceCell::new();
        let scope =
            || scope.get_or_try_init(|| chunks::scope(&self.pool, &store.id, search.filter));
        let weights = search.weights;
        let lexical = async {
            if weights.words > 0.0 {
                let scope = scope().await?;
                return Ok(lexical::search(&self.pool, self.language, scope, queries).await?);
            }
            Ok::<_, SearchError>((Vec::new(), Vec::new()))
        };
        let semantic = async {
            let model = store.embedding_model.as_ref();
            let Some(model) = model.filter(|_| weights.meaning > 0.0) else {
                return Ok((Vec::new(), Vec::new()));
            };
            let vectors = self.embeddings.embed_queries(model, queries).await?;
            let lists = semantic::search(&self.pool, scope().await?, &vectors).await?;
            Ok::<_, SearchError>((lists, vectors))
        };
        let ((lexical, terms), (semantic, vectors)) = tokio::try_join!(lexical, semantic)?;

        let lexical = lexical.into_iter().map(|ids| (weights.words, ids));
        let semantic = semantic.into_iter().map(|ids| (weights.meaning, ids));
        let lists: Vec<(f64, Vec<i64>)> = lexical.chain(semantic).collect();
        let mut order = rank::reciprocal_rank_fusion(&lists);
        // The reranking model may move a candidate beyond the limit to the top.
        let is_reranked = search.rerank && self.reranker.is_some();
        order.truncate(if is_reranked {
            CANDIDATES
        } else {
            search.limit
        });
        let mut chunks = chunks::load(&self.pool, &order, &vectors).await?;
        chunks.sort_by_key(|chunk| order.iter().position(|id| *id == chunk.id));

        let scoring = Scoring {
            terms,
            totals: scope().await?.totals,
            weights,
            scale: CosineScale::of_model(store.embedding_model.as_deref().unwrap_or_default()),
        };
        // The order of the fusion counts: no score may exceed the one before it.
        let mut ceiling = 1.0;
        let hits = chunks.into_iter().map(|chunk| {
            ceiling = scoring.score(&chunk).min(ceiling);
            SearchHit {
                chunk,
                score: ceiling,
            }
        });
        Ok(hits.collect())
    }
}

/// Sorts the hits by a reranking model. If it fails, they keep their order and scores.
async fn rerank(reranker: &Reranker, queries: &[&str], hits: &mut [SearchHit]) {
    if hits.is_empty() {
        return;
    }
    let contents: Vec<&str> = hits.iter().map(|hit| &*hit.chunk.content).collect();
    match reranker.scores(&queries.join("\n"), &contents).await {
        Ok(scores) => {
            for (hit, score) in hits.iter_mut().zip(scores) {
                hit.score = score;
            }
            hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        Err(error) => {
            let model = reranker.model();
            tracing::warn!(
                error.cause = %error,
                "could not rerank search results with {model}: {error}; keeping their order"
            );
        }
    }
}
