//! What a driver commits, each in one statement: objects, the run's status, and the events that
//! tell of them.

use crate::domain::event::RunEvent;
use crate::domain::ids;
use crate::domain::message::Message;
use crate::domain::run::{RunOutcome, RunState, RunStatus, Usage};
use crate::domain::run_step::{RunStep, StepDetails, StepStatus};
use crate::domain::tool::{Tool, ToolCall, ToolCallBody};
use crate::domain::usage::{Amounts, UsageEntry};
use crate::engine::release;
use crate::engine::run_loop::{Driver, Halt};
use crate::engine::stop::StopSignal;
use crate::engine::turn::{Turn, end_message};
use crate::store::run_queue::Changes;
use crate::store::{self, StoreError};

/// What a write is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extent {
    /// The changes.
    Changes,
    /// The changes, which end the run, and the steps that it has left in progress.
    OpenSteps,
}

impl Driver {
    /// Commits objects and status with the events that announce them, then shows the events.
    pub(super) async fn commit(
        &mut self,
        steps: Vec<&RunStep>,
        messages: Vec<&Message>,
        state: Option<RunState>,
        events: Vec<RunEvent>,
    ) -> Result<(), Halt> {
        let ends = state
            .as_ref()
            .is_some_and(|state| state.status.is_terminal());
        let changes = Changes {
            steps,
            messages,
            state: state.as_ref(),
            events: self.publisher.segment(&events)?,
            used: self.unbilled(ends),
        };
        self.persist(&changes, Extent::Changes).await?;
        self.committed(state, events);
        Ok(())
    }

    /// Writes changes. While the database is away this waits for it, until the run expires: what
    /// the model wrote is worth it. Another worker may take the run meanwhile; then this one has
    /// lost it.
    pub(super) async fn persist(
        &mut self,
        changes: &Changes<'_>,
        extent: Extent,
    ) -> Result<(), Halt> {
        let engine = self.engine.clone();
        let (pool, claimant) = (&engine.deps.pool, &engine.claimant);
        let mut failures = 0;
        loop {
            let written = match extent {
                Extent::Changes => {
                    store::run_queue::commit(pool, claimant, &self.lease, changes).await
                }
                Extent::OpenSteps => {
                    store::run_queue::abort(pool, claimant, &self.lease, changes).await
                }
            };
            match written {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() => {
                    tracing::warn!(error.cause = %error, "a commit waits for the database: {error}");
                    tokio::time::sleep(release::pause(failures)).await;
                    failures += 1;
                    if self.is_draining() {
                        return Err(Halt::Interrupted(StopSignal::Drain));
                    }
                    if self.clock.now() > self.run.state.expires_at {
                        return Err(Halt::Unavailable);
                    }
                }
                // The answer to an earlier attempt was lost, but not the commit itself.
                Err(StoreError::LeaseLost | StoreError::Constraint(_))
                    if failures > 0 && self.has_committed(changes).await? =>
                {
                    return Ok(());
                }
                Err(StoreError::LeaseLost) => return Err(self.why_refused().await?),
                Err(error) => return Err(Halt::internal(&error)),
            }
        }
    }

    /// Takes note of what was committed, and shows the events.
    pub(super) fn committed(&mut self, state: Option<RunState>, events: Vec<RunEvent>) {
        if let Some(state) = state {
            self.run.state = state;
        }
        self.billed = self.spent;
        self.used = Amounts::default();
        self.publisher.publish_logged(events);
    }

    /// What was used since the last commit, for the next one; with `ends`, the run is over.
    pub(super) fn unbilled(&mut self, ends: bool) -> Option<UsageEntry> {
        let (spent, billed) = (self.spent, self.billed);
        let amounts = Amounts {
            runs: ends.into(),
            // Each turn that has cost something comes with a commit of its own.
            model_calls: (spent != billed).into(),
            prompt_tokens: i64::from(spent.prompt) - i64::from(billed.prompt),
            completion_tokens: i64::from(spent.completion) - i64::from(billed.completion),
            ..self.used
        };
        (amounts != Amounts::default()).then(|| UsageEntry {
            id: ids::hex32(),
            at: self.clock.now(),
            model: self.run.config.model.clone(),
            amounts,
        })
    }

