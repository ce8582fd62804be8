//! Executes one run: turn after turn, until the run ends or waits for the caller.

use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::event::RunEvent;
use crate::domain::run::{RunIncompleteReason, RunStatus};
use crate::domain::run_step::RunStep;
use crate::domain::tool::ToolCall;
use crate::engine::active_runs::Registration;
use crate::engine::clock::Clock;
use crate::engine::event_log;
use crate::engine::finish::{self, OpenParts};
use crate::engine::model_call::{CallContext, ModelCall};
use crate::engine::progress::{Progress, load_progress};
use crate::engine::recover;
use crate::engine::release;
use crate::engine::session::{Commit, Session};
use crate::engine::shared::Shared;
use crate::engine::stop::{StopReason, StopSignal};
use crate::engine::tools::{self, AfterCalls, Tools};
use crate::engine::turn::{Turn, TurnEnd, TurnInput};
use crate::engine::usage_meter::UsageMeter;
use crate::events::dispatch::Assignment;
use crate::store;
use crate::store::run_queue::{Claimed, Origin};

const MAX_RECOVERIES: i32 = 5;

/// Most turns of one run that call tools. Ends runs whose model never stops calling.
const MAX_TURNS: usize = 100;

pub(super) async fn execute(
    shared: Arc<Shared>,
    assignment: Assignment,
    (registration, stop_signal): (Registration, watch::Receiver<Option<StopSignal>>),
) {
    let Assignment {
        claimed,
        publisher,
        permit,
        dispatch,
    } = assignment;
    let Claimed { lease, run, origin } = claimed;
    // The run is registered as active, which now protects it from being taken for an orphan.
    drop(dispatch);
    let started_at = run
        .state
        .started_at
        .filter(|_| run.state.status == RunStatus::InProgress);
    let now = match started_at {
        Some(at) => Ok(at),
        None => store::database_time(&shared.deps.pool).await,
    };
    match now {
        Ok(now) => {
            let session = Session {
                shared,
                lease,
                run,
                publisher,
                clock: Clock::new(now),
                usage: UsageMeter::default(),
                stop_signal,
            };
            RunLoop::new(session).execute(origin).await;
        }
        Err(error) => {
            let run = &run.id;
            tracing::warn!(
                run.id = %run,
                error.cause = %error,
                "could not start run {run}; releasing it when the database is available: {error}"
            );
            release::when_available(&shared, &lease, || None, || *stop_signal.borrow()).await;
        }
    }
    drop(registration);
    drop(permit);
}

struct RunLoop {
    session: Session,
    progress: Progress,
    tools: Tools,
    /// The model call of the current turn, until its calls are stored.
    call: Option<ModelCall>,
    running_step: Option<RunStep>,
}

impl RunLoop {
    fn new(session: Session) -> Self {
        Self {
            session,
            progress: Progress::default(),
            tools: Tools::default(),
            call: None,
            running_step: None,
        }
    }

    async fn execute(mut self, origin: Origin) {
        let executed = match self.begin(origin).await {
            Ok(()) => self.run_turns().await,
            Err(reason) => Err(reason),
        };
        let Err(reason) = executed else {
            return;
        };
        reason.log(&self.session.run.id);
        if let Err(reason) = self.terminate(reason).await {
            self.release(&reason).await;
        }
    }

    async fn begin(&mut self, origin: Origin) -> Result<(), StopReason> {
        if origin != Origin::Created {
            self.progress = load_progress(&mut self.session).await?;
        }
        let session = &mut self.session;
        let state = session.run.state.clone();
        match origin {
            Origin::Created => {
                let waited = session.clock.now() - session.run.created_at;
                metrics::histogram!("assistd_queue_wait_seconds").record(waited.as_seconds_f64());
                session.publisher.publish(recover::created(&state));
            }
            Origin::Submitted { started_at } => {
                // Published together, so that the log never holds the first event without the second.
                let step = session.last_tool_calls().await?;
                let answered = step.map(|step| RunEvent::StepEnded(Box::new(step)));
                let queued = recover::queued(&state, started_at);
                let events = answered.into_iter().chain([queued]);
                session.publisher.publish(events);
            }
            Origin::Recovered(recoveries) => {
                recover::replay_missing_events(session, &self.progress).await?;
                if recoveries > MAX_RECOVERIES {
                    let message = "The run was interrupted too often.";
                    return Err(StopReason::server_error(message));
                }
            }
        }
        match state.status {
            RunStatus::InProgress => {
                let in_progress = RunEvent::RunChanged(Box::new(state));
                self.session.publisher.publish([in_progress]);
                Ok(())
            }
            RunStatus::Cancelling => Err(StopReason::Signalled(StopSignal::Cancel)),
            // A run is claimed in any other status only if it has expired.
            RunStatus::Queued
            | RunStatus::RequiresAction
            | RunStatus::Cancelled
            | RunStatus::Failed
            | RunStatus::Completed
            | RunStatus::Incomplete
            | RunStatus::Expired => Err(StopReason::Signalled(StopSignal::Expire)),
        }
    }

