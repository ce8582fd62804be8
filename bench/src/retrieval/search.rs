//! Search latency of stores by size, and recall of the ANN index.

use super::calls;
use super::calls::Query;
use super::calls::Weights;
use super::fill;
use super::fill::Empty;
use super::fill::Filled;
use super::random::hash;
use super::random::mix;
use super::vectors;
use super::words::Words;
use crate::BenchError;
use crate::api::Api;
use crate::database::Database;
use crate::http::CallError;
use crate::load::Bound;
use crate::load::Load;
use crate::load::median;
use crate::load::percentile;
use crate::load::repeat;
use crate::steps::Figures;
use crate::subject::Subject;
use serde_json::Value;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The number of results that runs request.
const RESULTS: usize = 20;

/// Stores with more chunks of these dimensions get an ANN index.
const INDEXED_FROM: u64 = 5_208;

/// Chunks of each small store beside the measured one.
const SMALL: u64 = 100;

/// Concurrent callers.
const CALLERS: usize = 16;

/// Searches before the timed ones.
const WARM_UP: usize = 50;

/// How much to measure.
#[derive(Clone, Copy)]
pub(super) struct Amounts {
    /// Individually timed searches.
    pub(super) singles: usize,
    /// Duration of a rate measurement.
    pub(super) stretch: Duration,
    /// Queries compared with an exact scan.
    pub(super) compared: usize,
    /// Small stores beside the measured one.
    pub(super) small_stores: usize,
}

/// A server with small stores, to which larger stores are added.
pub(super) struct Searched {
    subject: Subject,
    words: Arc<Words>,
    small: Arc<Vec<Filled>>,
    amounts: Amounts,
}

/// A kind of search: the stores and the request.
#[derive(Clone)]
struct Way {
    stores: Arc<Vec<Filled>>,
    filter: Option<Value>,
    weights: Option<Weights>,
}

impl Searched {
    /// Fills the small stores of a new server.
    pub(super) async fn start(
        subject: Subject,
        words: Arc<Words>,
        amounts: Amounts,
    ) -> Result<Self, BenchError> {
        let mut empty = Vec::new();
        for _ in 0..amounts.small_stores {
            empty.push(Empty {
                id: subject.api.create_store().await?,
                chunks: SMALL,
                chunks_per_file: 20,
            });
        }
        let small = fill::fill(database(&subject)?, &words, empty).await?;
        Ok(Self {
            subject,
            words,
            small: Arc::new(small),
            amounts,
        })
    }

    /// Adds a store with this many chunks and measures it. `name` is the prefix of its figures.
    pub(super) async fn measure(
        &self,
        name: &str,
        chunks: u64,
        figures: &mut Figures,
    ) -> Result<(), BenchError> {
        let database = database(&self.subject)?;
        let begun = Instant::now();
        let empty = Empty {
            id: self.subject.api.create_store().await?,
            chunks,
            // A store may have at most 10,000 files.
            chunks_per_file: 20.max(chunks / 10_000),
        };
        let mut filled = fill::fill(database, &self.words, vec![empty]).await?;
        eprintln!("{name}: filled in {:.0} s", begun.elapsed().as_secs_f64());
        let store = filled.remove(0);
        if chunks > INDEXED_FROM {
            let waited = fill::wait_for_index(database, &store).await?;
            figures.put(format!("{name}.index"), waited.as_secs_f64());
            fill::settle(database).await;
        }
        let way = |filter: Option<Value>, weights| Way {
            stores: Arc::new(vec![store.clone()]),
            filter,
            weights,
        };
        let plain = way(None, None);
        self.search(0, &plain, 1, Bound::Times(WARM_UP)).await?;
        let singles = Bound::Times(self.amounts.singles);
        self.put(format!("{name}.1"), &plain, 1, singles, figures)
            .await?;
        let stretch = Bound::For(self.amounts.stretch);
        let many = format!("{name}.{CALLERS}");
        let load = self
            .put(many.clone(), &plain, CALLERS, stretch, figures)
            .await?;
        figures.put(format!("{many}.rate"), load.rate());
        for (by, weights) in [
            ("words", Weights::WordsAlone),
            ("meaning", Weights::MeaningAlone),
        ] {
            let way = way(None, Some(weights));
            self.put(format!("{name}.{by}"), &way, 1, singles, figures)
                .await?;
        }
        if chunks > SMALL {
            for (by, filter) in [
                (
                    "hundredth",
                    json!({"type": "eq", "key": "year", "value": 1990}),
                ),
                ("half", json!({"type": "eq", "key": "lang", "value": "de"})),
            ] {
                let way = way(Some(filter), None);
                self.put(format!("{name}.{by}"), &way, 1, singles, figures)
                    .await?;
            }
        }
        let beside = Way {
            stores: self.small.clone(),
            filter: None,
            weights: None,
        };
        self.put(format!("{name}.beside"), &beside, 1, singles, figures)
            .await?;
        let recall = self.recall(&store).await?;
        figures.put(format!("{name}.recall"), recall);
        Ok(())
    }

