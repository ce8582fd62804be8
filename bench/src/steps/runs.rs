//! Polled runs, with a model that answers at once.

use super::StepContext;
use crate::BenchError;
use crate::api::Api;
use crate::api::Status;
use crate::api::Tool;
use crate::api::arrival;
use crate::clock;
use crate::load::Bound;
use crate::load::median;
use crate::load::percentile;
use crate::load::repeat;
use crate::upstream::Pace;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::sleep;

/// The model of the polled runs.
const INSTANT: Pace = Pace::instant(100);

/// The maximum lag of the database's counters.
const COUNTERS_LAG: Duration = Duration::from_secs(11);

impl StepContext<'_> {
    /// Warms the server up and measures its memory.
    pub(super) async fn warm_up(&mut self) -> Result<(), BenchError> {
        self.repeat_flow(8, Bound::Times(400)).await?;
        let pace = Pace {
            first_ms: 50,
            gap_ms: 5,
            tokens: 50,
        };
        self.stream_all(16, 32, pace).await?;
        if let Some((now, _)) = crate::process::memory_mib(self.subject.pid()) {
            self.put("memory.warm", now);
        }
        Ok(())
    }

    /// One run at a time on existing threads.
    pub(super) async fn run_alone(&mut self) -> Result<(), BenchError> {
        let count = self.plan.singles;
        let api = self.subject.api.clone();
        let assistant = api.create_assistant(INSTANT, Tool::None).await?;
        let threads = Arc::new(create_threads_with_question(&api, count).await?);
        let called = self.upstream.calls().await?;
        let work = repeat(1, Bound::Times(count), {
            let (api, threads) = (api.clone(), threads.clone());
            move |number| {
                let (api, threads, assistant) = (api.clone(), threads.clone(), assistant.clone());
                async move {
                    let posted = clock::now_ns();
                    let thread = &threads[number];
                    let run = api.create_run(thread, &assistant).await?;
                    api.wait_for(Status::Completed, thread, &run).await?;
                    Ok((number, posted))
                }
            }
        });
        let (load, cost) = self.metered(work).await?;
        self.expect_calls(called, count).await?;
        let mut before = Vec::new();
        for (number, posted) in &load.samples {
            let messages = api.list_messages(&threads[*number], 1).await?;
            before.push(clock::ms_between(*posted, arrival(&messages)?));
        }
        self.put("run.p50", median(&load.ms));
        self.put("run.p99", percentile(&load.ms, 0.99));
        self.put("run.before-upstream", median(&before));
        let ms = cost.server.as_secs_f64() * 1e3 / count as f64;
        self.put("run.server-cpu", ms);
        Ok(())
    }

    /// Transactions and log syncs of sequential runs.
    pub(super) async fn commits(&mut self) -> Result<(), BenchError> {
        let count = self.plan.singles;
        let api = self.subject.api.clone();
        let assistant = api.create_assistant(INSTANT, Tool::None).await?;
        let threads = create_threads_with_question(&api, count).await?;
        let before = self.counters_after_lag().await?;
        for thread in &threads {
            let run = api.create_run(thread, &assistant).await?;
            api.wait_for(Status::Completed, thread, &run).await?;
        }
        let after = self.counters_after_lag().await?;
        let per_run = |from: i64, to: i64| (to - from) as f64 / count as f64;
        self.put("commits.writing", per_run(before.writing, after.writing));
        if self.plan.thorough {
            self.put("commits.all", per_run(before.committed, after.committed));
            self.put("commits.syncs", per_run(before.synced, after.synced));
        }
        Ok(())
    }

    async fn counters_after_lag(&self) -> Result<crate::database::Counters, BenchError> {
        if self.plan.thorough {
            sleep(COUNTERS_LAG).await;
        }
        let database = self.subject.database.as_ref();
        Ok(database.ok_or(BenchError::NoDatabase)?.counters().await?)
    }

    /// A whole application flow: thread, message, run, poll, list.
    pub(super) async fn flow(&mut self, callers: usize) -> Result<(), BenchError> {
        self.repeat_flow(callers, self.plan.bound()).await
    }

    async fn repeat_flow(&mut self, callers: usize, bound: Bound) -> Result<(), BenchError> {
        let api = self.subject.api.clone();
        let assistant = api.create_assistant(INSTANT, Tool::None).await?;
        let called = self.upstream.calls().await?;
        let work = repeat(callers, bound, move |_| {
            let (api, assistant) = (api.clone(), assistant.clone());
            async move {
                let thread = api.create_thread().await?;
                api.add_message(&thread).await?;
                let run = api.create_run(&thread, &assistant).await?;
                api.wait_for(Status::Completed, &thread, &run).await?;
                // Fails if the answer is missing.
                arrival(&api.list_messages(&thread, 20).await?)
            }
        });
        let (load, cost) = self.metered(work).await?;
        self.expect_calls(called, load.count()).await?;
        let each = |time: Duration| time.as_secs_f64() * 1e3 / load.count() as f64;
        self.put(format!("flow.{callers}.rate"), load.rate());
        self.put(format!("flow.{callers}.p50"), median(&load.ms));
        self.put(format!("flow.{callers}.p99"), percentile(&load.ms, 0.99));
        self.put(format!("flow.{callers}.server-cpu"), each(cost.server));
        if let Some(database) = cost.database {
            self.put(format!("flow.{callers}.database-cpu"), each(database));
        }
        Ok(())
    }

    /// A run with a function call whose output is submitted at once.
    pub(super) async fn tool_loop(&mut self, callers: usize) -> Result<(), BenchError> {
        let api = self.subject.api.clone();
        let assistant = api.create_assistant(INSTANT, Tool::Function).await?;
        let called = self.upstream.calls().await?;
        let work = repeat(callers, self.plan.bound(), {
            let api = api.clone();
            move |_| {
                let (api, assistant) = (api.clone(), assistant.clone());
                async move {
                    let thread = api.create_thread_with_question().await?;
                    let start = Instant::now();
                    let run = api.create_run(&thread, &assistant).await?;
                    let waiting = Status::RequiresAction;
                    let shown = api.wait_for(waiting, &thread, &run).await?;
                    api.submit(&thread, &shown).await?;
                    api.wait_for(Status::Completed, &thread, &run).await?;
                    let ms = start.elapsed().as_secs_f64() * 1e3;
                    Ok((ms, thread, run))
                }
            }
        });
        let (load, cost) = self.metered(work).await?;
        self.expect_calls(called, 2 * load.count()).await?;
        let (_, thread, run) = &load.samples[0];
        let steps = api.list_steps(thread, run).await?;
        if memchr::memmem::find(&steps, b"sunny").is_none() {
            return Err(BenchError::Unexpected("a function's result is not kept"));
        }
        let ms: Vec<f64> = load.samples.iter().map(|(ms, ..)| *ms).collect();
        self.put(format!("tools.{callers}.p50"), median(&ms));
        self.put(format!("tools.{callers}.rate"), load.rate());
        let each = cost.server.as_secs_f64() * 1e3 / load.count() as f64;
        self.put(format!("tools.{callers}.server-cpu"), each);
        Ok(())
    }

    /// Runs on threads with one message and with a thousand.
    pub(super) async fn long_thread(&mut self) -> Result<(), BenchError> {
        let api = self.subject.api.clone();
        let assistant = api.create_assistant(INSTANT, Tool::None).await?;
        let long = api.create_thread().await?;
        let mut length = 1_000;
        for _ in 0..length {
            api.add_message(&long).await?;
        }
        let seen = AtomicU64::new(0);
        let (mut before, mut create) = ([vec![], vec![]], [vec![], vec![]]);
        let mut reached = Vec::new();
        for _ in 0..self.plan.singles / 10 {
            for (n, thread) in [api.create_thread_with_question().await?, long.clone()]
                .iter()
                .enumerate()
            {
                let streamed = api.stream_run(thread, &assistant, INSTANT, &seen).await?;
                before[n].push(streamed.before_upstream());
                if n == 1 {
                    reached.push(100.0 * streamed.messages as f64 / f64::from(length));
                    length += 2;
                }
                let start = Instant::now();
                let run = api.create_run(thread, &assistant).await?;
                create[n].push(start.elapsed().as_secs_f64() * 1e3);
                api.wait_for(Status::Completed, thread, &run).await?;
            }
        }
        self.put("long-thread.1.before-upstream", median(&before[0]));
        self.put("long-thread.1000.before-upstream", median(&before[1]));
        let growth = median(&create[1]) / median(&create[0]);
        self.put("long-thread.create-growth", growth);
        // Instructions may add a message to the prompt.
        self.put("long-thread.reached", median(&reached).min(100.0));
        Ok(())
    }

    /// Checks how often the runs called the model.
    pub(super) async fn expect_calls(
        &self,
        before: u64,
        expected: usize,
    ) -> Result<(), BenchError> {
        let found = self.upstream.calls().await? - before;
        if found == expected as u64 {
            return Ok(());
        }
        Err(BenchError::Calls {
            expected: expected as u64,
            found,
        })
    }
}

/// Creates threads with one question each.
pub(super) async fn create_threads_with_question(
    api: &Api,
    count: usize,
) -> Result<Vec<String>, BenchError> {
    let api = api.clone();
    let load = repeat(8, Bound::Times(count), move |_| {
        let api = api.clone();
        async move { api.create_thread_with_question().await }
    });
    Ok(load.await?.samples)
}
