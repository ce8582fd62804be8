//! Lexical search: the chunks that have terms of a query, ranked by BM25.

use sqlx::PgConnection;

use crate::retrieval::search::{CANDIDATES, rank};
use crate::store::chunks::{self, Scope, Term};
use crate::store::{Pool, StoreError};

/// Chunks scored by BM25: those with the highest sum of IDF. Scoring is the most expensive step of a
/// search, and on the Cranfield collection 100 give the same results as all.
const SCORED: usize = 150;

/// Most chunks that are looked up for a term. A more common term contributes no candidates.
const CHUNKS_PER_TERM: i64 = 2_000;

/// The candidates of each query, best first, and its terms, those without chunks last.
pub(super) async fn search(
    pool: &Pool,
    language: &str,
    scope: &Scope,
    queries: &[&str],
) -> Result<(Vec<Vec<i64>>, Vec<Vec<Term>>), StoreError> {
    let mut tx = chunks::begin(pool).await?;
    let (mut lists, mut terms) = (Vec::new(), Vec::new());
    for query in queries {
        let of_query = chunks::terms(&mut tx, scope, language, query, CHUNKS_PER_TERM).await?;
        let (mut known, unknown): (Vec<Term>, Vec<Term>) =
            of_query.into_iter().partition(|term| term.chunks > 0);
        lists.push(rank_candidates(&mut tx, scope, &known).await?);
        known.extend(unknown);
        terms.push(known);
    }
    tx.commit().await?;
    Ok((lists, terms))
}

async fn rank_candidates(
    conn: &mut PgConnection,
    scope: &Scope,
    terms: &[Term],
) -> Result<Vec<i64>, StoreError> {
    let ids = if terms.is_empty() {
        Vec::new()
    } else if terms.iter().any(|term| term.ids.is_some()) {
        rank::top_candidates(terms, &scope.totals, SCORED)
    } else {
        find_with_common_terms(conn, scope, terms).await?
    };
    let candidates = chunks::load_candidates(conn, &ids).await?;
    let mut scored: Vec<(i64, f64)> = candidates
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

/// Every term is very common: fall back to chunks that contain all of them, and if these are few, to
/// chunks with the rarest one.
async fn find_with_common_terms(
    conn: &mut PgConnection,
    scope: &Scope,
    terms: &[Term],
) -> Result<Vec<i64>, StoreError> {
    let limit = SCORED as i64;
    let lexemes: Vec<&str> = terms.iter().map(|term| &*term.lexeme).collect();
    let mut ids = chunks::find_with_all_lexemes(conn, scope, &lexemes, limit).await?;
    let rarest = terms.iter().min_by_key(|term| term.chunks);
    if let Some(rarest) = rarest.filter(|_| ids.len() < CANDIDATES) {
        let lexeme = [&*rarest.lexeme];
        ids.extend(chunks::find_with_all_lexemes(conn, scope, &lexeme, limit).await?);
        ids.sort_unstable();
        ids.dedup();
    }
    Ok(ids)
}
