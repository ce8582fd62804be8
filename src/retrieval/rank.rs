//! How what was found by words and what was found by meaning become one list.

use std::collections::HashMap;

use crate::store::chunks::{Found, Term, Totals};

/// How soon more of the same word stops to count (BM25's k1).
const SATURATION: f64 = 1.2;

/// How much long chunks are held back (BM25's b).
const LENGTH: f64 = 0.75;

/// A place in a list counts as one in `RANKS` plus its number (reciprocal rank fusion, Cormack,
/// Clarke and Büttcher, SIGIR 2009).
const RANKS: f64 = 60.0;

/// A lexeme in more than this share of the chunks tells nothing, as long as there are others.
const COMMON: f64 = 0.15;

/// The lexemes that tell chunks apart: the common ones only if there are no others.
pub(super) fn telling<'a>(terms: &'a [Term], totals: &Totals) -> Vec<&'a Term> {
    let most = (totals.chunks as f64 * COMMON).max(3.0);
    let present = || terms.iter().filter(|term| term.chunks > 0);
    let rare: Vec<&Term> = present()
        .filter(|term| term.chunks as f64 <= most)
        .collect();
    if rare.is_empty() {
        present().collect()
    } else {
        rare
    }
}

/// BM25 of a chunk (Robertson and Zaragoza, 2009).
pub(super) fn bm25(
    terms: &[&Term],
    totals: &Totals,
    tokens: i32,
    frequencies: &HashMap<String, u32>,
) -> f64 {
    let chunks = totals.chunks.max(1) as f64;
    let average = (totals.tokens as f64 / chunks).max(1.0);
    let length = SATURATION * (1.0 - LENGTH + LENGTH * f64::from(tokens) / average);
    terms
        .iter()
        .filter_map(|term| {
            let often = f64::from(*frequencies.get(&term.lexeme)?);
            let with = term.chunks as f64;
            let rarity = (1.0 + (chunks - with + 0.5).max(0.0) / (with + 0.5)).ln();
            Some(rarity * often * (SATURATION + 1.0) / (often + length))
        })
        .sum()
}

/// Fuses lists of ids, each best first, into one, best first.
pub(super) fn fuse(lists: &[Vec<i64>]) -> Vec<i64> {
    let mut scores: HashMap<i64, f64> = HashMap::new();
    for list in lists {
        for (place, id) in list.iter().enumerate() {
            *scores.entry(*id).or_default() += 1.0 / (RANKS + 1.0 + place as f64);
        }
    }
    let mut fused: Vec<(i64, f64)> = scores.into_iter().collect();
    fused.sort_by(|(a, a_score), (b, b_score)| b_score.total_cmp(a_score).then(a.cmp(b)));
    fused.into_iter().map(|(id, _)| id).collect()
}

/// A score between 0 and 1 that means the same from search to search: half of it is how near the
/// meaning is, half how many of the telling words are there. Without vectors it is all words.
pub(super) fn score(found: &Found, terms: &[&Term], totals: &Totals) -> f64 {
    let rarity: f64 = terms
        .iter()
        .map(|term| {
            let all = HashMap::from([(term.lexeme.clone(), u32::MAX)]);
            bm25(&[term], totals, 0, &all)
        })
        .sum();
    let words = match rarity > 0.0 {
        true => bm25(terms, totals, found.tokens, &found.frequencies) / rarity,
        false => 0.0,
    };
    let score = match found.similarity {
        Some(similarity) => 0.5 * similarity.max(0.0) + 0.5 * words,
        None => words,
    };
    score.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(lexeme: &str, chunks: i64) -> Term {
        Term {
            lexeme: lexeme.into(),
            chunks,
        }
    }

    const TOTALS: Totals = Totals {
        chunks: 100,
        tokens: 10_000,
    };

    #[test]
    fn common_words_count_only_where_there_are_no_others() {
        let terms = [term("the", 90), term("wing", 5), term("never", 0)];
        assert_eq!(telling(&terms, &TOTALS), [&terms[1]]);
        assert_eq!(telling(&terms[..1], &TOTALS), [&terms[0]]);
    }

    #[test]
    fn rare_words_and_short_chunks_weigh_more() {
        let (rare, common) = (term("rare", 1), term("common", 50));
        let terms = [&rare, &common];
        let score = |tokens, words: &[(&str, u32)]| {
            let words = words
                .iter()
                .map(|(word, often)| ((*word).to_owned(), *often));
            bm25(&terms, &TOTALS, tokens, &words.collect())
        };
        assert!(score(100, &[("rare", 1)]) > score(100, &[("common", 1)]));
        assert!(score(50, &[("rare", 1)]) > score(500, &[("rare", 1)]));
        assert!(score(100, &[("rare", 3)]) > score(100, &[("rare", 1)]));
        assert!(score(100, &[("rare", 1), ("common", 1)]) > score(100, &[("rare", 1)]));
        assert_eq!(score(100, &[]), 0.0);
    }

    #[test]
    fn what_both_lists_have_comes_first() {
        assert_eq!(fuse(&[vec![1, 2, 3], vec![4, 2, 5]]), [2, 1, 4, 3, 5]);
        assert_eq!(fuse(&[vec![7, 8]]), [7, 8]);
        assert!(fuse(&[]).is_empty());
    }
}
