//! Reconstructs open messages and steps from the events that readers have seen.

use std::collections::BTreeMap;

use crate::domain::event::RunEvent;
use crate::domain::ids::MessageId;
use crate::domain::message::Message;
use crate::domain::run::RunStatus;
use crate::domain::run_step::{RunStep, StepDetails};
use crate::engine::turn::delta::{append_content, apply_call_delta};

#[derive(Debug, Default)]
pub(in crate::engine) struct OpenObjects {
    pub(in crate::engine) messages: BTreeMap<MessageId, Message>,
    pub(in crate::engine) step: Option<RunStep>,
}

impl OpenObjects {
    pub(in crate::engine) fn after(events: impl IntoIterator<Item = RunEvent>) -> Self {
        let mut open = Self::default();
        for event in events {
            open.apply(event);
        }
        open
    }

    fn apply(&mut self, event: RunEvent) {
        match event {
            RunEvent::StepCreated(step) => self.step = Some(*step),
            RunEvent::StepDelta { index, delta, .. } => {
                if let Some(RunStep {
                    details: StepDetails::ToolCalls { calls },
                    ..
                }) = &mut self.step
                {
                    apply_call_delta(calls, index, delta);
                }
            }
            RunEvent::StepEnded(_) => self.step = None,
            // A step of calls is stored by the time the run waits for its outputs.
            RunEvent::RunChanged(state) if state.status == RunStatus::RequiresAction => {
                self.step = None;
            }
            RunEvent::MessageCreated(message) => {
                self.messages.insert(message.id.clone(), *message);
            }
            RunEvent::MessageDelta { message, delta, .. } => {
                if let Some(message) = self.messages.get_mut(&message) {
                    append_content(&mut message.content, delta);
                }
            }
            RunEvent::MessageEnded(message) => {
                self.messages.remove(&message.id);
            }
            RunEvent::RunCreated(_)
            | RunEvent::RunChanged(_)
            | RunEvent::StepInProgress(_)
            | RunEvent::MessageInProgress(_) => {}
        }
    }
}
