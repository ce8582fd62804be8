//! The steps of the benchmark. Each applies one kind of load to one server and yields figures.

mod code;
mod failures;
mod objects;
mod runs;
mod streams;

use crate::BenchError;
use crate::growth::Growth;
use crate::load::Bound;
use crate::meter::Cost;
use crate::meter::Meter;
use crate::subject::Subject;
use crate::subject::Upstream;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// How much the steps measure.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Duration of a rate measurement.
    pub(crate) stretch: Duration,
    /// Repetitions of short steps; the median counts.
    pub(crate) rounds: usize,
    /// Repetitions of long steps.
    pub(crate) long_rounds: usize,
    /// Individually timed operations.
    pub(crate) singles: usize,
    /// Streams of a single caller.
    pub(crate) lone_streams: usize,
    /// Waves of concurrent streams.
    pub(crate) waves: usize,
    /// Messages added for the step with a full table.
    pub(crate) table_messages: u32,
    /// Tokens of each of the thousand streams.
    pub(crate) thousand_tokens: u64,
    /// Cells that are the first of their session.
    pub(crate) cells: usize,
    /// Jupyter kernels, one at a time.
    pub(crate) kernels: usize,
    /// Include the slow steps: lagging counters, crash, fifty kernels, and large vector stores.
    pub(crate) thorough: bool,
    /// Rows to fill the tables with beforehand.
    pub(crate) growth: Option<Growth>,
    /// Show the sizes of the tables after the last step.
    pub(crate) shows_tables: bool,
}

impl Plan {
    /// Takes four minutes, and two for vector stores.
    pub(crate) fn quick() -> Self {
        Self {
            stretch: Duration::from_millis(700),
            rounds: 3,
            long_rounds: 1,
            singles: 100,
            lone_streams: 2,
            waves: 1,
            table_messages: 100_000,
            thousand_tokens: 40,
            cells: 40,
            kernels: 3,
            thorough: false,
            growth: None,
            shows_tables: false,
        }
    }

    /// Takes less than half an hour, and an hour for vector stores.
    pub(crate) fn full() -> Self {
        Self {
            stretch: Duration::from_secs(3),
            rounds: 3,
            long_rounds: 1,
            singles: 300,
            lone_streams: 8,
            waves: 2,
            table_messages: 1_000_000,
            thousand_tokens: 100,
            cells: 240,
            kernels: 24,
            thorough: true,
            growth: None,
            shows_tables: false,
        }
    }

    fn bound(&self) -> Bound {
        Bound::For(self.stretch)
    }
}

/// A kind of load; numbers are concurrent callers or streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    WarmUp,
    CreateThread(usize),
    AddMessage(usize),
    ListMessages(usize),
    RunAlone,
    Commits,
    Flow(usize),
    ToolLoop(usize),
    CodeRun,
    Streams(usize),
    LongThread,
    ThousandStreams,
    StreamMemory,
    PausedDatabase,
    Start,
    FullTable,
    Restart,
    Crash,
}

impl Step {
    /// All steps in execution order.
    pub(crate) const ALL: [Self; 26] = [
        Self::WarmUp,
        Self::CreateThread(1),
        Self::CreateThread(16),
        Self::AddMessage(1),
        Self::AddMessage(16),
        Self::ListMessages(1),
        Self::ListMessages(16),
        Self::RunAlone,
        Self::Commits,
        Self::Flow(1),
        Self::Flow(16),
        Self::Flow(64),
        Self::ToolLoop(1),
        Self::ToolLoop(16),
        Self::CodeRun,
        Self::Streams(1),
        Self::Streams(64),
        Self::Streams(256),
        Self::LongThread,
        Self::ThousandStreams,
        Self::StreamMemory,
        Self::PausedDatabase,
        Self::Start,
        Self::FullTable,
        Self::Restart,
        Self::Crash,
    ];

    /// Repetitions of the step on each server.
    pub(crate) fn rounds(self, plan: &Plan) -> usize {
        match self {
            Self::CreateThread(_)
            | Self::AddMessage(_)
            | Self::ListMessages(_)
            | Self::RunAlone
            | Self::Flow(_)
            | Self::ToolLoop(_)
            | Self::Streams(2..)
            | Self::LongThread
            | Self::Start => plan.rounds,
            Self::ThousandStreams | Self::StreamMemory => plan.long_rounds,
            Self::WarmUp
            | Self::Commits
            | Self::CodeRun
            | Self::Streams(_)
            | Self::PausedDatabase
            | Self::FullTable
            | Self::Restart
            | Self::Crash => 1,
        }
    }

