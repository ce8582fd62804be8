//! Runs that end otherwise than by completing, and what is left open then.

use std::collections::HashMap;

use crate::domain::event::{RunEvent, Seq, ToolCallDelta};
use crate::domain::ids::MessageId;
use crate::domain::message::{IncompleteReason, Message};
use crate::domain::run::{RunIncompleteReason, RunOutcome, RunState, RunStatus, Usage};
use crate::domain::run_step::{RunStep, StepDetails, StepStatus};
use crate::domain::tool::{CodeCall, CodeOutput, FunctionCall, SearchCall, ToolCall, ToolCallBody};
use crate::engine::event_log;
use crate::engine::run_loop::{Driver, Halt, internal_error};
use crate::engine::session::{Extent, count_end};
use crate::engine::stop::StopSignal;
use crate::engine::turn::{Turn, append, end_message};
use crate::store;
use crate::store::run_queue::Changes;

/// How an ending run's open parts end.
struct Ending {
    status: RunStatus,
    step: StepStatus,
    message: IncompleteReason,
    outcome: RunOutcome,
}

impl Ending {
    fn of(halt: Halt) -> Result<Self, Halt> {
        let outcome = RunOutcome::default();
        Ok(match halt {
            Halt::Interrupted(StopSignal::Cancel) => Self {
                status: RunStatus::Cancelled,
                step: StepStatus::Cancelled,
                message: IncompleteReason::RunCancelled,
                outcome,
            },
            Halt::Interrupted(StopSignal::Expire) => Self {
                status: RunStatus::Expired,
                step: StepStatus::Expired,
                message: IncompleteReason::RunExpired,
                outcome,
            },
            Halt::Interrupted(StopSignal::LeaseLost | StopSignal::Drain) | Halt::Unavailable => {
                return Err(halt);
            }
            Halt::Failed(error) => Self {
                status: RunStatus::Failed,
                step: StepStatus::Failed,
                message: IncompleteReason::RunFailed,
                outcome: RunOutcome {
                    last_error: Some(error),
                    ..outcome
                },
            },
            Halt::Incomplete(reason) => Self {
                status: RunStatus::Incomplete,
                // The step did its work; it is the message that is cut off.
                step: StepStatus::Completed,
                message: match reason {
                    RunIncompleteReason::ContentFilter => IncompleteReason::ContentFilter,
                    RunIncompleteReason::MaxPromptTokens
                    | RunIncompleteReason::MaxCompletionTokens => IncompleteReason::MaxTokens,
                },
                outcome: RunOutcome {
                    incomplete_reason: Some(reason),
                    ..outcome
                },
            },
        })
    }
}

impl Driver {
    /// Ends the run, with everything that is still open, in one commit.
    pub(super) async fn halt(&mut self, mut turn: Turn, halt: Halt) -> Result<(), Halt> {
        // Claimed while it is queued or waits for the caller, a run is past its time.
        let is_waiting = matches!(
            self.run.state.status,
            RunStatus::Queued | RunStatus::RequiresAction
        );
        let mut ending = Ending::of(match halt {
            Halt::Failed(_) if is_waiting => Halt::Interrupted(StopSignal::Expire),
            halt => halt,
        })?;
        self.flush(&mut turn);
        loop {
            match self.end(&turn, &ending).await {
                // Cancelled while it was ending otherwise.
                Err(halt @ Halt::Interrupted(StopSignal::Cancel)) => ending = Ending::of(halt)?,
                Err(Halt::Failed(_)) => return self.abort(&turn, ending).await,
                done => return done,
            }
        }
    }

