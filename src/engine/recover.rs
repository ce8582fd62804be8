//! Continues the event stream of a run whose lease was lost.

use crate::domain::event::{RunEvent, Seq};
use crate::domain::message::IncompleteReason;
use crate::domain::run::{RunState, RunStatus, Usage};
use crate::domain::run_step::StepStatus;
use crate::engine::close::{end_message, end_step};
use crate::engine::progress::Progress;
use crate::engine::session::Session;
use crate::engine::stop::StopReason;
use crate::engine::turn::replay::OpenObjects;
use crate::store;

/// Publishes what is missing in the event log of a recovered run, and closes the message and the
/// step that its earlier worker had begun. Those were never stored, and the turn is repeated.
pub(super) async fn replay_missing_events(
    session: &mut Session,
    progress: &Progress,
) -> Result<(), StopReason> {
    let pool = &session.shared.deps.pool;
    let logged = store::run_events::after(pool, &session.run.id, Seq::START).await?;
    let last_status = logged
        .iter()
        .rev()
        .find_map(|(_, event)| event.run_status());
    let mut events = Vec::new();
    match last_status {
        None => events.extend(created(&session.run.state)),
        Some(RunStatus::RequiresAction) => {
            // Outputs were submitted, unless the run was stopped while it waited for them.
            let step = session.last_tool_calls().await?;
            let answered = step.filter(|step| step.status == StepStatus::Completed);
            if let Some(step) = answered {
                let started_at = session.run.state.started_at;
                events.push(RunEvent::StepEnded(Box::new(step)));
                events.push(queued(&session.run.state, started_at));
            }
        }
        Some(_) => {
            let logged = logged.into_iter().map(|(_, event)| event);
            events.extend(close_orphaned(session, progress, logged));
        }
    }
    session.publisher.publish(events);
    Ok(())
}

pub(super) fn created(state: &RunState) -> [RunEvent; 2] {
    let state = RunState {
        status: RunStatus::Queued,
        started_at: None,
        ..state.clone()
    };
    [
        RunEvent::RunCreated(Box::new(state.clone())),
        RunEvent::RunChanged(Box::new(state)),
    ]
}

pub(super) fn queued(state: &RunState, started_at: Option<crate::domain::Timestamp>) -> RunEvent {
    RunEvent::RunChanged(Box::new(RunState {
        status: RunStatus::Queued,
        started_at,
        ..state.clone()
    }))
}

fn close_orphaned(
    session: &mut Session,
    progress: &Progress,
    logged: impl Iterator<Item = RunEvent>,
) -> Vec<RunEvent> {
    let OpenObjects { messages, step } = OpenObjects::after(logged);
    let mut events = Vec::new();
    for mut message in messages.into_values() {
        let reason = IncompleteReason::RunFailed;
        end_message(&mut message, session.clock.now(), Some(reason));
        events.push(RunEvent::MessageEnded(Box::new(message)));
    }
    // A stored step is continued.
    let unfinished = progress.unfinished_step.as_ref().map(|step| &step.id);
    if let Some(mut step) = step.filter(|step| unfinished != Some(&step.id)) {
        let usage = Usage::default();
        end_step(&mut step, session.clock.now(), StepStatus::Failed, usage);
        events.push(RunEvent::StepEnded(Box::new(step)));
    }
    events
}
