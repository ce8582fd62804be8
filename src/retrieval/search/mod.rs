//! Searches a vector store by words and by meaning.

mod calibration;
mod rank;

use metrics::histogram;
use sqlx::PgConnection;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::domain::vector_store::{Filter, SearchableStore, Weights};
use crate::retrieval::embeddings::{EmbedError, Embeddings};
use crate::retrieval::rerank::Reranker;
use crate::retrieval::search::calibration::CosineScale;
use crate::retrieval::search::rank::Scoring;
use crate::store::Pool;
use crate::store::StoreError;
use crate::store::chunks::{self, ChunkRow, Scope, Term};

/// How many chunks each of the two ways of searching may bring forward.
const CANDIDATES: usize = 50;

/// How many chunks with some of the words are looked at more closely: those whose words tell the
/// most. That is the dearest part of a search, and on the Cranfield collection 100 find what all do.
const MATCHES: usize = 150;

/// Most chunks with a word that are looked up. A word that more of them have brings none forward.
const CHUNKS_PER_WORD: i64 = 2_000;

/// Up to this many numbers, all vectors are compared: 5,200 chunks with 1,536 numbers each, which
/// takes some 8 ms. Beyond, a store gets an index.
pub(super) const NUMBERS_COMPARED: i64 = 8_000_000;

/// Longest query that is searched for, in bytes; more is no query.
const QUERY_BYTES: usize = 8 << 10;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The query has no vector.
    #[error(transparent)]
    Embed(#[from] EmbedError),
}

impl From<sqlx::Error> for SearchError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub struct SearchQuery<'a> {
    /// In words. Several are several searches, whose results are fused.
    pub queries: &'a [String],
    /// Restricts it to files by their attributes.
    pub filter: Option<&'a Filter>,
    /// Most chunks that are wanted.
    pub limit: usize,
    /// Lowest score that is wanted, 0 to 1.
    pub threshold: f64,
    /// How much words and meaning count.
    pub weights: Weights,
    /// Whether a reranking model may put the results in order, if there is one.
    pub rerank: bool,
}

/// A chunk that was found.
#[derive(Debug, Clone)]
pub struct SearchHit {
    /// The chunk.
    pub chunk: ChunkRow,
    /// 0 to 1; no hit has more than the one before it.
    pub score: f64,
}

/// Searches. Cheap to clone.
#[derive(Clone)]
pub struct Retrieval {
    pool: Pool,
    embeddings: Embeddings,
    reranker: Option<Reranker>,
    language: &'static str,
}

impl Retrieval {
    /// Searches with these models. `language` is a text search configuration of PostgreSQL, the
    /// one that chunks were stored with.
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

    /// The chunks of a store that answer best, the best first.
    pub async fn search(
        &self,
        store: &SearchableStore,
        ask: &SearchQuery<'_>,
    ) -> Result<Vec<SearchHit>, SearchError> {
        let begin = Instant::now();
        let queries: Vec<&str> = ask
            .queries
            .iter()
            .map(|query| &query[..query.floor_char_boundary(QUERY_BYTES)])
            .collect();
        let mut hits = self.hybrid(store, ask, &queries).await?;
        if let Some(reranker) = self.reranker.as_ref().filter(|_| ask.rerank) {
            rerank(reranker, &queries, &mut hits).await;
        }
        hits.retain(|hit| hit.score >= ask.threshold);
        hits.truncate(ask.limit);
        histogram!("assistd_search_seconds").record(begin.elapsed());
        Ok(hits)
    }

    /// Searches by words while the queries get their vectors, and by these at the same time. Neither
    /// holds a connection while it waits for anything but the database.
    async fn hybrid(
        &self,
        store: &SearchableStore,
        ask: &SearchQuery<'_>,
        queries: &[&str],
    ) -> Result<Vec<SearchHit>, SearchError> {
        let scope = OnceCell::new();
        let scope = || scope.get_or_try_init(|| chunks::scope(&self.pool, &store.id, ask.filter));
        let words = async {
            if ask.weights.words > 0.0 {
                return self.by_words(scope().await?, queries).await;
            }
            Ok((Vec::new(), Vec::new()))
        };
        let meaning = async {
            let model = store.embedding_model.as_ref();
            let Some(model) = model.filter(|_| ask.weights.meaning > 0.0) else {
                return Ok((Vec::new(), Vec::new()));
            };
            let vectors = self.embeddings.embed_queries(model, queries).await?;
            let lists = self.by_meaning(scope().await?, &vectors).await?;
            Ok::<_, SearchError>((lists, vectors))
        };
        let ((by_words, terms), (by_meaning, vectors)) = tokio::try_join!(words, meaning)?;

        let by_words = by_words.into_iter().map(|ids| (ask.weights.words, ids));
        let by_meaning = by_meaning.into_iter().map(|ids| (ask.weights.meaning, ids));
        let lists: Vec<(f64, Vec<i64>)> = by_words.chain(by_meaning).collect();
        let mut order = rank::fuse(&lists);
        // What is not shown matters only to a model that may put it first.
        let reranked = ask.rerank && self.reranker.is_some();
        order.truncate(if reranked { CANDIDATES } else { ask.limit });
        let mut found = chunks::load(&self.pool, &order, &vectors).await?;
        found.sort_by_key(|chunk| order.iter().position(|id| *id == chunk.id));

        let scoring = Scoring {
            terms,
            totals: scope().await?.totals,
            weights: ask.weights,
            scale: CosineScale::of_model(store.embedding_model.as_deref().unwrap_or_default()),
        };
        let mut ceiling = 1.0;
        let hits = found.into_iter().map(|chunk| {
            ceiling = scoring.score(&chunk).min(ceiling);
            SearchHit {
                chunk,
                score: ceiling,
            }
        });
        Ok(hits.collect())
    }