    async fn run_turns(&mut self) -> Result<(), StopReason> {
        let is_start = self.progress.turns == 0;
        self.tools = Tools::load(&mut self.session, is_start).await?;
        if let Some(step) = self.progress.unfinished_step.take() {
            self.running_step = Some(step);
            if self.run_built_in_tools().await? == AfterCalls::RequiresAction {
                return Ok(());
            }
        }
        while self.progress.turns <= MAX_TURNS {
            match self.call_model().await? {
                TurnEnd::Finished => return self.complete().await,
                TurnEnd::OutOfTokens => {
                    let reason = RunIncompleteReason::MaxCompletionTokens;
                    return Err(StopReason::Incomplete(reason));
                }
                TurnEnd::Filtered => {
                    return Err(StopReason::Incomplete(RunIncompleteReason::ContentFilter));
                }
                TurnEnd::CallsTools => {
                    if self.call_tools().await? == AfterCalls::RequiresAction {
                        return Ok(());
                    }
                }
            }
        }
        Err(StopReason::server_error(format!(
            "The model called tools {MAX_TURNS} times without coming to an end."
        )))
    }

    async fn call_model(&mut self) -> Result<TurnEnd, StopReason> {
        let input = TurnInput {
            annotator: self.tools.annotator(),
            committed_message: self.progress.committed_message.take(),
            images: std::mem::take(&mut self.progress.images),
            next_search: self.tools.next_search(),
        };
        let turn = Turn::new(&self.session.run, input);
        let call = self.call.insert(ModelCall::new(turn));
        let mut context = CallContext {
            session: &mut self.session,
            progress: &mut self.progress,
            workspace: self.tools.workspace.as_ref(),
        };
        call.run(&mut context).await
    }

    async fn complete(&mut self) -> Result<(), StopReason> {
        let Some(call) = &self.call else {
            return Err(StopReason::internal("no model call to complete"));
        };
        let message = call.turn.open_message().cloned();
        let tokens = call.turn.usage().unwrap_or_default();
        finish::complete(&mut self.session, message, tokens).await
    }

    /// Stores the turn's calls, and runs those of built-in tools. The calls are stored before
    /// anything else happens to them: after a recovery they are not made again.
    async fn call_tools(&mut self) -> Result<AfterCalls, StopReason> {
        let session = &mut self.session;
        let Some((call, mut step)) = self
            .call
            .as_ref()
            .and_then(|call| Some((call, call.turn.open_calls()?)))
        else {
            return Err(StopReason::internal("the turn has no calls to run"));
        };
        let tokens = call.turn.usage().unwrap_or_default();
        let images = call.turn.images().to_vec();
        tools::answer_unknown_functions(session, &mut step);
        step.usage = Some(tokens);
        let is_stored_first = step.awaits_built_in_tools();
        let after = if is_stored_first {
            let commit = Commit {
                steps: vec![&step],
                tokens,
                ..Commit::default()
            };
            session.commit(commit).await?;
            None
        } else {
            Some(tools::finish_step(session, step.clone(), tokens).await?)
        };
        self.call = None;
        self.progress.images = images;
        self.progress.turns += 1;
        match after {
            Some(after) => Ok(after),
            None => {
                self.running_step = Some(step);
                self.run_built_in_tools().await
            }
        }
    }

    async fn run_built_in_tools(&mut self) -> Result<AfterCalls, StopReason> {
        let Some(step) = &mut self.running_step else {
            return Err(StopReason::internal("no step whose tools could run"));
        };
        self.tools.run_calls(&mut self.session, step).await?;
        let images = step.calls().iter().flat_map(ToolCall::images);
        self.progress.images.extend(images.cloned());
        let tokens = Default::default();
        let after = tools::finish_step(&mut self.session, step.clone(), tokens).await?;
        self.running_step = None;
        Ok(after)
    }

    /// Ends the run with everything that is still open, unless another worker is to continue it.
    /// The error is why the run has not ended.
    async fn terminate(&mut self, reason: StopReason) -> Result<(), StopReason> {
        if reason.leaves_run_open() {
            return Err(reason);
        }
        let open = match &mut self.call {
            Some(call) => {
                self.session.publisher.publish(call.turn.flush());
                let mut context = CallContext {
                    session: &mut self.session,
                    progress: &mut self.progress,
                    workspace: self.tools.workspace.as_ref(),
                };
                match call.open_parts(&mut context).await {
                    Err(reason) if reason.is_failure() => {
                        reason.log(&self.session.run.id);
                        call.open_parts_without_tokens()
                    }
                    open => open?,
                }
            }
            None => OpenParts {
                calls: self.running_step.clone(),
                ..OpenParts::default()
            },
        };
        let terminated = finish::terminate(&mut self.session, &open, reason).await;
        if let Err(reason) = &terminated {
            reason.log(&self.session.run.id);
        }
        terminated
    }

    async fn release(&self, reason: &StopReason) {
        let session = &self.session;
        session.publisher.drop_copy();
        let (shared, lease) = (&session.shared, &session.lease);
        let unlogged = || session.publisher.unlogged();
        match reason {
            StopReason::Signalled(StopSignal::LeaseLost) => {}
            StopReason::Signalled(StopSignal::Drain) => {
                event_log::write(shared, unlogged()).await;
                release::immediately(shared, lease).await;
            }
            StopReason::Unavailable(_) => {
                let stop_signal = || session.stop_signal();
                release::when_available(shared, lease, unlogged, stop_signal).await;
            }
            StopReason::Signalled(StopSignal::Cancel | StopSignal::Expire)
            | StopReason::Failed(_)
            | StopReason::Internal(_)
            | StopReason::Sandbox(_)
            | StopReason::Incomplete(_) => {
                event_log::write(shared, unlogged()).await;
                release::exhausted(shared, lease, MAX_RECOVERIES).await;
            }
        }
    }
}
