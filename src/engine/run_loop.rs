//! One run, from the moment a worker has it until it leaves the worker's hands.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::domain::Timestamp;
use crate::domain::event::RunEvent;
use crate::domain::ids::{FileId, MessageId};
use crate::domain::run::{
    Run, RunError, RunErrorCode, RunIncompleteReason, RunState, RunStatus, Usage,
};
use crate::domain::run_step::{RunStep, StepDetails};
use crate::domain::tool::ToolCall;
use crate::domain::usage::Amounts;
use crate::engine::active_runs::Registration;
use crate::engine::annotate::Annotator;
use crate::engine::event_log;
use crate::engine::history::PictureError;
use crate::engine::prompt::{self, Asked, Prompt, PromptError};
use crate::engine::release;
use crate::engine::shared::Shared;
use crate::engine::stop::StopSignal;
use crate::engine::tools::code_interpreter::definition as code_interpreter;
use crate::engine::tools::code_interpreter::workspace::Workspace;
use crate::engine::tools::file_search::execution::Library;
use crate::engine::turn::{Turn, TurnEnd};
use crate::events::dispatch::Assignment;
use crate::events::feed::Publisher;
use crate::models::{FailureCode, UpstreamError, tokens};
use crate::store::lease::Lease;
use crate::store::run_queue::{Claimed, Origin};
use crate::store::{self, StoreError};

/// How often a run is taken up again after its worker was lost, before it is given up.
const MAX_RECOVERIES: i32 = 5;

/// Model turns of one run; a model that calls tools for ever must end before the run expires.
const MAX_TURNS: usize = 100;

/// How often a prompt is cut further when the upstream says that it is too long.
const MAX_CUTS: usize = 6;

/// A run in a worker's hands.
pub(super) struct Driver {
    pub(super) engine: Arc<Shared>,
    pub(super) lease: Lease,
    pub(super) run: Run,
    pub(super) publisher: Publisher,
    pub(super) clock: Clock,
    /// Tokens spent by the steps that are committed.
    pub(super) spent: Usage,
    /// That much of it as is in the project's usage.
    pub(super) billed: Usage,
    /// What was used besides, and is not in the project's usage yet.
    pub(super) used: Amounts,
    /// Model turns that called tools.
    pub(super) turns: usize,
    /// The message of the turn under way, once it is stored: text comes before calls. A turn that
    /// is done again because its worker was lost has said that already.
    pub(super) said: Option<MessageId>,
    /// Pictures for the head of the next message.
    pub(super) images: Vec<FileId>,
    /// The stored step whose built-in tools an earlier attempt did not finish.
    pub(super) unanswered: Option<RunStep>,
    /// The thread's `/mnt/data`, if code_interpreter is offered.
    pub(super) workspace: Option<Workspace>,
    /// What may be searched and cited, if file_search is offered.
    pub(super) library: Option<Library>,
    /// Whether this is the first attempt, and no model was asked yet.
    is_unasked: bool,
    interrupts: watch::Receiver<Option<StopSignal>>,
}

/// Why a run does not simply go on.
#[derive(Debug)]
pub(super) enum Halt {
    /// Told to stop.
    Interrupted(StopSignal),
    /// The database is away. The run is released, for whoever can reach it again.
    Unavailable,
    /// It cannot be done.
    Failed(RunError),
    /// A budget is spent.
    Incomplete(RunIncompleteReason),
}

impl Halt {
    /// A failure of ours. The cause goes to the log.
    pub(super) fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error.cause = %cause, "the run fails with an internal error: {cause}");
        Self::Failed(internal_error())
    }
}

/// What clients are told of a failure of ours.
pub(super) fn internal_error() -> RunError {
    RunError {
        code: RunErrorCode::ServerError,
        message: "Sorry, something went wrong.".into(),
    }
}

impl From<UpstreamError> for Halt {
    fn from(error: UpstreamError) -> Self {
        let code = match error.failure_code() {
            FailureCode::RateLimitExceeded => RunErrorCode::RateLimitExceeded,
            FailureCode::ServerError => RunErrorCode::ServerError,
            FailureCode::InvalidPrompt => RunErrorCode::InvalidPrompt,
        };
        Self::Failed(RunError {
            code,
            message: error.message(),
        })
    }
}

impl From<PictureError> for Halt {
    fn from(error: PictureError) -> Self {
        match error {
            PictureError::TooLarge(_) => Self::Failed(RunError {
                code: RunErrorCode::InvalidPrompt,
                message: error.to_string(),
            }),
            PictureError::Blob(error) => Self::internal(&error),
        }
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => Self::Interrupted(StopSignal::LeaseLost),
            error if error.is_transient() => {
                tracing::warn!(error.cause = %error, "the database is not available: {error}");
                Self::Unavailable
            }
            error => Self::internal(&error),
        }
    }
}