    /// For each query the chunks that have its words, the best first; and these words, also those
    /// that no chunk has.
    async fn by_words(
        &self,
        scope: &Scope,
        queries: &[&str],
    ) -> Result<(Vec<Vec<i64>>, Vec<Vec<Term>>), SearchError> {
        let mut tx = chunks::begin(&self.pool).await?;
        let (mut lists, mut terms) = (Vec::new(), Vec::new());
        for query in queries {
            let of_query =
                chunks::terms(&mut tx, scope, self.language, query, CHUNKS_PER_WORD).await?;
            let (mut known, unknown): (Vec<Term>, Vec<Term>) =
                of_query.into_iter().partition(|term| term.chunks > 0);
            lists.push(with_words(&mut tx, scope, &known).await?);
            known.extend(unknown);
            terms.push(known);
        }
        tx.commit().await?;
        Ok((lists, terms))
    }

    /// For each vector the chunks whose own are nearest, the nearest first.
    async fn by_meaning(
        &self,
        scope: &Scope,
        vectors: &[Vec<f32>],
    ) -> Result<Vec<Vec<i64>>, SearchError> {
        let mut tx = chunks::begin(&self.pool).await?;
        let mut lists = Vec::new();
        for vector in vectors {
            let numbers = scope.totals.chunks.saturating_mul(vector.len() as i64);
            let exact = numbers <= NUMBERS_COMPARED;
            lists.push(chunks::nearest(&mut tx, scope, vector, exact, CANDIDATES as i64).await?);
        }
        tx.commit().await?;
        Ok(lists)
    }
}

/// The chunks that have these words, the best first.
async fn with_words(
    conn: &mut PgConnection,
    scope: &Scope,
    terms: &[Term],
) -> Result<Vec<i64>, StoreError> {
    let candidates = if terms.iter().any(|term| term.ids.is_some()) {
        rank::likeliest(terms, &scope.totals, MATCHES)
    } else if terms.is_empty() {
        Vec::new()
    } else {
        // Words that are everywhere tell something together, if at all.
        let lexemes: Vec<&str> = terms.iter().map(|term| &*term.lexeme).collect();
        let mut ids = chunks::find_with_all_lexemes(conn, scope, &lexemes, MATCHES as i64).await?;
        let rarest = terms.iter().min_by_key(|term| term.chunks);
        if let Some(rarest) = rarest.filter(|_| ids.len() < CANDIDATES) {
            let more =
                chunks::find_with_all_lexemes(conn, scope, &[&rarest.lexeme], MATCHES as i64)
                    .await?;
            ids.extend(more);
            ids.sort_unstable();
            ids.dedup();
        }
        ids
    };
    let matches = chunks::load_candidates(conn, &candidates).await?;
    let mut scored: Vec<(i64, f64)> = matches
        .iter()
        .map(|chunk| {
            let score = rank::bm25(terms, &scope.totals, chunk.tokens, &chunk.lexemes);
            (chunk.id, score)
        })
        .collect();
    scored.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
    Ok(scored
        .into_iter()
        .map(|(id, _)| id)
        .take(CANDIDATES)
        .collect())
}

/// Lets a model put the hits in order. They stay as they are if it cannot.
async fn rerank(reranker: &Reranker, queries: &[&str], hits: &mut [SearchHit]) {
    if hits.is_empty() {
        return;
    }
    let passages: Vec<&str> = hits.iter().map(|hit| &*hit.chunk.content).collect();
    match reranker.scores(&queries.join("\n"), &passages).await {
        Ok(scores) => {
            for (hit, score) in hits.iter_mut().zip(scores) {
                hit.score = score;
            }
            hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        Err(error) => tracing::warn!(
            error.cause = %error,
            "results are not reranked: the model {} gave no scores: {error}",
            reranker.model()
        ),
    }
}

/// A question as the text that answers it would have it: without what is said to a person only.
pub fn rewrite(query: &str) -> String {
    let plain = query.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = plain.trim_end_matches(['?', '!', '.']);
    while let Some(less) = SAID_TO_PEOPLE.iter().find_map(|said| strip(rest, said)) {
        rest = less;
    }
    match rest {
        "" => plain,
        rest => rest.to_owned(),
    }
}

/// How questions begin.
const SAID_TO_PEOPLE: [&str; 14] = [
    "please",
    "can you",
    "could you",
    "would you",
    "tell me",
    "show me",
    "find",
    "explain",
    "what is",
    "what are",
    "who is",
    "i want to know",
    "about",
    "do you know",
];

fn strip<'a>(text: &'a str, beginning: &str) -> Option<&'a str> {
    let head = text.get(..beginning.len())?;
    let rest = text.get(beginning.len()..)?.strip_prefix([' ', ','])?;
    head.eq_ignore_ascii_case(beginning)
        .then(|| rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewritten_queries_keep_what_is_asked() {
        for (query, expected) in [
            (
                "Please tell me about  the refund policy?",
                "the refund policy",
            ),
            ("What is the speed of light?", "the speed of light"),
            ("what", "what"),
            ("Can you?", "Can you"),
            ("aboutness of texts", "aboutness of texts"),
            ("ä", "ä"),
        ] {
            assert_eq!(rewrite(query), expected);
        }
    }
}
