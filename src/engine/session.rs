//! What one attempt at a run holds, and the only way in which a worker writes.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::domain::event::RunEvent;
use crate::domain::message::Message;
use crate::domain::run::{Run, RunOutcome, RunState, RunStatus, Usage};
use crate::domain::run_step::{RunStep, StepDetails};
use crate::engine::clock::Clock;
use crate::engine::release;
use crate::engine::shared::Shared;
use crate::engine::stop::{StopReason, StopSignal};
use crate::engine::usage_meter::UsageMeter;
use crate::events::feed::Publisher;
use crate::store::lease::Lease;
use crate::store::run_queue::Changes;
use crate::store::{self, StoreError};

pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) lease: Lease,
    pub(super) run: Run,
    pub(super) publisher: Publisher,
    pub(super) clock: Clock,
    pub(super) usage: UsageMeter,
    pub(super) stop_signal: watch::Receiver<Option<StopSignal>>,
}

/// Objects and the run's status, to be written with the events that announce them.
#[derive(Debug, Default)]
pub(super) struct Commit<'a> {
    pub(super) steps: Vec<&'a RunStep>,
    pub(super) messages: Vec<&'a Message>,
    /// The run's new status. `None` leaves the run `in_progress` under its lease.
    pub(super) state: Option<RunState>,
    pub(super) events: Vec<RunEvent>,
    pub(super) tokens: Usage,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Statement {
    Commit,
    /// A commit that terminates the run, and every step that is still in progress.
    Abort,
}

impl Session {
    pub(super) fn stop_signal(&self) -> Option<StopSignal> {
        *self.stop_signal.borrow()
    }

    pub(super) async fn until_stopped<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, StopReason> {
        let time_left = self.run.state.expires_at - self.clock.now();
        let time_left = time_left.to_std().unwrap_or_default();
        let signal = async {
            match self.stop_signal.wait_for(Option::is_some).await {
                Ok(signal) => signal.unwrap_or(StopSignal::Drain),
                Err(_) => StopSignal::Drain,
            }
        };
        tokio::select! {
            biased;
            signal = signal => Err(StopReason::Signalled(signal)),
            output = work => Ok(output),
            () = sleep(time_left) => Err(StopReason::Signalled(StopSignal::Expire)),
        }
    }

    pub(super) async fn commit(&mut self, commit: Commit<'_>) -> Result<(), StopReason> {
        let Commit {
            steps,
            messages,
            state,
            events,
            tokens,
        } = commit;
        let is_terminal = state
            .as_ref()
            .is_some_and(|state| state.status.is_terminal());
        let changes = Changes {
            steps,
            messages,
            state: state.as_ref(),
            events: self.publisher.segment(&events)?,
            used: self
                .usage
                .entry(tokens, is_terminal, &self.run.config.model, || {
                    self.clock.now()
                }),
        };
        self.persist(&changes, Statement::Commit).await?;
        self.committed(state, events, tokens);
        Ok(())
    }

    /// While the database is not available this waits for it until the run expires, so that nothing
    /// that the model wrote is lost. If another worker claims the run meanwhile, the lease is lost.
    pub(super) async fn persist(
        &mut self,
        changes: &Changes<'_>,
        statement: Statement,
    ) -> Result<(), StopReason> {
        if changes.state.is_some() {
            self.publisher.drop_copy();
        }
        let _committing = self.publisher.committing();
        let shared = self.shared.clone();
        let (pool, claimant) = (&shared.deps.pool, &shared.claimant);
        let mut failures = 0;
        loop {
            let written = match statement {
                Statement::Commit => {
                    store::run_queue::commit(pool, claimant, &self.lease, changes).await
                }
                Statement::Abort => {
                    store::run_queue::abort(pool, claimant, &self.lease, changes).await
                }
            };
            match written {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() => {
                    let run = &self.run.id;
                    tracing::warn!(
                        run.id = %run,
                        error.cause = %error,
                        "run {run}: a commit waits for the database: {error}"
                    );
                    sleep(release::backoff(failures)).await;
                    failures += 1;
                    if self.stop_signal() == Some(StopSignal::Drain) {
                        return Err(StopReason::Signalled(StopSignal::Drain));
                    }
                    if self.clock.now() > self.run.state.expires_at {
                        return Err(StopReason::Unavailable(error));
                    }
                }
                // An earlier try may have committed, and only its response was lost.
                Err(StoreError::LeaseLost | StoreError::Constraint(_))
                    if failures > 0 && self.has_committed(changes).await? =>
                {
                    return Ok(());
                }
                Err(StoreError::LeaseLost) => return Err(self.refusal().await?),
                Err(error) => return Err(StopReason::internal(error)),
            }
        }
    }

    pub(super) fn committed(
        &mut self,
        state: Option<RunState>,
        events: Vec<RunEvent>,
        tokens: Usage,
    ) {
        if let Some(state) = state {
            self.run.state = state;
        }
        self.usage.charge(tokens);
        self.publisher.publish_logged(events);
    }

    async fn has_committed(&self, changes: &Changes<'_>) -> Result<bool, StopReason> {
        let status =
            store::run_queue::status_under_lease(&self.shared.deps.pool, &self.lease).await?;
        Ok(match changes.state {
            Some(state) => status == Some(state.status),
            None => matches!(status, Some(RunStatus::InProgress | RunStatus::Cancelling)),
        })
    }

    /// Why a commit found no row to update: the run was cancelled, or the lease is lost.
    async fn refusal(&self) -> Result<StopReason, StopReason> {
        let status =
            store::run_queue::status_under_lease(&self.shared.deps.pool, &self.lease).await?;
        Ok(StopReason::Signalled(match status {
            Some(RunStatus::Cancelling) => StopSignal::Cancel,
            _ => StopSignal::LeaseLost,
        }))
    }

    /// The state that terminates the run, with `tokens` in its usage that are not charged yet.
    pub(super) fn terminal_state(
        &mut self,
        status: RunStatus,
        outcome: RunOutcome,
        tokens: Usage,
    ) -> RunState {
        RunState {
            status,
            ended_at: Some(self.clock.now()),
            outcome: RunOutcome {
                usage: Some(self.usage.tokens_with(tokens)),
                ..outcome
            },
            ..self.run.state.clone()
        }
    }

    pub(super) async fn last_tool_calls(&self) -> Result<Option<RunStep>, StopReason> {
        let steps = store::run_steps::list_all(&self.shared.deps.pool, &self.run.id).await?;
        let calls_tools = |step: &RunStep| matches!(step.details, StepDetails::ToolCalls { .. });
        Ok(steps.into_iter().rev().find(calls_tools))
    }
}
