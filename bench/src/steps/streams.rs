//! Streamed runs, with a model of realistic speed.

use super::Figures;
use super::StepContext;
use super::runs::create_threads_with_question;
use crate::BenchError;
use crate::api::Streamed;
use crate::api::Tool;
use crate::http::CallError;
use crate::load::Bound;
use crate::load::median;
use crate::load::percentile;
use crate::load::repeat;
use crate::process;
use crate::subject::Subject;
use crate::upstream::Pace;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::time::sleep;
use tokio::time::timeout;

/// A model of usual speed: 200 ms to the first token, fifty tokens per second.
const ORDINARY: Pace = Pace {
    first_ms: 200,
    gap_ms: 20,
    tokens: 100,
};

const INSTANT: Pace = Pace::instant(20);

/// Time limit of a stream.
const PATIENCE: Duration = Duration::from_secs(60);

impl StepContext<'_> {
    /// This many concurrent streams.
    pub(super) async fn streams(&mut self, streams: usize) -> Result<(), BenchError> {
        let waves = match streams {
            1 => self.plan.lone_streams,
            _ => self.plan.waves,
        };
        let total = streams * waves;
        let (outcomes, server_cpu) = self.stream_all(streams, total, ORDINARY).await?;
        let outcomes: Vec<Streamed> = outcomes.into_iter().collect::<Result<_, _>>()?;
        let first: Vec<f64> = outcomes.iter().map(Streamed::added_to_first).collect();
        let tokens: Vec<f64> = outcomes.into_iter().flat_map(|s| s.token_delays).collect();
        self.put(format!("streams.{streams}.first.p50"), median(&first));
        self.put(
            format!("streams.{streams}.first.p99"),
            percentile(&first, 0.99),
        );
        self.put(format!("streams.{streams}.token.p50"), median(&tokens));
        self.put(
            format!("streams.{streams}.token.p99"),
            percentile(&tokens, 0.99),
        );
        let each = server_cpu.as_secs_f64() * 1e3 / total as f64;
        self.put(format!("streams.{streams}.server-cpu"), each);
        Ok(())
    }

    /// A thousand concurrent streams.
    pub(super) async fn thousand_streams(&mut self) -> Result<(), BenchError> {
        let pace = self.slow_pace();
        process::reset_peak(self.subject.pid())?;
        let (outcomes, _) = self.stream_all(1_000, 1_000, pace).await?;
        let good: Vec<Streamed> = outcomes.into_iter().flatten().collect();
        let first: Vec<f64> = good.iter().map(Streamed::added_to_first).collect();
        self.put("thousand.good", good.len() as f64);
        self.put("thousand.first.p50", median(&first));
        self.put("thousand.first.p99", percentile(&first, 0.99));
        let end: Vec<f64> = good.iter().map(Streamed::end_delay).collect();
        self.put("thousand.end.p50", median(&end));
        self.put("thousand.end.p99", percentile(&end, 0.99));
        if let Some((_, peak)) = process::memory_mib(self.subject.pid()) {
            self.put("thousand.memory-peak", peak);
        }
        Ok(())
    }

    /// The memory of a new server before and during a thousand streams.
    pub(super) async fn stream_memory(&mut self) -> Result<(), BenchError> {
        const STREAMS: usize = 1_000;
        let mut new = Subject::start(self.subject.kind.clone(), self.upstream.address).await?;
        let mut context = StepContext {
            plan: self.plan,
            upstream: self.upstream,
            subject: &mut new,
            figures: Figures::default(),
        };
        // What a server allocates once is not the streams'.
        context.stream_all(16, 16, INSTANT).await?;
        let memory = |context: &StepContext<'_>| process::memory_mib(context.subject.pid());
        let (before, _) = memory(&context).ok_or(BenchError::Nothing)?;
        process::reset_peak(context.subject.pid())?;
        let pace = context.slow_pace();
        let (outcomes, _) = context.stream_all(STREAMS, STREAMS, pace).await?;
        let (_, peak) = memory(&context).ok_or(BenchError::Nothing)?;
        outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.put("stream-memory.before", before);
        self.put("stream-memory.peak", peak);
        let each = (peak - before) * 1024.0 / STREAMS as f64;
        self.put("stream-memory.each", each);
        Ok(())
    }

    /// Ten tokens per second, so that all streams are open at once.
    fn slow_pace(&self) -> Pace {
        Pace {
            first_ms: 200,
            gap_ms: 100,
            tokens: self.plan.thousand_tokens,
        }
    }

    /// Opens `total` streams, `concurrent` at a time; the outcome of each, and the server's CPU time.
    ///
    /// The first ones start evenly over half a stream's duration, as requests of independent callers
    /// do.
    pub(super) async fn stream_all(
        &mut self,
        concurrent: usize,
        total: usize,
        pace: Pace,
    ) -> Result<(Vec<Result<Streamed, CallError>>, Duration), BenchError> {
        let api = self.subject.api.clone();
        let assistant = api.create_assistant(pace, Tool::None).await?;
        let threads = Arc::new(create_threads_with_question(&api, total).await?);
        let seen = Arc::new(AtomicU64::new(0));
        let apart = pace.duration() / 2 / u32::try_from(concurrent).unwrap_or(u32::MAX);
        let work = repeat(concurrent, Bound::Times(total), move |number| {
            let (api, threads, assistant) = (api.clone(), threads.clone(), assistant.clone());
            let seen = seen.clone();
            async move {
                if number < concurrent {
                    sleep(apart * u32::try_from(number).unwrap_or(u32::MAX)).await;
                }
                let stream = api.stream_run(&threads[number], &assistant, pace, &seen);
                // A broken stream is counted and does not fail the step.
                Ok(timeout(PATIENCE, stream).await.unwrap_or_else(|_| {
                    Err(CallError::Protocol("a stream did not end".to_owned()))
                }))
            }
        });
        let (load, cost) = self.metered(work).await?;
        Ok((load.samples, cost.server))
    }
}
