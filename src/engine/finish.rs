//! Commits the end of a run, however it ends.

use crate::domain::event::RunEvent;
use crate::domain::message::{IncompleteReason, Message};
use crate::domain::run::{RunIncompleteReason, RunOutcome, RunState, RunStatus, Usage};
use crate::domain::run_step::{RunStep, StepStatus};
use crate::engine::close::{end_message, end_step};
use crate::engine::event_log;
use crate::engine::session::{Commit, Session, Statement};
use crate::engine::stop::{StopReason, StopSignal, internal_error, sandbox_error};
use crate::store::run_queue::Changes;

#[derive(Debug, Default)]
pub(super) struct OpenParts {
    pub(super) message: Option<(RunStep, Message)>,
    /// The step of the calls being written or executed. It has its usage if it is stored.
    pub(super) calls: Option<RunStep>,
    pub(super) tokens: Usage,
}

#[derive(Debug)]
struct Termination {
    status: RunStatus,
    step: StepStatus,
    message: IncompleteReason,
    outcome: RunOutcome,
}

impl Termination {
    /// The reason is the error if the run does not end with it, but is continued by another worker.
    fn from_reason(reason: StopReason) -> Result<Self, StopReason> {
        let failed = |error| Self {
            status: RunStatus::Failed,
            step: StepStatus::Failed,
            message: IncompleteReason::RunFailed,
            outcome: RunOutcome {
                last_error: Some(error),
                ..RunOutcome::default()
            },
        };
        Ok(match reason {
            StopReason::Signalled(StopSignal::Cancel) => Self {
                status: RunStatus::Cancelled,
                step: StepStatus::Cancelled,
                message: IncompleteReason::RunCancelled,
                outcome: RunOutcome::default(),
            },
            StopReason::Signalled(StopSignal::Expire) => Self {
                status: RunStatus::Expired,
                step: StepStatus::Expired,
                message: IncompleteReason::RunExpired,
                outcome: RunOutcome::default(),
            },
            StopReason::Signalled(StopSignal::LeaseLost | StopSignal::Drain)
            | StopReason::Unavailable(_) => return Err(reason),
            StopReason::Failed(error) => failed(error),
            StopReason::Internal(_) => failed(internal_error()),
            StopReason::Sandbox(error) => failed(sandbox_error(&error)),
            StopReason::Incomplete(reason) => Self {
                status: RunStatus::Incomplete,
                step: StepStatus::Completed,
                message: match reason {
                    RunIncompleteReason::ContentFilter => IncompleteReason::ContentFilter,
                    RunIncompleteReason::MaxPromptTokens
                    | RunIncompleteReason::MaxCompletionTokens => IncompleteReason::MaxTokens,
                },
                outcome: RunOutcome {
                    incomplete_reason: Some(reason),
                    ..RunOutcome::default()
                },
            },
        })
    }

    fn end_step(&self, session: &mut Session, step: &RunStep, usage: Usage) -> RunStep {
        let mut step = step.clone();
        end_step(&mut step, session.clock.now(), self.step, usage);
        step.last_error.clone_from(&self.outcome.last_error);
        step
    }

    fn end_message(&self, session: &mut Session, message: &Message) -> Message {
        let mut message = message.clone();
        end_message(&mut message, session.clock.now(), Some(self.message));
        message
    }
}

/// Writes everything in one commit. Without a message, an earlier attempt has stored it.
pub(super) async fn complete(
    session: &mut Session,
    message: Option<(RunStep, Message)>,
    tokens: Usage,
) -> Result<(), StopReason> {
    let mut events = Vec::new();
    let mut completed = message;
    if let Some((step, message)) = &mut completed {
        end_message(message, session.clock.now(), None);
        end_step(step, session.clock.now(), StepStatus::Completed, tokens);
        events.push(RunEvent::MessageEnded(Box::new(message.clone())));
        events.push(RunEvent::StepEnded(Box::new(step.clone())));
    }
    let (steps, messages) = completed
        .iter()
        .map(|(step, message)| (step, message))
        .unzip();
    let state = session.terminal_state(RunStatus::Completed, RunOutcome::default(), tokens);
    events.push(RunEvent::RunChanged(Box::new(state.clone())));
    let commit = Commit {
        steps,
        messages,
        state: Some(state),
        events,
        tokens,
    };
    session.commit(commit).await?;
    count_run(RunStatus::Completed);
    Ok(())
}

