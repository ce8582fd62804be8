//! Semantic search: the chunks whose embeddings are nearest to that of a query.

use crate::retrieval::search::CANDIDATES;
use crate::store::chunks::{self, Scope};
use crate::store::{Pool, StoreError};

/// Most vector components (chunks × dimensions) of an exact scan: 5,200 chunks with 1,536
/// dimensions, which takes about 8 ms.
pub(in crate::retrieval) const EXACT_SCAN_MAX: i64 = 8_000_000;

pub(in crate::retrieval) fn needs_ann_index(chunks: i64, dimensions: i64) -> bool {
    chunks.saturating_mul(dimensions) > EXACT_SCAN_MAX
}

/// The candidates of each vector, nearest first.
pub(super) async fn search(
    pool: &Pool,
    scope: &Scope,
    vectors: &[Vec<f32>],
) -> Result<Vec<Vec<i64>>, StoreError> {
    let mut tx = chunks::begin(pool).await?;
    let mut lists = Vec::new();
    for vector in vectors {
        let is_exact = !needs_ann_index(scope.totals.chunks, vector.len() as i64);
        let limit = CANDIDATES as i64;
        lists.push(chunks::nearest(&mut tx, scope, vector, is_exact, limit).await?);
    }
    tx.commit().await?;
    Ok(lists)
}