    /// Whether what could not be written again is written already.
    async fn has_committed(&self, changes: &Changes<'_>) -> Result<bool, Halt> {
        let standing =
            store::run_queue::status_under_lease(&self.engine.deps.pool, &self.lease).await?;
        Ok(match changes.state {
            Some(state) => standing == Some(state.status),
            None => matches!(
                standing,
                Some(RunStatus::InProgress | RunStatus::Cancelling)
            ),
        })
    }

    /// Why a write was refused: a client cancelled just now, or the lease is lost.
    async fn why_refused(&self) -> Result<Halt, Halt> {
        let standing =
            store::run_queue::status_under_lease(&self.engine.deps.pool, &self.lease).await?;
        Ok(Halt::Interrupted(match standing {
            Some(RunStatus::Cancelling) => StopSignal::Cancel,
            _ => StopSignal::LeaseLost,
        }))
    }

    /// The state that ends the run.
    pub(super) fn ended(&mut self, status: RunStatus, outcome: RunOutcome) -> RunState {
        RunState {
            status,
            ended_at: Some(self.clock.now()),
            outcome: RunOutcome {
                usage: Some(self.spent),
                ..outcome
            },
            ..self.run.state.clone()
        }
    }

    /// The model has said all: its message, the step and the run are complete.
    pub(super) async fn complete(&mut self, turn: &mut Turn) -> Result<(), Halt> {
        let usage = turn.usage.unwrap_or_default();
        let mut events = Vec::new();
        // Without a message, an earlier attempt has stored it.
        let mut ended = turn.message.clone();
        if let Some((step, message)) = &mut ended {
            end_message(message, self.clock.now(), None);
            self.end_step(step, StepStatus::Completed, usage);
            events.push(RunEvent::MessageEnded(Box::new(message.clone())));
            events.push(RunEvent::StepEnded(Box::new(step.clone())));
        }
        let (steps, messages) = ended.iter().map(|(step, message)| (step, message)).unzip();
        let spent = self.spent;
        self.spent += usage;
        let state = self.ended(RunStatus::Completed, RunOutcome::default());
        events.push(RunEvent::RunChanged(Box::new(state.clone())));
        if let Err(halt) = self.commit(steps, messages, Some(state), events).await {
            // Not committed, the turn is still open for whoever ends it now.
            self.spent = spent;
            return Err(halt);
        }
        count_end(RunStatus::Completed);
        Ok(())
    }

    /// Text before tool calls is a message of its own. The turn's tokens are told with the calls.
    pub(super) async fn end_message_before_calls(
        &mut self,
        mut step: RunStep,
        mut message: Message,
    ) -> Result<(), Halt> {
        end_message(&mut message, self.clock.now(), None);
        self.end_step(&mut step, StepStatus::Completed, Usage::default());
        let events = vec![
            RunEvent::MessageEnded(Box::new(message.clone())),
            RunEvent::StepEnded(Box::new(step.clone())),
        ];
        self.commit(vec![&step], vec![&message], None, events)
            .await?;
        self.said = Some(message.id);
        Ok(())
    }

    pub(super) fn end_step(&mut self, step: &mut RunStep, status: StepStatus, usage: Usage) {
        step.status = status;
        step.ended_at = Some(self.clock.now());
        step.usage = Some(usage);
    }

    /// Stores the turn's calls, runs those that are the server's, and waits for the caller if some
    /// are the caller's; when there are none of those, `true` says that the run goes on. Calls of
    /// functions that were never offered are answered here.
    pub(super) async fn call_tools(&mut self, turn: &mut Turn) -> Result<bool, Halt> {
        let Some(mut step) = turn.calls.clone() else {
            return Err(Halt::internal(&"a turn that wants tools has no calls"));
        };
        for call in calls_of(&mut step) {
            let ToolCallBody::Function(function) = &mut call.body else {
                continue;
            };
            self.used.function_calls += 1;
            if !self.offers(&function.name) {
                let name = &function.name;
                function.output = Some(format!("Error: there is no function named {name}."));
            }
        }
        let usage = turn.usage.unwrap_or_default();
        step.usage = Some(usage);
        let go_on = if step.awaits_built_in_tools() {
            let spent = self.spent;
            self.spent += usage;
            let done = self.commit(vec![&step], Vec::new(), None, Vec::new());
            if let Err(halt) = done.await {
                self.spent = spent;
                return Err(halt);
            }
            turn.usage = Some(Usage::default());
            turn.calls = None;
            turn.running = Some(step);
            self.run_built_in_tools(turn).await?
        } else {
            self.settle(step, usage).await?
        };
        self.turns += 1;
        self.said = None;
        Ok(go_on)
    }

