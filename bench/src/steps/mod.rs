//! The steps of the benchmark. Each puts one kind of load on one server and gives figures.

mod code;
mod failures;
mod objects;
mod runs;
mod streams;

use crate::BenchError;
use crate::load::Bound;
use crate::meter::Cost;
use crate::meter::Meter;
use crate::subject::Subject;
use crate::subject::Upstream;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// How much of everything a sitting does.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How long rates are measured.
    pub(crate) stretch: Duration,
    /// How often short steps are repeated; the median counts.
    pub(crate) rounds: usize,
    /// Operations where each is timed by itself.
    pub(crate) singles: usize,
    /// Streams one after the other where there is one at a time.
    pub(crate) lone_streams: usize,
    /// Waves of streams where there are many.
    pub(crate) waves: usize,
    /// Messages put into the table for the step with a full table.
    pub(crate) table_messages: i32,
    /// Tokens of each of the thousand streams.
    pub(crate) thousand_tokens: u64,
    /// Cells where each is the first of its session.
    pub(crate) cells: usize,
    /// Jupyter kernels beside them, one at a time.
    pub(crate) kernels: usize,
    /// Wait for the database's lagging counters, for what comes of a crash, for fifty kernels, and
    /// for vector stores of any size.
    pub(crate) thorough: bool,
}

impl Plan {
    /// Less than three minutes, and two for vector stores.
    pub(crate) fn quick() -> Self {
        Self {
            stretch: Duration::from_millis(1_500),
            rounds: 1,
            singles: 100,
            lone_streams: 2,
            waves: 1,
            table_messages: 100_000,
            thousand_tokens: 40,
            cells: 40,
            kernels: 3,
            thorough: false,
        }
    }

    /// Less than half an hour, and one more for vector stores.
    pub(crate) fn full() -> Self {
        Self {
            stretch: Duration::from_secs(3),
            rounds: 3,
            singles: 300,
            lone_streams: 8,
            waves: 2,
            table_messages: 1_000_000,
            thousand_tokens: 100,
            cells: 240,
            kernels: 24,
            thorough: true,
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
    PausedDatabase,
    FullTable,
    Restart,
    Crash,
}

impl Step {
    /// All steps, in the order in which they are taken.
    pub(crate) const ALL: [Self; 24] = [
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
        Self::PausedDatabase,
        Self::FullTable,
        Self::Restart,
        Self::Crash,
    ];

    /// How often the step is repeated on each server.
    pub(crate) fn rounds(self, plan: &Plan) -> usize {
        match self {
            Self::CreateThread(_)
            | Self::AddMessage(_)
            | Self::ListMessages(_)
            | Self::RunAlone
            | Self::Flow(_)
            | Self::ToolLoop(_)
            | Self::Streams(2..) => plan.rounds,
            Self::WarmUp
            | Self::Commits
            | Self::CodeRun
            | Self::Streams(_)
            | Self::LongThread
            | Self::ThousandStreams
            | Self::PausedDatabase
            | Self::FullTable
            | Self::Restart
            | Self::Crash => 1,
        }
    }

    /// Whether the step asks for something that the null server does not have.
    pub(crate) fn needs_database(self) -> bool {
        match self {
            Self::Commits
            | Self::CodeRun
            | Self::PausedDatabase
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
            | Self::ThousandStreams => false,
        }
    }

    /// Puts the step's load on a server.
    pub(crate) async fn take(
        self,
        plan: &Plan,
        upstream: &Upstream,
        subject: &mut Subject,
    ) -> Result<Figures, BenchError> {
        let mut taking = Taking {
            plan,
            upstream,
            subject,
            figures: Figures::default(),
        };
        match self {
            Self::WarmUp => taking.warm_up().await?,
            Self::CreateThread(callers) => taking.create_thread(callers).await?,
            Self::AddMessage(callers) => taking.add_message(callers).await?,
            Self::ListMessages(callers) => taking.list_messages(callers).await?,
            Self::FullTable => taking.full_table().await?,
            Self::RunAlone => taking.run_alone().await?,
            Self::Commits => taking.commits().await?,
            Self::Flow(callers) => taking.flow(callers).await?,
            Self::ToolLoop(callers) => taking.tool_loop(callers).await?,
            Self::CodeRun => taking.code_run().await?,
            Self::LongThread => taking.long_thread().await?,
            Self::Streams(streams) => taking.streams(streams).await?,
            Self::ThousandStreams => taking.thousand_streams().await?,
            Self::PausedDatabase => taking.paused_database().await?,
            Self::Restart => taking.restart().await?,
            Self::Crash => taking.crash().await?,
        }
        Ok(taking.figures)
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
            Self::PausedDatabase => write!(f, "pause"),
            Self::FullTable => write!(f, "full-table"),
            Self::Restart => write!(f, "restart"),
            Self::Crash => write!(f, "crash"),
        }
    }
}

/// What a step found: figures by name, such as `flow.16.rate`.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) values: Vec<(String, f64)>,
    /// Cores that others kept busy meanwhile, at worst.
    pub(crate) strangers: f64,
}

/// A step while it is taken.
struct Taking<'a> {
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

impl Taking<'_> {
    fn put(&mut self, name: impl Into<String>, value: f64) {
        self.figures.put(name, value);
    }

    /// Does some work and says what it cost.
    async fn metered<T>(
        &mut self,
        work: impl Future<Output = Result<T, BenchError>>,
    ) -> Result<(T, Cost), BenchError> {
        let meter = Meter::start(self.subject, self.upstream)?;
        let done = work.await?;
        let cost = meter.stop(self.subject, self.upstream)?;
        self.figures.strangers = self.figures.strangers.max(cost.strangers);
        Ok((done, cost))
    }
}