/// Drives a run to its end, or until it has to wait for the caller.
pub(super) async fn drive(
    engine: Arc<Shared>,
    job: Assignment,
    (registered, interrupts): (Registration, watch::Receiver<Option<StopSignal>>),
) {
    let Assignment {
        claimed,
        publisher,
        permit,
        dispatch,
    } = job;
    let Claimed { lease, run, origin } = claimed;
    drop(dispatch);
    let deps = &engine.deps;
    let begun = run
        .state
        .started_at
        .filter(|_| run.state.status == RunStatus::InProgress);
    let begun = match begun {
        Some(at) => Ok(at),
        None => store::database_time(&deps.pool).await,
    };
    match begun {
        Ok(at) => {
            let mut driver = Driver {
                engine: engine.clone(),
                lease: lease.clone(),
                run,
                publisher,
                clock: Clock {
                    base: at,
                    at: Instant::now(),
                    last: at,
                },
                spent: Usage::default(),
                billed: Usage::default(),
                used: Amounts::default(),
                turns: 0,
                said: None,
                images: Vec::new(),
                unanswered: None,
                workspace: None,
                library: None,
                is_unasked: origin == Origin::Created,
                interrupts,
            };
            driver.drive(origin).await;
        }
        Err(error) => {
            tracing::warn!(error.cause = %error, "could not start the run: {error}");
            release::when_available(&engine, &lease, || None, || *interrupts.borrow()).await;
        }
    }
    drop(registered);
    drop(permit);
}

impl Driver {
    async fn drive(&mut self, origin: Origin) {
        let mut turn = Turn::default();
        let halt = match self.begin(origin).await {
            Ok(()) => self.turns(&mut turn).await,
            Err(halt) => Err(halt),
        };
        let ended = match halt {
            Ok(()) => Ok(()),
            Err(halt) => self.halt(turn, halt).await,
        };
        let Err(halt) = ended else {
            return;
        };
        let (engine, lease) = (&self.engine, &self.lease);
        match halt {
            Halt::Interrupted(StopSignal::LeaseLost) => {
                tracing::warn!("run {}: lease lost or run deleted; stopping", self.run.id);
            }
            Halt::Interrupted(StopSignal::Drain) => {
                event_log::write_now(engine, self.publisher.unlogged()).await;
                release::now(engine, lease).await;
            }
            Halt::Unavailable => {
                let unlogged = || self.publisher.unlogged();
                release::when_available(engine, lease, unlogged, || self.interrupted()).await;
            }
            Halt::Interrupted(StopSignal::Cancel | StopSignal::Expire)
            | Halt::Failed(_)
            | Halt::Incomplete(_) => {
                event_log::write_now(engine, self.publisher.unlogged()).await;
                release::exhausted(engine, lease, MAX_RECOVERIES).await;
            }
        }
    }

    /// Announces the run, as far as readers have not heard of it yet.
    async fn begin(&mut self, origin: Origin) -> Result<(), Halt> {
        let state = self.run.state.clone();
        let queued = |started_at| {
            let status = RunStatus::Queued;
            Box::new(RunState {
                status,
                started_at,
                ..state.clone()
            })
        };
        if origin != Origin::Created {
            self.recall().await?;
        }
        match origin {
            Origin::Created => {
                let waited = self.clock.now() - self.run.created_at;
                metrics::histogram!("assistd_queue_wait_seconds").record(waited.as_seconds_f64());
                self.publisher.publish([
                    RunEvent::RunCreated(queued(None)),
                    RunEvent::RunChanged(queued(None)),
                ]);
            }
            Origin::Submitted { started_at } => {
                // Published at once, so that the log never holds the first without the second.
                let step = self.last_tool_calls().await?;
                let answered = step.map(|step| RunEvent::StepEnded(Box::new(step)));
                let queued = RunEvent::RunChanged(queued(started_at));
                self.publisher.publish(answered.into_iter().chain([queued]));
            }
            Origin::Recovered(times) => {
                self.announce_again().await?;
                if times > MAX_RECOVERIES {
                    return Err(Halt::Failed(RunError {
                        code: RunErrorCode::ServerError,
                        message: "The run was interrupted too often.".into(),
                    }));
                }
            }
        }
        match state.status {
            RunStatus::InProgress => {
                self.publisher
                    .publish([RunEvent::RunChanged(Box::new(state))]);
                Ok(())
            }
            RunStatus::Cancelling => Err(Halt::Interrupted(StopSignal::Cancel)),
            // Claimed in any other status, it is past its time.
            RunStatus::Queued
            | RunStatus::RequiresAction
            | RunStatus::Cancelled
            | RunStatus::Failed
            | RunStatus::Completed
            | RunStatus::Incomplete
            | RunStatus::Expired => Err(Halt::Interrupted(StopSignal::Expire)),
        }
    }

