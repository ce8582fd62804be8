//! Searches for what the model asks, in the stores of the assistant and of the thread.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::domain::ids::VectorStoreId;
use crate::domain::run::{RunError, RunErrorCode};
use crate::domain::run_step::{RunStep, StepDetails};
use crate::domain::tool::{SearchCall, SearchResult, ToolCall, ToolCallBody};
use crate::domain::vector_store::{SearchableStore, Weights};
use crate::engine::annotate::Passages;
use crate::engine::run_loop::{Driver, Halt};
use crate::engine::session::calls_of;
use crate::engine::tools::file_search::definition::{self as file_search, Settings};
use crate::retrieval::{SearchError, SearchHit, SearchQuery};
use crate::store;

/// How long a run waits before its first turn for the files of its stores to be indexed. The hosted
/// service waited so long for the thread's store.
const INDEXING_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval at which a waiting run asks whether indexing has ended.
const INDEXING_POLL: Duration = Duration::from_millis(250);

/// The number of a thread's first search, in citations.
const FIRST: usize = 4;

/// What a run may search and cite.
#[derive(Debug, Default)]
pub(in crate::engine) struct Library {
    stores: Vec<VectorStoreId>,
    passages: Passages,
    /// Searches of the thread so far.
    searches: usize,
}

impl Library {
    /// What may be cited.
    pub(in crate::engine) fn passages(&self) -> Passages {
        self.passages.clone()
    }

    fn add(&mut self, call: &SearchCall) {
        for (n, result) in call.results.iter().flatten().enumerate() {
            self.passages
                .insert((call.place, n), &result.file_name, result.file.clone());
        }
    }
}

impl From<SearchError> for Halt {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Store(error) => error.into(),
            SearchError::Embed(error) => Self::Failed(RunError {
                code: RunErrorCode::ServerError,
                message: format!("The files could not be searched: {error}."),
            }),
        }
    }
}

impl Driver {
    /// Loads what may be searched and cited. A run that begins waits for its stores to be indexed.
    pub(in crate::engine) async fn open_library(&mut self) -> Result<(), Halt> {
        if Settings::of(&self.run.config).is_none() {
            return Ok(());
        }
        let pool = self.engine.deps.pool.clone();
        let (project, thread) = (self.run.project.clone(), self.run.thread.clone());
        let assistant = self.run.assistant.clone();
        let named =
            store::vector_stores::list_for_run(&pool, &project, &assistant, &thread).await?;
        let mut library = Library::default();
        for id in named {
            if !library.stores.contains(&id) {
                library.stores.push(id);
            }
        }
        // A run that goes on after the caller's outputs or a lost lease has waited already.
        if self.turns == 0 {
            self.wait_for_indexing(&library.stores).await?;
        }
        for step in store::run_steps::tool_calls_since(&pool, &project, &thread, None).await? {
            let StepDetails::ToolCalls { calls } = step.details else {
                continue;
            };
            for call in calls {
                if let ToolCallBody::FileSearch(call) = call.body {
                    library.searches += 1;
                    library.add(&call);
                }
            }
        }
        self.library = Some(library);
        Ok(())
    }

    /// Waits until no file of these stores is in progress, or until the timeout. Files that failed
    /// or were cancelled, and stores that have expired, are not waited for.
    async fn wait_for_indexing(&mut self, stores: &[VectorStoreId]) -> Result<(), Halt> {
        let deadline = Instant::now() + INDEXING_TIMEOUT;
        let pool = self.engine.deps.pool.clone();
        let project = self.run.project.clone();
        while store::vector_stores::has_unindexed_files(&pool, &project, stores).await? {
            if Instant::now() >= deadline {
                let (run, seconds) = (&self.run.id, INDEXING_TIMEOUT.as_secs());
                tracing::info!(
                    run.id = %run,
                    "run {run}: its vector stores are not indexed after {seconds} s; starting"
                );
                break;
            }
            self.interruptible(sleep(INDEXING_POLL)).await?;
        }
        Ok(())
    }

    /// How searches are done, if a call of this name is one.
    pub(in crate::engine) fn search_settings(&self, name: &str) -> Option<Settings> {
        let config = &self.run.config;
        file_search::is_meant(config, name).then(|| Settings::of(config))?
    }

    /// The number of the next search.
    pub(in crate::engine) fn next_search(&mut self) -> usize {
        let library = self.library.get_or_insert_default();
        library.searches += 1;
        FIRST + library.searches - 1
    }

    /// Does one call.
    pub(in crate::engine) async fn search(
        &mut self,
        step: &mut RunStep,
        index: usize,
    ) -> Result<(), Halt> {
        let Some(ToolCall {
            body: ToolCallBody::FileSearch(call),
            ..
        }) = calls_of(step).get_mut(index)
        else {
            return Err(Halt::internal(&"a call that is no search"));
        };
        let queries = file_search::queries(&call.arguments);
        let settings = Settings::of(&self.run.config);
        let limit = settings.as_ref().map_or(0, |settings| settings.results);
        let ask = SearchQuery {
            queries: &queries,
            filter: None,
            limit,
            threshold: call.score_threshold,
            weights: settings
                .as_ref()
                .map_or_else(Weights::default, |settings| settings.weights),
            rerank: true,
        };
        let most = settings.map_or(0, |settings| settings.tokens);
        // Half of what a small model can read is left for the conversation.
        let tokens = self
            .prompt_budget()?
            .map_or(most, |budget| most.min(budget / 2));
        let stores = self.library.as_ref().map(|library| library.stores.clone());
        let mut hits: Vec<SearchHit> = Vec::new();
        for id in stores.unwrap_or_default() {
            let store = self.searchable(&id).await?;
            if let (Some(store), false) = (store, queries.is_empty()) {
                let retrieval = self.engine.deps.retrieval.clone();
                hits.extend(self.interruptible(retrieval.search(&store, &ask)).await??);
            }
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        hits.truncate(limit);
        hits.truncate(that_fit(&hits, tokens));
        call.results = Some(hits.into_iter().map(result).collect());
        if let Some(library) = &mut self.library {
            library.add(call);
        }
        Ok(())
    }

    /// The store, unless it was deleted. One that has expired fails the run.
    async fn searchable(&self, id: &VectorStoreId) -> Result<Option<SearchableStore>, Halt> {
        let pool = &self.engine.deps.pool;
        let store = store::vector_stores::touch(pool, &self.run.project, id).await?;
        match store {
            Some(store) if store.is_expired => Err(Halt::Failed(RunError {
                code: RunErrorCode::ServerError,
                message: format!("Vector store {id} is expired."),
            })),
            store => Ok(store),
        }
    }
}

/// How many of the hits, from the best on, have so many tokens together; one at least.
fn that_fit(hits: &[SearchHit], tokens: u32) -> usize {
    let mut left = i64::from(tokens);
    let fitting = hits.iter().take_while(|hit| {
        left -= i64::from(hit.chunk.tokens);
        left >= 0
    });
    fitting.count().max(1)
}

fn result(hit: SearchHit) -> SearchResult {
    let found = hit.chunk;
    SearchResult {
        file: found.file_id,
        file_name: found.filename,
        score: hit.score,
        attributes: found.attributes.0,
        page: found.page,
        heading: found.heading,
        content: found.content,
    }
}
