//! Ranking: BM25, reciprocal rank fusion, and the scores of hits.

use std::collections::HashMap;

use crate::domain::vector_store::Weights;
use crate::retrieval::search::calibration::{self, CosineScale};
use crate::store::chunks::{ChunkRow, Lexemes, Term, Totals};

/// BM25's k1: how soon further occurrences of a term stop counting.
const SATURATION: f64 = 1.2;

/// BM25's b: how much long chunks are penalized.
const LENGTH: f64 = 0.75;

/// The constant k of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).
const RANK_OFFSET: f64 = 60.0;

/// The inverse document frequency of BM25. A term without chunks counts like one with a single
/// chunk: otherwise the only known term of a query about something else would seem to answer it.
fn idf(term: &Term, totals: &Totals) -> f64 {
    let chunks = totals.chunks.max(1) as f64;
    let with_term = term.chunks.max(1) as f64;
    (1.0 + (chunks - with_term + 0.5).max(0.0) / (with_term + 0.5)).ln()
}

/// The chunks with the highest sum of IDF, whatever their term frequencies; in no order.
pub(super) fn top_candidates(terms: &[Term], totals: &Totals, limit: usize) -> Vec<i64> {
    let mut sums: HashMap<i64, f64> = HashMap::new();
    for term in terms {
        let idf = idf(term, totals);
        for chunk in term.ids.iter().flatten() {
            *sums.entry(*chunk).or_default() += idf;
        }
    }
    let mut sums: Vec<(i64, f64)> = sums.into_iter().collect();
    let best_first = |(a, x): &(i64, f64), (b, y): &(i64, f64)| y.total_cmp(x).then(a.cmp(b));
    if sums.len() > limit {
        sums.select_nth_unstable_by(limit, best_first);
        sums.truncate(limit);
    }
    sums.into_iter().map(|(chunk, _)| chunk).collect()
}

/// BM25 of a chunk (Robertson and Zaragoza, 2009).
pub(super) fn bm25(terms: &[Term], totals: &Totals, tokens: i32, lexemes: &Lexemes) -> f64 {
    let average = (totals.tokens as f64 / totals.chunks.max(1) as f64).max(1.0);
    let length = SATURATION * (1.0 - LENGTH + LENGTH * f64::from(tokens) / average);
    let mut score = 0.0;
    for (lexeme, frequency) in lexemes.iter() {
        let frequency = f64::from(frequency);
        for term in terms.iter().filter(|term| term.lexeme.as_bytes() == lexeme) {
            score += idf(term, totals) * frequency * (SATURATION + 1.0) / (frequency + length);
        }
    }
    score
}

pub(super) fn reciprocal_rank_fusion(lists: &[(f64, Vec<i64>)]) -> Vec<i64> {
    let mut scores: HashMap<i64, f64> = HashMap::new();
    for (weight, list) in lists {
        for (rank, id) in list.iter().enumerate() {
            *scores.entry(*id).or_default() += weight / (RANK_OFFSET + 1.0 + rank as f64);
        }
    }
    let mut fused: Vec<(i64, f64)> = scores.into_iter().collect();
    fused.sort_by(|(a, a_score), (b, b_score)| b_score.total_cmp(a_score).then(a.cmp(b)));
    fused.into_iter().map(|(id, _)| id).collect()
}

pub(super) struct Scoring {
    pub(super) terms: Vec<Vec<Term>>,
    pub(super) totals: Totals,
    pub(super) weights: Weights,
    pub(super) scale: CosineScale,
}

impl Scoring {
    /// A score between 0 and 1 that is comparable across searches: the weighted mean of similarity
    /// and lexical score, calibrated, for the query that the chunk answers best. A chunk without an
    /// embedding has a lexical score only.
    pub(super) fn score(&self, chunk: &ChunkRow) -> f64 {
        let queries = self.terms.len().max(chunk.similarities.len());
        let means = (0..queries).map(|query| {
            let terms = self.terms.get(query).map(Vec::as_slice);
            let lexical = self.lexical_score(chunk, terms.unwrap_or_default());
            match chunk.similarities.get(query).copied().flatten() {
                Some(cosine) => {
                    let Weights { meaning, words } = self.weights;
                    let similarity = self.scale.similarity(cosine);
                    (meaning * similarity + words * lexical) / (meaning + words)
                }
                None => lexical,
            }
        });
        calibration::score(means.fold(0.0, f64::max))
    }