    /// What earlier attempts spent and said.
    async fn recall(&mut self) -> Result<(), Halt> {
        for step in store::run_steps::of_run(&self.engine.deps.pool, &self.run.id).await? {
            if let Some(usage) = step.usage {
                self.spent += usage;
            }
            self.said = match &step.details {
                StepDetails::MessageCreation { message } => {
                    self.images.clear();
                    Some(message.clone())
                }
                StepDetails::ToolCalls { calls } => {
                    self.turns += 1;
                    self.images
                        .extend(calls.iter().flat_map(ToolCall::images).cloned());
                    None
                }
            };
            self.unanswered = Some(step).filter(RunStep::awaits_built_in_tools);
        }
        self.billed = self.spent;
        Ok(())
    }

    pub(super) async fn last_tool_calls(&self) -> Result<Option<RunStep>, Halt> {
        let steps = store::run_steps::of_run(&self.engine.deps.pool, &self.run.id).await?;
        let called = |step: &RunStep| matches!(step.details, StepDetails::ToolCalls { .. });
        Ok(steps.into_iter().rev().find(called))
    }

    /// Turn after turn, until the run ends or waits for the caller.
    async fn turns(&mut self, turn: &mut Turn) -> Result<(), Halt> {
        if code_interpreter::is_offered(&self.run.config) {
            let workspace = Workspace::load(&self.engine.deps.pool, &self.run).await?;
            self.workspace = Some(workspace);
        }
        self.open_library().await?;
        if let Some(step) = self.unanswered.take() {
            turn.running = Some(step);
            if !self.run_built_in_tools(turn).await? {
                return Ok(());
            }
        }
        while self.turns <= MAX_TURNS {
            *turn = Turn::default();
            let links = self.workspace.as_ref().map(Workspace::links);
            let passages = self.library.as_ref().map(Library::passages);
            turn.annotator = Annotator::new(links.unwrap_or_default(), passages);
            match self.turn(turn).await? {
                TurnEnd::Finished => return self.complete(turn).await,
                TurnEnd::OutOfTokens => {
                    return Err(Halt::Incomplete(RunIncompleteReason::MaxCompletionTokens));
                }
                TurnEnd::Filtered => {
                    return Err(Halt::Incomplete(RunIncompleteReason::ContentFilter));
                }
                TurnEnd::WantsTools => {
                    if !self.call_tools(turn).await? {
                        return Ok(());
                    }
                }
            }
        }
        Err(Halt::Failed(RunError {
            code: RunErrorCode::ServerError,
            message: format!("The model called tools {MAX_TURNS} times without coming to an end."),
        }))
    }

    /// One model turn, with a shorter prompt if the upstream finds it too long.
    async fn turn(&mut self, turn: &mut Turn) -> Result<TurnEnd, Halt> {
        let mut budget = self.prompt_budget()?;
        for cut in 0.. {
            let error = match self.try_turn(turn, budget).await? {
                Ok(end) => return Ok(end),
                Err(error) => error,
            };
            let UpstreamError::ContextLength { limit, .. } = &error else {
                return Err(error.into());
            };
            if cut >= MAX_CUTS || turn.has_begun() {
                return Err(error.into());
            }
            // The window it names, less room for the answer; or half of what it refused.
            let named = limit.filter(|_| cut == 0).map(|limit| limit - limit / 4);
            let refused = self.count_prompt(budget).await?;
            budget = Some(named.unwrap_or(u32::MAX).min(refused / 4 * 3));
            tracing::info!(
                prompt.tokens = budget,
                "the upstream wants a shorter prompt"
            );
        }
        Err(Halt::internal(&"no turn was tried"))
    }

    /// Tokens that the prompt may take, by the run's budget and the model's window.
    pub(super) fn prompt_budget(&self) -> Result<Option<u32>, Halt> {
        let config = &*self.run.config;
        let left = match config.max_prompt_tokens {
            None => None,
            Some(max) => Some(
                max.checked_sub(self.spent.prompt)
                    .filter(|left| *left > 0)
                    .ok_or(Halt::Incomplete(RunIncompleteReason::MaxPromptTokens))?,
            ),
        };
        let window = self
            .engine
            .deps
            .upstreams
            .route(&config.model)
            .context_window;
        let window = window.map(|window| {
            let answer = config
                .max_completion_tokens
                .unwrap_or(window / 4)
                .min(window / 2);
            window - answer
        });
        Ok(match (left, window) {
            (Some(left), Some(window)) => Some(left.min(window)),
            (left, window) => left.or(window),
        })
    }

