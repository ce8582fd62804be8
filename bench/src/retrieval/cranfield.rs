//! The Cranfield collection: abstracts, questions and relevance judgements.

use crate::BenchError;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

pub(super) struct Collection {
    /// Title and abstract by number, without the two empty ones.
    pub(super) documents: Vec<(u32, String)>,
    pub(super) questions: Vec<Question>,
}

pub(super) struct Question {
    pub(super) text: String,
    /// The relevant documents of any grade: many grades are inverted in the collection.
    pub(super) relevant: HashSet<u32>,
}

/// The retrieval quality of one question, or a mean of several.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Scores {
    /// Normalised discounted cumulative gain at ten.
    pub(super) ndcg_10: f64,
    /// Recall at twenty.
    pub(super) recall_20: f64,
    /// Reciprocal rank of the first relevant document.
    pub(super) reciprocal: f64,
}

impl Collection {
    /// Reads `cran.all.1400`, `cran.qry` and `QRelsCorrectedforTRECeval`.
    pub(super) fn read(folder: &Path) -> Result<Self, BenchError> {
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })
        };
        let documents = records(&text("cran.all.1400")?);
        let documents = documents.into_iter().filter_map(|(number, fields)| {
            let field = |name| fields.get(&name).map_or("", |text| text.trim());
            let (title, body) = (field('T'), field('W'));
            (!body.is_empty()).then(|| (number, format!("{title}\n\n{body}\n")))
        });
        // Judgements refer to questions by position, not by number.
        let mut relevant: HashMap<u32, HashSet<u32>> = HashMap::new();
        for line in text("QRelsCorrectedforTRECeval")?.lines() {
            let numbers: Vec<u32> = line.split_whitespace().flat_map(str::parse).collect();
            // Grade 5 means not relevant.
            if let [question, _, document, 1..=4] = numbers[..] {
                relevant.entry(question).or_default().insert(document);
            }
        }
        let questions = records(&text("cran.qry")?).into_iter().zip(1..);
        let questions = questions.filter_map(|((_, mut fields), place)| {
            Some(Question {
                text: fields.remove(&'W')?.trim().replace('\n', " "),
                relevant: relevant.remove(&place)?,
            })
        });
        let collection = Self {
            documents: documents.collect(),
            questions: questions.collect(),
        };
        if collection.documents.is_empty() || collection.questions.is_empty() {
            return Err(BenchError::Unexpected(
                "this is not the Cranfield collection",
            ));
        }
        Ok(collection)
    }
}

/// Parses records, which start with `.I` and a number; fields start with a dot and a letter.
fn records(text: &str) -> Vec<(u32, HashMap<char, String>)> {
    let mut records: Vec<(u32, HashMap<char, String>)> = Vec::new();
    let mut field = None;
    for line in text.lines() {
        if let Some(Ok(number)) = line.strip_prefix(".I ").map(|rest| rest.trim().parse()) {
            records.push((number, HashMap::new()));
            field = None;
            continue;
        }
        if let Some(name) = line.trim_end().strip_prefix('.')
            && let ([name], []) = name.as_bytes().split_at(name.len().min(1))
            && name.is_ascii_uppercase()
        {
            field = Some(char::from(*name));
            continue;
        }
        if let (Some((_, fields)), Some(name)) = (records.last_mut(), field) {
            let text = fields.entry(name).or_default();
            text.push_str(line);
            text.push('\n');
        }
    }
    records
}

/// Scores a ranking of distinct documents.
pub(super) fn score(ranked: &[u32], relevant: &HashSet<u32>) -> Scores {
    let discount = |place: usize| 1.0 / (place as f64 + 2.0).log2();
    let hits: Vec<usize> = (0..ranked.len())
        .filter(|place| relevant.contains(&ranked[*place]))
        .collect();
    let among = |first: usize| hits.iter().take_while(move |place| **place < first);
    let best: f64 = (0..relevant.len().min(10)).map(discount).sum();
    Scores {
        ndcg_10: among(10).map(|place| discount(*place)).sum::<f64>() / best,
        recall_20: among(20).count() as f64 / relevant.len() as f64,
        reciprocal: hits
            .first()
            .map_or(0.0, |place| 1.0 / (*place as f64 + 1.0)),
    }
}

/// The mean of scores, which must not be empty.
pub(super) fn mean(scores: &[Scores]) -> Scores {
    let mean = |of: fn(&Scores) -> f64| scores.iter().map(of).sum::<f64>() / scores.len() as f64;
    Scores {
        ndcg_10: mean(|scores| scores.ndcg_10),
        recall_20: mean(|scores| scores.recall_20),
        reciprocal: mean(|scores| scores.reciprocal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_books() {
        let relevant = HashSet::from([1, 2, 3]);
        let Scores {
            ndcg_10,
            recall_20,
            reciprocal,
        } = score(&[9, 1, 8, 2], &relevant);
        // (1/log2(3) + 1/log2(5)) / (1 + 1/log2(3) + 1/log2(4))
        assert!((ndcg_10 - 0.498_189).abs() < 1e-5, "{ndcg_10}");
        assert!((recall_20 - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(reciprocal, 0.5);
        assert_eq!(score(&[], &relevant), Scores::default());
        assert_eq!(score(&[3, 2, 1], &relevant).ndcg_10, 1.0);
    }

    #[test]
    fn records_are_read_by_their_fields() {
        let read = records(".I 1\n.T\na title .\n.W\none\n. two\n.I 2\n.W\n");
        assert_eq!(read[0].0, 1);
        assert_eq!(read[0].1[&'T'], "a title .\n");
        assert_eq!(read[0].1[&'W'], "one\n. two\n");
        assert_eq!(read[1], (2, HashMap::new()));
    }
}
