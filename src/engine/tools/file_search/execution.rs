//! Executes calls of file_search in the vector stores of the assistant and of the thread.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::domain::ids::VectorStoreId;
use crate::domain::run_step::{RunStep, StepDetails};
use crate::domain::tool::{SearchCall, SearchResult, ToolCall, ToolCallBody};
use crate::domain::vector_store::{SearchableStore, Weights};
use crate::engine::annotate::CitablePassages;
use crate::engine::budget;
use crate::engine::session::Session;
use crate::engine::stop::StopReason;
use crate::engine::tools::file_search::definition::{self, SearchSettings};
use crate::retrieval::{SearchHit, SearchQuery};
use crate::store;

/// How long a run waits before its first turn for its vector stores to be indexed. The hosted
/// service waited this long for the thread's store.
const INDEXING_TIMEOUT: Duration = Duration::from_secs(60);

const INDEXING_POLL: Duration = Duration::from_millis(250);

/// The index of a thread's first search. The hosted service began its citations with 4.
const FIRST_SEARCH_INDEX: usize = 4;

#[derive(Debug, Default)]
pub(in crate::engine) struct SearchContext {
    stores: Vec<VectorStoreId>,
    passages: CitablePassages,
    searches: usize,
}

impl SearchContext {
    /// Loads the vector stores of a run and the results of the thread's earlier searches. At the
    /// start of the run this waits for the stores to be indexed; a run that continues after outputs
    /// were submitted, or after a recovery, has waited before.
    pub(in crate::engine) async fn load(
        session: &mut Session,
        is_start: bool,
    ) -> Result<Self, StopReason> {
        let pool = session.shared.deps.pool.clone();
        let (project, thread) = (session.run.project.clone(), session.run.thread.clone());
        let assistant = &session.run.assistant;
        let ids = store::vector_stores::list_for_run(&pool, &project, assistant, &thread).await?;
        let mut context = Self::default();
        for id in ids {
            if !context.stores.contains(&id) {
                context.stores.push(id);
            }
        }
        if is_start {
            wait_for_indexing(session, &context.stores).await?;
        }
        for step in store::run_steps::tool_calls_since(&pool, &project, &thread, None).await? {
            let StepDetails::ToolCalls { calls } = step.details else {
                continue;
            };
            for call in calls {
                if let ToolCallBody::FileSearch(call) = call.body {
                    context.searches += 1;
                    context.add_passages(&call);
                }
            }
        }
        Ok(context)
    }

    pub(in crate::engine) fn passages(&self) -> CitablePassages {
        self.passages.clone()
    }

    pub(in crate::engine) fn next_search_index(&self) -> usize {
        FIRST_SEARCH_INDEX + self.searches
    }

    pub(in crate::engine) async fn run(
        &mut self,
        session: &mut Session,
        step: &mut RunStep,
        index: usize,
    ) -> Result<(), StopReason> {
        let Some(ToolCall {
            body: ToolCallBody::FileSearch(call),
            ..
        }) = step.calls_mut().get_mut(index)
        else {
            return Err(StopReason::internal("the call is not one of file_search"));
        };
        let queries = definition::queries(&call.arguments);
        let settings = SearchSettings::of(&session.run.config);
        let limit = settings.as_ref().map_or(0, |settings| settings.results);
        let query = SearchQuery {
            queries: &queries,
            filter: None,
            limit,
            threshold: call.score_threshold,
            weights: settings
                .as_ref()
                .map_or_else(Weights::default, |settings| settings.weights),
            rerank: true,
        };
        let max_tokens = settings.map_or(0, |settings| settings.tokens);
        // Half of a small context window is left for the conversation.
        let max_tokens =
            budget::prompt_tokens(session)?.map_or(max_tokens, |budget| max_tokens.min(budget / 2));
        let mut hits: Vec<SearchHit> = Vec::new();
        for id in &self.stores {
            let store = searchable_store(session, id).await?;
            if let (Some(store), false) = (store, queries.is_empty()) {
                let retrieval = session.shared.deps.retrieval.clone();
                let search = retrieval.search(&store, &query);
                hits.extend(session.until_stopped(search).await??);
            }
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        hits.truncate(limit);
        hits.truncate(fit_token_budget(&hits, max_tokens));
        call.results = Some(hits.into_iter().map(search_result).collect());
        self.searches = self
            .searches
            .max((call.ordinal + 1).saturating_sub(FIRST_SEARCH_INDEX));
        self.add_passages(call);
        Ok(())
    }

    fn add_passages(&mut self, call: &SearchCall) {
        for (n, result) in call.results.iter().flatten().enumerate() {
            self.passages
                .insert((call.ordinal, n), &result.file_name, result.file.clone());
        }
    }
}

/// Waits until no file of these stores is in progress, or until the timeout. Files that failed or
/// were cancelled, and stores that have expired, are not waited for.
async fn wait_for_indexing(
    session: &mut Session,
    stores: &[VectorStoreId],
) -> Result<(), StopReason> {
    let deadline = Instant::now() + INDEXING_TIMEOUT;
    let pool = session.shared.deps.pool.clone();
    let project = session.run.project.clone();
    while store::vector_stores::has_unindexed_files(&pool, &project, stores).await? {
        if Instant::now() >= deadline {
            let (run, seconds) = (&session.run.id, INDEXING_TIMEOUT.as_secs());
            tracing::info!(
                run.id = %run,
                "run {run}: files of its vector stores are still being indexed after {seconds} s; \
                 searching without them"
            );
            break;
        }
        session.until_stopped(sleep(INDEXING_POLL)).await?;
    }
    Ok(())
}

/// The store, unless it was deleted. An expired one fails the run.
async fn searchable_store(
    session: &Session,
    id: &VectorStoreId,
) -> Result<Option<SearchableStore>, StopReason> {
    let pool = &session.shared.deps.pool;
    let store = store::vector_stores::touch(pool, &session.run.project, id).await?;
    match store {
        Some(store) if store.is_expired => Err(StopReason::server_error(format!(
            "Vector store {id} is expired."
        ))),
        store => Ok(store),
    }
}

/// How many of the hits, best first, fit into this many tokens together. At least one.
fn fit_token_budget(hits: &[SearchHit], tokens: u32) -> usize {
    let mut left = i64::from(tokens);
    let fitting = hits.iter().take_while(|hit| {
        left -= i64::from(hit.chunk.tokens);
        left >= 0
    });
    fitting.count().max(1)
}

fn search_result(hit: SearchHit) -> SearchResult {
    let chunk = hit.chunk;
    SearchResult {
        file: chunk.file_id,
        file_name: chunk.filename,
        score: hit.score,
        attributes: chunk.attributes.0,
        page: chunk.page,
        heading: chunk.heading,
        content: chunk.content,
    }
}