    /// Ends the run without anything that it produced since the last commit, because the database
    /// refuses its end otherwise. Another attempt would produce the same.
    async fn abort(&mut self, turn: &Turn, ending: Ending) -> Result<(), Halt> {
        let ending = match ending.status {
            RunStatus::Cancelled | RunStatus::Expired => ending,
            _ => Ending::of(Halt::Failed(internal_error()))?,
        };
        // What the log does take of the run's beginning is not to be lost with its end.
        event_log::write_now(&self.engine, self.publisher.unlogged()).await;
        // Whoever follows the run here has seen these begin.
        let mut events = Vec::new();
        if let Some((step, message)) = &turn.message {
            let mut message = message.clone();
            end_message(&mut message, self.clock.now(), Some(ending.message));
            events.push(RunEvent::MessageEnded(Box::new(message)));
            let step = self.ended_step(step.clone(), &ending, Usage::default());
            events.push(RunEvent::StepEnded(Box::new(step)));
        }
        if let Some(step) = turn.calls.as_ref().or(turn.running.as_ref()) {
            let usage = step.usage.unwrap_or_default();
            let step = self.ended_step(step.clone(), &ending, usage);
            events.push(RunEvent::StepEnded(Box::new(step)));
        }
        self.spent += turn.usage.unwrap_or_default();
        let state = self.ended(ending.status, ending.outcome);
        events.push(RunEvent::RunChanged(Box::new(state.clone())));
        let told = Changes {
            state: Some(&state),
            events: self.publisher.last_segment(&events)?,
            used: self.unbilled(true),
            ..Changes::default()
        };
        let bare = Changes {
            state: Some(&state),
            ..Changes::default()
        };
        let mut aborted = self.persist(&told, Extent::OpenSteps).await;
        if let Err(Halt::Failed(_)) = aborted {
            aborted = self.persist(&bare, Extent::Changes).await;
        }
        aborted?;
        self.committed(Some(state), events);
        count_end(ending.status);
        Ok(())
    }

    async fn end(&mut self, turn: &Turn, ending: &Ending) -> Result<(), Halt> {
        if ending.status == RunStatus::Cancelled {
            let outcome = RunOutcome::default();
            let status = RunStatus::Cancelling;
            let state = RunState {
                status,
                outcome,
                ..self.run.state.clone()
            };
            self.publisher
                .publish([RunEvent::RunChanged(Box::new(state))]);
        }
        let usage = match turn.usage {
            Some(usage) => usage,
            None if turn.has_begun() => self.count(turn).await?,
            None => Usage::default(),
        };
        let mut messages = Vec::new();
        let mut steps = Vec::new();
        let mut events = Vec::new();
        if let Some((step, message)) = &turn.message {
            let mut message = message.clone();
            end_message(&mut message, self.clock.now(), Some(ending.message));
            events.push(RunEvent::MessageEnded(Box::new(message.clone())));
            messages.push(message);
            steps.push(self.ended_step(step.clone(), ending, usage));
        }
        if let Some(step) = &turn.calls {
            steps.push(self.ended_step(step.clone(), ending, usage));
        } else if let Some(step) = &turn.running {
            let usage = step.usage.unwrap_or_default();
            steps.push(self.ended_step(step.clone(), ending, usage));
        } else if turn.message.is_none() {
            // The step that waited for the caller, if the run did.
            let waiting = self.last_tool_calls().await?;
            let waiting = waiting.filter(|step| step.status == StepStatus::InProgress);
            if let Some(step) = waiting {
                let usage = step.usage.unwrap_or_default();
                steps.push(self.ended_step(step, ending, usage));
            }
        }
        events.extend(
            steps
                .iter()
                .map(|step| RunEvent::StepEnded(Box::new(step.clone()))),
        );
        let spent = self.spent;
        self.spent += usage;
        let state = self.ended(ending.status, ending.outcome.clone());
        events.push(RunEvent::RunChanged(Box::new(state.clone())));
        let done = self.commit(
            steps.iter().collect(),
            messages.iter().collect(),
            Some(state),
            events,
        );
        if let Err(halt) = done.await {
            self.spent = spent;
            return Err(halt);
        }
        count_end(ending.status);
        Ok(())
    }

    fn ended_step(&mut self, mut step: RunStep, ending: &Ending, usage: Usage) -> RunStep {
        self.end_step(&mut step, ending.step, usage);
        step.last_error.clone_from(&ending.outcome.last_error);
        step
    }

    /// For a run whose worker was lost: tells readers of the log what they have not heard, and
    /// closes the message and step that the worker had begun. Those were never stored; the turn
    /// is done again from its beginning.
    pub(super) async fn announce_again(&mut self) -> Result<(), Halt> {
        let pool = &self.engine.deps.pool;
        let heard = store::run_events::after(pool, &self.run.id, Seq::START).await?;
        let queued = |started_at| {
            let status = RunStatus::Queued;
            Box::new(RunState {
                status,
                started_at,
                ..self.run.state.clone()
            })
        };
        let last_status = heard.iter().rev().find_map(|(_, event)| event.run_status());
        let mut events = Vec::new();
        match last_status {
            None => {
                events.push(RunEvent::RunCreated(queued(None)));
                events.push(RunEvent::RunChanged(queued(None)));
            }
            Some(RunStatus::RequiresAction) => {
                // The caller has answered, unless the run was ended while it waited.
                let step = self.last_tool_calls().await?;
                let answered = step.filter(|step| step.status == StepStatus::Completed);
                if let Some(step) = answered {
                    events.push(RunEvent::StepEnded(Box::new(step)));
                    events.push(RunEvent::RunChanged(queued(self.run.state.started_at)));
                }
            }
            Some(_) => events.extend(self.close_begun(heard.into_iter().map(|(_, event)| event))),
        }
        self.publisher.publish(events);
        Ok(())
    }

