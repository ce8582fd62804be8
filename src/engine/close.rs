//! Closes messages and steps.

use crate::domain::Timestamp;
use crate::domain::message::{IncompleteReason, Message, MessageStatus};
use crate::domain::run::Usage;
use crate::domain::run_step::{RunStep, StepStatus};

pub(super) fn end_message(message: &mut Message, at: Timestamp, reason: Option<IncompleteReason>) {
    message.status = match reason {
        None => MessageStatus::Completed,
        Some(_) => MessageStatus::Incomplete,
    };
    message.incomplete_reason = reason;
    message.ended_at = Some(at);
}

pub(super) fn end_step(step: &mut RunStep, at: Timestamp, status: StepStatus, usage: Usage) {
    step.status = status;
    step.ended_at = Some(at);
    step.usage = Some(usage);
}