    /// BM25 as a fraction of its upper bound (term frequency → ∞).
    fn lexical_score(&self, chunk: &ChunkRow, terms: &[Term]) -> f64 {
        let idf_sum: f64 = terms.iter().map(|term| idf(term, &self.totals)).sum();
        let bound = idf_sum * (SATURATION + 1.0);
        match bound > 0.0 {
            true => bm25(terms, &self.totals, chunk.tokens, &chunk.lexemes) / bound,
            false => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(lexeme: &str, chunks: i64) -> Term {
        Term {
            lexeme: lexeme.into(),
            chunks,
            ids: Some((0..chunks).collect()),
        }
    }

    const TOTALS: Totals = Totals {
        chunks: 100,
        tokens: 10_000,
    };

    #[test]
    fn chunks_with_the_rarest_terms_are_the_top_candidates() {
        let terms = [term("common", 50), term("rare", 2)];
        let mut top = top_candidates(&terms, &TOTALS, 2);
        top.sort_unstable();
        assert_eq!(top, [0, 1]);
        assert_eq!(top_candidates(&terms, &TOTALS, 80).len(), 50);
    }

    #[test]
    fn rare_words_and_short_chunks_weigh_more() {
        let terms = [term("rare", 1), term("common", 50)];
        let score = |tokens, words: &[(&str, u16)]| {
            bm25(&terms, &TOTALS, tokens, &words.iter().copied().collect())
        };
        assert!(score(100, &[("rare", 1)]) > score(100, &[("common", 1)]));
        assert!(score(50, &[("rare", 1)]) > score(500, &[("rare", 1)]));
        assert!(score(100, &[("rare", 3)]) > score(100, &[("rare", 1)]));
        assert!(score(100, &[("rare", 1), ("common", 1)]) > score(100, &[("rare", 1)]));
        assert_eq!(score(100, &[]), 0.0);
    }

    #[test]
    fn a_query_about_something_else_is_not_answered_by_its_only_known_word() {
        let score = |terms: &[Term]| {
            let scoring = Scoring {
                terms: vec![terms.to_vec()],
                totals: TOTALS,
                weights: Weights::default(),
                scale: CosineScale::of_model("any"),
            };
            let chunk = ChunkRow {
                id: 1,
                file_id: "file-1".parse().expect("a valid id"),
                filename: String::new(),
                attributes: Default::default(),
                page: None,
                heading: None,
                content: String::new(),
                tokens: 100,
                similarities: vec![Some(0.1)],
                lexemes: [("use", 1)].into_iter().collect(),
            };
            scoring.score(&chunk)
        };
        let (known, unknown) = (term("use", 40), [term("thailand", 0), term("currenc", 0)]);
        let alone = score(std::slice::from_ref(&known));
        let with_unknown = score(&[&[known][..], &unknown].concat());
        assert!(alone > 0.3 && with_unknown < 0.1, "{alone} {with_unknown}");
    }

    #[test]
    fn what_both_lists_have_comes_first() {
        let lists = |second| [(1.0, vec![1, 2, 3]), (second, vec![4, 2, 5])];
        assert_eq!(reciprocal_rank_fusion(&lists(1.0)), [2, 1, 4, 3, 5]);
        assert_eq!(reciprocal_rank_fusion(&lists(0.1)), [2, 1, 3, 4, 5]);
        assert_eq!(reciprocal_rank_fusion(&lists(10.0)), [2, 4, 5, 1, 3]);
        assert!(reciprocal_rank_fusion(&[]).is_empty());
    }
}