/// Terminates a run with everything that is still open, in one commit. The error is why it could
/// not.
pub(super) async fn terminate(
    session: &mut Session,
    open: &OpenParts,
    reason: StopReason,
) -> Result<(), StopReason> {
    // A run that is claimed while it is queued or waits for outputs has expired.
    let is_waiting = matches!(
        session.run.state.status,
        RunStatus::Queued | RunStatus::RequiresAction
    );
    let mut termination = Termination::from_reason(if is_waiting && reason.is_failure() {
        StopReason::Signalled(StopSignal::Expire)
    } else {
        reason
    })?;
    loop {
        match commit_termination(session, open, &termination).await {
            // Cancelled while another termination was being committed.
            Err(reason @ StopReason::Signalled(StopSignal::Cancel)) => {
                termination = Termination::from_reason(reason)?;
            }
            Err(reason) if reason.is_failure() => {
                reason.log(&session.run.id);
                return abort(session, open, termination).await;
            }
            terminated => return terminated,
        }
    }
}

async fn commit_termination(
    session: &mut Session,
    open: &OpenParts,
    termination: &Termination,
) -> Result<(), StopReason> {
    if termination.status == RunStatus::Cancelled {
        let cancelling = RunState {
            status: RunStatus::Cancelling,
            outcome: RunOutcome::default(),
            ..session.run.state.clone()
        };
        session
            .publisher
            .publish([RunEvent::RunChanged(Box::new(cancelling))]);
    }
    let tokens = open.tokens;
    let mut messages = Vec::new();
    let mut steps = Vec::new();
    if let Some((step, message)) = &open.message {
        messages.push(termination.end_message(session, message));
        steps.push(termination.end_step(session, step, tokens));
    }
    if let Some(step) = &open.calls {
        let usage = step.usage.unwrap_or(tokens);
        steps.push(termination.end_step(session, step, usage));
    } else if open.message.is_none() {
        let step = session.last_tool_calls().await?;
        if let Some(step) = step.filter(|step| step.status == StepStatus::InProgress) {
            let usage = step.usage.unwrap_or_default();
            steps.push(termination.end_step(session, &step, usage));
        }
    }
    let outcome = termination.outcome.clone();
    let state = session.terminal_state(termination.status, outcome, tokens);
    let events = ended_events(&messages, &steps, &state);
    let commit = Commit {
        steps: steps.iter().collect(),
        messages: messages.iter().collect(),
        state: Some(state),
        events,
        tokens,
    };
    session.commit(commit).await?;
    count_run(termination.status);
    Ok(())
}

/// Terminates the run without anything that it produced since its last commit, because the
/// database refuses that. Another attempt would produce the same.
async fn abort(
    session: &mut Session,
    open: &OpenParts,
    termination: Termination,
) -> Result<(), StopReason> {
    let termination = match termination.status {
        RunStatus::Cancelled | RunStatus::Expired => termination,
        _ => Termination::from_reason(StopReason::Failed(internal_error()))?,
    };
    // The log keeps those earlier events that the database does accept.
    event_log::write(&session.shared, session.publisher.unlogged()).await;
    // Readers of the live feed have seen these objects begin, so they see them end.
    let mut messages = Vec::new();
    let mut steps = Vec::new();
    if let Some((step, message)) = &open.message {
        messages.push(termination.end_message(session, message));
        steps.push(termination.end_step(session, step, Usage::default()));
    }
    if let Some(step) = &open.calls {
        let usage = step.usage.unwrap_or_default();
        steps.push(termination.end_step(session, step, usage));
    }
    let tokens = open.tokens;
    let state = session.terminal_state(termination.status, termination.outcome, tokens);
    let events = ended_events(&messages, &steps, &state);
    let charged = Changes {
        state: Some(&state),
        events: session.publisher.last_segment(&events)?,
        used: session
            .usage
            .entry(tokens, true, &session.run.config.model, || {
                session.clock.now()
            }),
        ..Changes::default()
    };
    let status_only = Changes {
        state: Some(&state),
        ..Changes::default()
    };
    match session.persist(&charged, Statement::Abort).await {
        Err(reason) if reason.is_failure() => {
            reason.log(&session.run.id);
            session.persist(&status_only, Statement::Commit).await?;
        }
        aborted => aborted?,
    }
    session.committed(Some(state), events, tokens);
    count_run(termination.status);
    Ok(())
}

fn ended_events(messages: &[Message], steps: &[RunStep], state: &RunState) -> Vec<RunEvent> {
    let messages = messages
        .iter()
        .map(|message| RunEvent::MessageEnded(Box::new(message.clone())));
    let steps = steps
        .iter()
        .map(|step| RunEvent::StepEnded(Box::new(step.clone())));
    let run = RunEvent::RunChanged(Box::new(state.clone()));
    messages.chain(steps).chain([run]).collect()
}

fn count_run(status: RunStatus) {
    metrics::counter!("assistd_runs_total", "status" => status.as_str()).increment(1);
}