    fn completion_budget(&self) -> Result<Option<u32>, Halt> {
        let Some(max) = self.run.config.max_completion_tokens else {
            return Ok(None);
        };
        max.checked_sub(self.spent.completion)
            .filter(|left| *left > 0)
            .map(Some)
            .ok_or(Halt::Incomplete(RunIncompleteReason::MaxCompletionTokens))
    }

    async fn try_turn(
        &mut self,
        turn: &mut Turn,
        budget: Option<u32>,
    ) -> Result<Result<TurnEnd, UpstreamError>, Halt> {
        let completion = self.completion_budget()?;
        let deps = self.engine.deps.clone();
        let prompt = self.prompt(budget, completion).await;
        let prompt = match prompt {
            Ok(prompt) => prompt,
            Err(PromptError::TooLong(_)) if self.run.config.max_prompt_tokens.is_some() => {
                return Err(Halt::Incomplete(RunIncompleteReason::MaxPromptTokens));
            }
            Err(PromptError::TooLong(budget)) => {
                return Err(Halt::Failed(RunError {
                    code: RunErrorCode::InvalidPrompt,
                    message: format!(
                        "The newest message and what belongs to it do not fit the {budget} tokens \
                         that the model can take."
                    ),
                }));
            }
            Err(PromptError::Store(error)) => return Err(error.into()),
            Err(PromptError::Picture(error)) => return Err(error.into()),
        };
        // What comes later waited for a model before, or for a worker that was lost.
        if mem::take(&mut self.is_unasked) {
            let waited = self.clock.now() - self.run.created_at;
            metrics::histogram!("assistd_added_first_token_seconds")
                .record(waited.as_seconds_f64().max(0.0));
        }
        turn.budget = budget;
        let answer = self
            .interruptible(deps.upstreams.turn(prompt.request))
            .await?;
        match answer {
            Ok(answer) => self.read(turn, answer).await,
            Err(error) => Ok(Err(error)),
        }
    }

    async fn prompt(
        &self,
        budget: Option<u32>,
        completion: Option<u32>,
    ) -> Result<Prompt, PromptError> {
        let deps = &self.engine.deps;
        let asked = Asked {
            run: &self.run,
            said: self.said.as_ref(),
            workspace: self.workspace.as_ref(),
            turn: self.turns,
            completion,
            picture_bytes: deps.prompt_picture_bytes,
        };
        prompt::build(&deps.pool, &deps.blobs, asked, budget).await
    }

    /// Tokens of the prompt, counted by rebuilding it: needed only when an upstream does not tell.
    pub(super) async fn count_prompt(&mut self, budget: Option<u32>) -> Result<u32, Halt> {
        let model = &self.run.config.model;
        let prompt = self.prompt(budget, None).await;
        let prompt = match prompt {
            Ok(prompt) => prompt,
            Err(PromptError::TooLong(budget)) => return Ok(budget),
            Err(PromptError::Store(error)) => return Err(error.into()),
            Err(PromptError::Picture(error)) => return Err(error.into()),
        };
        let request =
            serde_json::to_value(&prompt.request).map_err(|error| Halt::internal(&error))?;
        tokens::ready(model).await;
        Ok(tokens::count_request(model, &request))
    }

    /// What the driver was told, if anything.
    pub(super) fn interrupted(&self) -> Option<StopSignal> {
        *self.interrupts.borrow()
    }

    /// Waits for something that may take long, unless the run is to stop.
    pub(super) async fn interruptible<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Halt> {
        let left = self.run.state.expires_at - self.clock.now();
        let left = left.to_std().unwrap_or_default();
        let told = async {
            match self.interrupts.wait_for(Option::is_some).await {
                Ok(interrupt) => interrupt.unwrap_or(StopSignal::Drain),
                Err(_) => StopSignal::Drain,
            }
        };
        tokio::select! {
            biased;
            interrupt = told => Err(Halt::Interrupted(interrupt)),
            done = work => Ok(done),
            () = sleep(left) => Err(Halt::Interrupted(StopSignal::Expire)),
        }
    }
}

/// The database's time, carried on by this process: what a worker writes is dated by one clock,
/// and no two things it writes have the same date.
#[derive(Debug)]
pub(super) struct Clock {
    base: Timestamp,
    at: Instant,
    last: Timestamp,
}

impl Clock {
    /// A time later than all that were told before.
    pub(super) fn now(&mut self) -> Timestamp {
        let elapsed = i64::try_from(self.at.elapsed().as_micros()).unwrap_or(i64::MAX);
        let now = self.base + chrono::TimeDelta::microseconds(elapsed);
        self.last = now.max(self.last + chrono::TimeDelta::microseconds(1));
        self.last
    }
}