    /// Runs the built-in tools of the stored step, each call that has no output yet, and ends the
    /// step unless the caller has to answer too; whether the run goes on.
    pub(super) async fn run_built_in_tools(&mut self, turn: &mut Turn) -> Result<bool, Halt> {
        let Some(step) = &mut turn.running else {
            return Err(Halt::internal(&"no step whose tools could run"));
        };
        let mut cells = None;
        let last = calls_of(step).iter().rposition(|call| call.is_built_in());
        for index in 0..calls_of(step).len() {
            let call = &calls_of(step)[index];
            if !call.is_built_in() || call.is_answered() {
                continue;
            }
            // In boxes, since most runs do neither, and every run would be twice as large.
            match &call.body {
                ToolCallBody::CodeInterpreter(_) => {
                    Box::pin(self.run_code(step, index, &mut cells)).await?;
                    self.used.code_calls += 1;
                }
                ToolCallBody::FileSearch(_) => {
                    Box::pin(self.search(step, index)).await?;
                    self.used.search_calls += 1;
                }
                ToolCallBody::Function(_) => {}
            }
            // What the last one did is stored with the end of the step.
            if Some(index) != last {
                self.commit(vec![step], Vec::new(), None, Vec::new())
                    .await?;
            }
        }
        let images = calls_of(step).iter().flat_map(|call| call.images());
        self.images.extend(images.cloned());
        let go_on = self.settle(step.clone(), Default::default()).await?;
        turn.running = None;
        Ok(go_on)
    }

    /// Ends a step of calls whose built-in tools have run, or leaves it to the caller to answer the
    /// rest; whether the run goes on. `usage` has not been counted yet.
    pub(super) async fn settle(&mut self, mut step: RunStep, usage: Usage) -> Result<bool, Halt> {
        let calls = calls_of(&mut step).iter();
        let awaited: Vec<ToolCall> = calls.filter(|call| !call.is_answered()).cloned().collect();
        let go_on = awaited.is_empty();
        let spent = self.spent;
        self.spent += usage;
        let done = if go_on {
            let usage = step.usage.unwrap_or_default();
            self.end_step(&mut step, StepStatus::Completed, usage);
            let events = vec![RunEvent::StepEnded(Box::new(step.clone()))];
            self.commit(vec![&step], Vec::new(), None, events).await
        } else {
            let state = RunState {
                status: RunStatus::RequiresAction,
                outcome: RunOutcome {
                    required_calls: awaited,
                    ..RunOutcome::default()
                },
                ..self.run.state.clone()
            };
            let events = vec![RunEvent::RunChanged(Box::new(state.clone()))];
            self.commit(vec![&step], Vec::new(), Some(state), events)
                .await
        };
        if let Err(halt) = done {
            self.spent = spent;
            return Err(halt);
        }
        Ok(go_on)
    }

    fn offers(&self, name: &str) -> bool {
        self.run
            .config
            .tools
            .iter()
            .any(|tool| matches!(tool, Tool::Function { function } if function.name == name))
    }
}

/// The calls of a step.
pub(super) fn calls_of(step: &mut RunStep) -> &mut [ToolCall] {
    match &mut step.details {
        StepDetails::ToolCalls { calls } => calls,
        StepDetails::MessageCreation { .. } => &mut [],
    }
}

/// Counts an ended run for `/metrics`.
pub(super) fn count_end(status: RunStatus) {
    metrics::counter!("assistd_runs_total", "status" => status.as_str()).increment(1);
}