    /// Executes one kind of search and adds its figures.
    async fn put(
        &self,
        name: String,
        way: &Way,
        callers: usize,
        bound: Bound,
        figures: &mut Figures,
    ) -> Result<Load<()>, BenchError> {
        // No query is repeated, as it might be cached.
        let load = self.search(hash(&name), way, callers, bound).await?;
        figures.put(format!("{name}.p50"), median(&load.ms));
        figures.put(format!("{name}.p99"), percentile(&load.ms, 0.99));
        Ok(load)
    }

    async fn search(
        &self,
        seed: u64,
        way: &Way,
        callers: usize,
        bound: Bound,
    ) -> Result<Load<()>, BenchError> {
        let (api, words, way) = (self.subject.api.clone(), self.words.clone(), way.clone());
        let operation = move |number: usize| {
            let (api, words, way) = (api.clone(), words.clone(), way.clone());
            async move {
                let drawn = mix(seed ^ number as u64);
                let store = &way.stores[drawn as usize % way.stores.len()];
                let query = Query {
                    text: words.query(asked_for(store, drawn)),
                    filter: way.filter,
                    weights: way.weights,
                    results: RESULTS,
                };
                find(&api, store, &query).await
            }
        };
        repeat(callers, bound, operation).await
    }

    /// The share of the twenty nearest chunks that a semantic search finds.
    async fn recall(&self, store: &Filled) -> Result<f64, BenchError> {
        let (mut due, mut found) = (0, 0);
        for number in 0..self.amounts.compared as u64 {
            let chunk = asked_for(store, number);
            let query = Query {
                text: self.words.query(chunk),
                filter: None,
                weights: Some(Weights::MeaningAlone),
                results: RESULTS,
            };
            let hits = calls::hits(&self.subject.api.search(&store.id, &query).await?)?;
            let shown: HashSet<i64> = hits
                .iter()
                .filter_map(|hit| number_of(hit.text()))
                .collect();
            let vector = vectors::of_query(chunk);
            let limit = RESULTS as i64;
            let nearest = fill::nearest(database(&self.subject)?, store, &vector, limit).await?;
            due += nearest.len();
            found += nearest.iter().filter(|chunk| shown.contains(chunk)).count();
        }
        Ok(found as f64 / due as f64)
    }
}

fn database(subject: &Subject) -> Result<&Database, BenchError> {
    subject.database.as_ref().ok_or(BenchError::NoDatabase)
}

/// The chunk that the search of this number looks for.
fn asked_for(store: &Filled, number: u64) -> u64 {
    let chunks = store.chunks.end - store.chunks.start;
    store.chunks.start + mix(number) % chunks
}

/// Parses the number at the start of a chunk.
fn number_of(text: &str) -> Option<i64> {
    text.split(' ').next()?.strip_prefix('c')?.parse().ok()
}

/// Searches and checks that there are hits.
async fn find(api: &Api, store: &Filled, query: &Query) -> Result<(), CallError> {
    let answer = api.search(&store.id, query).await?;
    match memchr::memmem::find(&answer, b"\"file_id\"") {
        Some(_) => Ok(()),
        None => Err(CallError::Protocol(format!(
            "nothing found for {}",
            query.text
        ))),
    }
}
