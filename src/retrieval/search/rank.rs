//! How what was found by words and what was found by meaning become one list.

use std::collections::HashMap;

use crate::domain::vector_store::Weights;
use crate::retrieval::search::calibration::{self, CosineScale};
use crate::store::chunks::{ChunkRow, Lexemes, Term, Totals};

/// How soon more of the same word stops to count (BM25's k1).
const SATURATION: f64 = 1.2;

/// How much long chunks are held back (BM25's b).
const LENGTH: f64 = 0.75;

/// A place in a list counts as one in `RANKS` plus its number (reciprocal rank fusion, Cormack,
/// Clarke and Büttcher, SIGIR 2009).
const RANKS: f64 = 60.0;

/// How much a lexeme tells (BM25's inverse document frequency). One that no chunk has counts like
/// one that a single chunk has: a query about something else must not seem to be answered by the
/// only word of it that the store knows.
fn rarity(term: &Term, totals: &Totals) -> f64 {
    let chunks = totals.chunks.max(1) as f64;
    let with = term.chunks.max(1) as f64;
    (1.0 + (chunks - with + 0.5).max(0.0) / (with + 0.5)).ln()
}

/// The chunks whose lexemes tell the most, without regard to how often they have them.
pub(super) fn likeliest(terms: &[Term], totals: &Totals, most: usize) -> Vec<i64> {
    let mut sums: HashMap<i64, f64> = HashMap::new();
    for term in terms {
        let rarity = rarity(term, totals);
        for chunk in term.ids.iter().flatten() {
            *sums.entry(*chunk).or_default() += rarity;
        }
    }
    let mut sums: Vec<(i64, f64)> = sums.into_iter().collect();
    let best_first = |(a, x): &(i64, f64), (b, y): &(i64, f64)| y.total_cmp(x).then(a.cmp(b));
    if sums.len() > most {
        sums.select_nth_unstable_by(most, best_first);
        sums.truncate(most);
    }
    sums.into_iter().map(|(chunk, _)| chunk).collect()
}

/// BM25 of a chunk with these words (Robertson and Zaragoza, 2009).
pub(super) fn bm25(terms: &[Term], totals: &Totals, tokens: i32, lexemes: &Lexemes) -> f64 {
    let average = (totals.tokens as f64 / totals.chunks.max(1) as f64).max(1.0);
    let length = SATURATION * (1.0 - LENGTH + LENGTH * f64::from(tokens) / average);
    let mut score = 0.0;
    for (lexeme, often) in lexemes.iter() {
        let often = f64::from(often);
        for term in terms.iter().filter(|term| term.lexeme.as_bytes() == lexeme) {
            score += rarity(term, totals) * often * (SATURATION + 1.0) / (often + length);
        }
    }
    score
}

/// Fuses lists of ids, each with its weight and best first, into one, best first.
pub(super) fn fuse(lists: &[(f64, Vec<i64>)]) -> Vec<i64> {
    let mut scores: HashMap<i64, f64> = HashMap::new();
    for (weight, list) in lists {
        for (place, id) in list.iter().enumerate() {
            *scores.entry(*id).or_default() += weight / (RANKS + 1.0 + place as f64);
        }
    }
    let mut fused: Vec<(i64, f64)> = scores.into_iter().collect();
    fused.sort_by(|(a, a_score), (b, b_score)| b_score.total_cmp(a_score).then(a.cmp(b)));
    fused.into_iter().map(|(id, _)| id).collect()
}

/// What the scores of a search's results depend on besides the results.
pub(super) struct Scoring {
    /// The words of each query.
    pub(super) terms: Vec<Vec<Term>>,
    pub(super) totals: Totals,
    pub(super) weights: Weights,
    pub(super) scale: CosineScale,
}

impl Scoring {
    /// A score between 0 and 1 that means the same from search to search: how near the meaning is,
    /// and how many of the telling words are there, by their weights, for the query that the chunk
    /// answers best. Without vectors it is all words.
    pub(super) fn score(&self, found: &ChunkRow) -> f64 {
        let queries = self.terms.len().max(found.similarities.len());
        let means = (0..queries).map(|query| {
            let words = self.terms.get(query).map(Vec::as_slice);
            let words = self.lexical(found, words.unwrap_or_default());
            match found.similarities.get(query).copied().flatten() {
                Some(cosine) => {
                    let Weights {
                        meaning,
                        words: of_words,
                    } = self.weights;
                    let similarity = self.scale.similarity(cosine);
                    (meaning * similarity + of_words * words) / (meaning + of_words)
                }
                None => words,
            }
        });
        calibration::score(means.fold(0.0, f64::max))
    }

    /// BM25 as a share of its upper bound, which a chunk approaches that repeats every word.
    fn lexical(&self, found: &ChunkRow, terms: &[Term]) -> f64 {
        let bounds = terms.iter().map(|term| rarity(term, &self.totals));
        let bound = bounds.sum::<f64>() * (SATURATION + 1.0);
        match bound > 0.0 {
            true => bm25(terms, &self.totals, found.tokens, &found.lexemes) / bound,
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
    fn chunks_with_the_rarest_words_are_likeliest() {
        let terms = [term("common", 50), term("rare", 2)];
        let mut likeliest = likeliest(&terms, &TOTALS, 2);
        likeliest.sort_unstable();
        assert_eq!(likeliest, [0, 1]);
        assert_eq!(super::likeliest(&terms, &TOTALS, 80).len(), 50);
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
            let found = ChunkRow {
                id: 1,
                file_id: "file-1".parse().expect("it is an id"),
                filename: String::new(),
                attributes: Default::default(),
                page: None,
                heading: None,
                content: String::new(),
                tokens: 100,
                similarities: vec![Some(0.1)],
                lexemes: [("use", 1)].into_iter().collect(),
            };
            scoring.score(&found)
        };
        let (known, unknown) = (term("use", 40), [term("thailand", 0), term("currenc", 0)]);
        let alone = score(std::slice::from_ref(&known));
        let asked = score(&[&[known][..], &unknown].concat());
        assert!(alone > 0.3 && asked < 0.1, "{alone} {asked}");
    }

    #[test]
    fn what_both_lists_have_comes_first() {
        let lists = |second| [(1.0, vec![1, 2, 3]), (second, vec![4, 2, 5])];
        assert_eq!(fuse(&lists(1.0)), [2, 1, 4, 3, 5]);
        assert_eq!(fuse(&lists(0.1)), [2, 1, 3, 4, 5]);
        assert_eq!(fuse(&lists(10.0)), [2, 4, 5, 1, 3]);
        assert!(fuse(&[]).is_empty());
    }
}