    /// The events that close what was begun and never ended.
    fn close_begun(&mut self, heard: impl Iterator<Item = RunEvent>) -> Vec<RunEvent> {
        let mut messages: HashMap<MessageId, Message> = HashMap::new();
        let mut step: Option<RunStep> = None;
        for event in heard {
            match event {
                RunEvent::StepCreated(created) => step = Some(*created),
                RunEvent::StepDelta { index, delta, .. } => {
                    if let Some(step) = &mut step {
                        follow(step, index, delta);
                    }
                }
                RunEvent::StepEnded(_) => step = None,
                // A step of calls is stored by the time the run waits for the caller.
                RunEvent::RunChanged(state) if state.status == RunStatus::RequiresAction => {
                    step = None;
                }
                RunEvent::MessageCreated(message) => {
                    messages.insert(message.id.clone(), *message);
                }
                RunEvent::MessageDelta { message, delta, .. } => {
                    if let Some(message) = messages.get_mut(&message) {
                        append(&mut message.content, delta);
                    }
                }
                RunEvent::MessageEnded(message) => {
                    messages.remove(&message.id);
                }
                RunEvent::RunCreated(_)
                | RunEvent::RunChanged(_)
                | RunEvent::StepInProgress(_)
                | RunEvent::MessageInProgress(_) => {}
            }
        }
        let mut events = Vec::new();
        for mut message in messages.into_values() {
            end_message(
                &mut message,
                self.clock.now(),
                Some(IncompleteReason::RunFailed),
            );
            events.push(RunEvent::MessageEnded(Box::new(message)));
        }
        // A stored step goes on.
        let step =
            step.filter(|step| self.unanswered.as_ref().map(|one| &one.id) != Some(&step.id));
        if let Some(mut step) = step {
            self.end_step(&mut step, StepStatus::Failed, Usage::default());
            events.push(RunEvent::StepEnded(Box::new(step)));
        }
        events
    }

    /// Whether this process is about to stop.
    pub(super) fn is_draining(&self) -> bool {
        self.interrupted() == Some(StopSignal::Drain)
    }
}

/// Adds to a step what a delta has told of its calls.
fn follow(step: &mut RunStep, index: usize, delta: ToolCallDelta) {
    let StepDetails::ToolCalls { calls } = &mut step.details else {
        return;
    };
    let (id, body) = match delta {
        ToolCallDelta::FunctionBegan { id, name } => {
            let call = FunctionCall {
                name,
                arguments: String::new(),
                output: None,
            };
            (id, ToolCallBody::Function(call))
        }
        ToolCallDelta::SearchBegan {
            id,
            ranker,
            score_threshold,
        } => {
            let call = SearchCall {
                arguments: String::new(),
                ranker,
                score_threshold,
                place: 0,
                results: None,
            };
            (id, ToolCallBody::FileSearch(call))
        }
        ToolCallDelta::CodeBegan { id } => (id, ToolCallBody::CodeInterpreter(CodeCall::default())),
        more => {
            if let Some(call) = calls.get_mut(index) {
                follow_call(&mut call.body, more);
            }
            return;
        }
    };
    calls.push(ToolCall { id, body });
}

fn follow_call(body: &mut ToolCallBody, delta: ToolCallDelta) {
    match (body, delta) {
        (ToolCallBody::Function(call), ToolCallDelta::FunctionArguments(more)) => {
            call.arguments.push_str(&more);
        }
        (ToolCallBody::CodeInterpreter(call), ToolCallDelta::CodeInput(more)) => {
            call.input.push_str(&more);
        }
        (ToolCallBody::CodeInterpreter(call), ToolCallDelta::CodeLogs { output, logs }) => {
            let outputs = call.outputs.get_or_insert_default();
            match outputs.get_mut(output) {
                Some(CodeOutput::Logs(text)) => text.push_str(&logs),
                _ => outputs.push(CodeOutput::Logs(logs)),
            }
        }
        (ToolCallBody::CodeInterpreter(call), ToolCallDelta::CodeImage { file, .. }) => {
            let outputs = call.outputs.get_or_insert_default();
            outputs.push(CodeOutput::Image(file));
        }
        // A call has deltas of its own kind only.
        _ => {}
    }
}