    /// Whether the step needs a feature that the null server lacks.
    pub(crate) fn needs_database(self) -> bool {
        match self {
            Self::Commits
            | Self::CodeRun
            | Self::PausedDatabase
            | Self::Start
            | Self::FullTable
            | Self::Restart
            | Self::Crash => true,
            Self::WarmUp
            | Self::CreateThread(_)
            | Self::AddMessage(_)
            | Self::ListMessages(_)
            | Self::RunAlone
            | Self::Flow(_)
            | Self::ToolLoop(_)
            | Self::Streams(_)
            | Self::LongThread
            | Self::ThousandStreams
            | Self::StreamMemory => false,
        }
    }

    /// Applies the step's load to a server.
    pub(crate) async fn run(
        self,
        plan: &Plan,
        upstream: &Upstream,
        subject: &mut Subject,
    ) -> Result<Figures, BenchError> {
        let mut context = StepContext {
            plan,
            upstream,
            subject,
            figures: Figures::default(),
        };
        match self {
            Self::WarmUp => context.warm_up().await?,
            Self::CreateThread(callers) => context.create_thread(callers).await?,
            Self::AddMessage(callers) => context.add_message(callers).await?,
            Self::ListMessages(callers) => context.list_messages(callers).await?,
            Self::FullTable => context.full_table().await?,
            Self::RunAlone => context.run_alone().await?,
            Self::Commits => context.commits().await?,
            Self::Flow(callers) => context.flow(callers).await?,
            Self::ToolLoop(callers) => context.tool_loop(callers).await?,
            Self::CodeRun => context.code_run().await?,
            Self::LongThread => context.long_thread().await?,
            Self::Streams(streams) => context.streams(streams).await?,
            Self::ThousandStreams => context.thousand_streams().await?,
            Self::StreamMemory => context.stream_memory().await?,
            Self::PausedDatabase => context.paused_database().await?,
            Self::Start => context.start().await?,
            Self::Restart => context.restart().await?,
            Self::Crash => context.crash().await?,
        }
        Ok(context.figures)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WarmUp => write!(f, "warm-up"),
            Self::CreateThread(callers) => write!(f, "create-thread.{callers}"),
            Self::AddMessage(callers) => write!(f, "add-message.{callers}"),
            Self::ListMessages(callers) => write!(f, "list.{callers}"),
            Self::RunAlone => write!(f, "run"),
            Self::Commits => write!(f, "commits"),
            Self::Flow(callers) => write!(f, "flow.{callers}"),
            Self::ToolLoop(callers) => write!(f, "tools.{callers}"),
            Self::CodeRun => write!(f, "sandbox.run"),
            Self::Streams(streams) => write!(f, "streams.{streams}"),
            Self::LongThread => write!(f, "long-thread"),
            Self::ThousandStreams => write!(f, "thousand"),
            Self::StreamMemory => write!(f, "stream-memory"),
            Self::PausedDatabase => write!(f, "pause"),
            Self::Start => write!(f, "start"),
            Self::FullTable => write!(f, "full-table"),
            Self::Restart => write!(f, "restart"),
            Self::Crash => write!(f, "crash"),
        }
    }
}

/// A step's figures by name, such as `flow.16.rate`.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) values: Vec<(String, f64)>,
    /// The most cores that other processes used meanwhile.
    pub(crate) other_processes: f64,
}

/// The context of a running step.
struct StepContext<'a> {
    plan: &'a Plan,
    upstream: &'a Upstream,
    subject: &'a mut Subject,
    figures: Figures,
}

impl Figures {
    pub(crate) fn put(&mut self, name: impl Into<String>, value: f64) {
        self.values.push((name.into(), value));
    }
}

impl StepContext<'_> {
    fn put(&mut self, name: impl Into<String>, value: f64) {
        self.figures.put(name, value);
    }

    /// Measures the CPU time of some work.
    async fn metered<T>(
        &mut self,
        work: impl Future<Output = Result<T, BenchError>>,
    ) -> Result<(T, Cost), BenchError> {
        let meter = Meter::start(self.subject, self.upstream)?;
        let done = work.await?;
        let cost = meter.stop(self.subject, self.upstream)?;
        self.figures.other_processes = self.figures.other_processes.max(cost.other_processes);
        Ok((done, cost))
    }
}
