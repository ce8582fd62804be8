//! Search quality on a collection with relevance judgements.

use super::calls;
use super::calls::File;
use super::calls::Query;
use super::calls::Weights;
use super::cranfield;
use super::cranfield::Collection;
use super::cranfield::Scores;
use super::ingest;
use crate::BenchError;
use crate::api::Api;
use crate::load::Bound;
use crate::load::repeat;
use crate::steps::Figures;
use std::path::Path;
use std::sync::Arc;

/// The API's maximum.
const RESULTS: usize = 50;

/// Indexes the collection, one file per document, and searches for its questions.
pub(super) async fn measure(
    api: &Api,
    folder: &Path,
    figures: &mut Figures,
) -> Result<(), BenchError> {
    let Collection {
        documents,
        questions,
    } = Collection::read(folder)?;
    let files = documents.into_iter().map(|(number, text)| File {
        name: format!("{number}.txt"),
        contents: text.into(),
    });
    let indexed = ingest::index(api, files.collect()).await?;
    indexed.put("retrieval.quality.indexing", figures);
    let questions = Arc::new(questions);
    let ways = [
        ("both", None),
        ("words", Some(Weights::WordsAlone)),
        ("meaning", Some(Weights::MeaningAlone)),
    ];
    let mut ndcg = Vec::new();
    for (name, weights) in ways {
        let (api, store, asked) = (api.clone(), indexed.store.clone(), questions.clone());
        let operation = move |number: usize| {
            let (api, store, asked) = (api.clone(), store.clone(), asked.clone());
            async move {
                let question = &asked[number];
                let query = Query {
                    text: question.text.clone(),
                    filter: None,
                    weights,
                    results: RESULTS,
                };
                let hits = calls::hits(&api.search(&store, &query).await?)?;
                let mut ranked: Vec<u32> = Vec::new();
                for hit in hits {
                    let name = hit.filename.strip_suffix(".txt").map(str::parse);
                    if let Some(Ok(number)) = name
                        && !ranked.contains(&number)
                    {
                        ranked.push(number);
                    }
                }
                Ok(cranfield::score(&ranked, &question.relevant))
            }
        };
        let load = repeat(2, Bound::Times(questions.len()), operation).await?;
        let Scores {
            ndcg_10,
            recall_20,
            reciprocal,
        } = cranfield::mean(&load.samples);
        figures.put(format!("retrieval.quality.{name}.ndcg"), ndcg_10);
        figures.put(format!("retrieval.quality.{name}.recall"), recall_20);
        figures.put(format!("retrieval.quality.{name}.mrr"), reciprocal);
        ndcg.push(ndcg_10);
    }
    figures.put("retrieval.quality.gain", ndcg[0] / ndcg[1].max(ndcg[2]));
    Ok(())
}
