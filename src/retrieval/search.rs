//! Searches a vector store by words and by meaning.

use sqlx::PgPool;

use crate::domain::vector_store::{Filter, VectorStore};
use crate::retrieval::embeddings::{EmbedError, Embeddings};
use crate::retrieval::rank;
use crate::store::StoreError;
use crate::store::chunks::{self, Found, INDEXED_FROM, Place, Term};

/// How many chunks each of the two ways of searching may bring forward.
const CANDIDATES: usize = 50;

/// How many chunks with the words are looked at more closely.
const MATCHES: i64 = 300;

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
pub struct Ask<'a> {
    /// In words. Several are several searches, whose results are fused.
    pub queries: &'a [String],
    /// Restricts it to files by their attributes.
    pub filter: Option<&'a Filter>,
    /// Most chunks that are wanted.
    pub limit: usize,
    /// Lowest score that is wanted, 0 to 1.
    pub threshold: f64,
}

/// A chunk that was found.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The chunk.
    pub found: Found,
    /// 0 to 1; no hit has more than the one before it.
    pub score: f64,
}

/// Searches. Cheap to clone.
#[derive(Clone)]
pub struct Retrieval {
    pool: PgPool,
    embeddings: Embeddings,
    language: &'static str,
}

impl Retrieval {
    /// Searches with these models. `language` is a text search configuration of PostgreSQL, the
    /// one that chunks were stored with.
    pub fn new(pool: PgPool, embeddings: Embeddings, language: &'static str) -> Self {
        Self {
            pool,
            embeddings,
            language,
        }
    }

    /// The chunks of a store that answer best, the best first.
    pub async fn search(
        &self,
        store: &VectorStore,
        ask: &Ask<'_>,
    ) -> Result<Vec<Hit>, SearchError> {
        let queries: Vec<&str> = ask
            .queries
            .iter()
            .map(|query| &query[..query.floor_char_boundary(QUERY_BYTES)])
            .collect();
        // Before the transaction: a connection is not to wait for a model.
        let vectors = match &store.embedding_model {
            Some(model) => self.embeddings.embed(model, &queries).await?,
            None => Vec::new(),
        };
        let mut lists = Vec::new();
        let mut terms: Vec<Term> = Vec::new();
        let place = Place {
            store: &store.id,
            filter: ask.filter,
        };
        let mut tx = self.pool.begin().await?;
        chunks::prepare(&mut tx).await?;
        let totals = chunks::totals(&mut tx, &store.id).await?;
        for query in queries {
            let known = chunks::terms(&mut tx, &store.id, self.language, query, INDEXED_FROM);
            let known = known.await?;
            let telling = rank::telling(&known, &totals);
            if !telling.is_empty() {
                let lexemes: Vec<&str> = telling.iter().map(|term| &*term.lexeme).collect();
                let matches = chunks::matching(&mut tx, place, &lexemes, MATCHES).await?;
                let mut scored: Vec<(i64, f64)> = matches
                    .iter()
                    .map(|found| {
                        let words = &found.frequencies.0;
                        (found.id, rank::bm25(&telling, &totals, found.tokens, words))
                    })
                    .collect();
                scored.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
                lists.push(
                    scored
                        .into_iter()
                        .map(|(id, _)| id)
                        .take(CANDIDATES)
                        .collect(),
                );
            }
            terms.extend(telling.into_iter().cloned());
        }
        let exact = totals.chunks <= INDEXED_FROM || ask.filter.is_some();
        for vector in &vectors {
            let limit = i64::try_from(CANDIDATES).unwrap_or(i64::MAX);
            lists.push(chunks::nearest(&mut tx, place, vector, exact, limit).await?);
        }
        let order: Vec<i64> = rank::fuse(&lists).into_iter().take(CANDIDATES).collect();
        let terms: Vec<&Term> = terms.iter().collect();
        let lexemes: Vec<&str> = terms.iter().map(|term| &*term.lexeme).collect();
        let mut found = chunks::found(
            &mut tx,
            &order,
            &lexemes,
            vectors.first().map(Vec::as_slice),
        )
        .await?;
        tx.commit().await?;
        found.sort_by_key(|chunk| order.iter().position(|id| *id == chunk.id));

        let mut ceiling = 1.0;
        let hits = found.into_iter().map(|found| {
            ceiling = rank::score(&found, &terms, &totals).min(ceiling);
            Hit {
                found,
                score: ceiling,
            }
        });
        let hits = hits.take_while(|hit| hit.score >= ask.threshold);
        Ok(hits.take(ask.limit).collect())
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
