//! Run steps.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::ids::{AssistantId, MessageId, RunId, StepId, ThreadId};
use crate::domain::run::{RunError, Usage};
use crate::domain::tool::ToolCall;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStep {
    pub id: StepId,
    pub run: RunId,
    pub thread: ThreadId,
    pub assistant: AssistantId,
    pub created_at: Timestamp,
    pub status: StepStatus,
    /// When the run expires, and the step with it.
    pub expires_at: Timestamp,
    /// `None` while in progress.
    pub ended_at: Option<Timestamp>,
    pub last_error: Option<RunError>,
    pub details: StepDetails,
    /// Tokens of the turn that created the step; `None` until the upstream has reported them.
    pub usage: Option<Usage>,
}

impl RunStep {
    pub fn calls(&self) -> &[ToolCall] {
        match &self.details {
            StepDetails::ToolCalls { calls } => calls,
            StepDetails::MessageCreation { .. } => &[],
        }
    }

    pub fn calls_mut(&mut self) -> &mut [ToolCall] {
        match &mut self.details {
            StepDetails::ToolCalls { calls } => calls,
            StepDetails::MessageCreation { .. } => &mut [],
        }
    }

    /// Whether the step has calls of built-in tools that are not finished.
    pub fn awaits_built_in_tools(&self) -> bool {
        match &self.details {
            StepDetails::MessageCreation { .. } => false,
            StepDetails::ToolCalls { calls } => {
                self.status == StepStatus::InProgress && calls.iter().any(ToolCall::is_built_in)
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StepDetails {
    /// The step writes a message.
    MessageCreation { message: MessageId },
    /// The step holds all tool calls of one turn.
    ToolCalls {
        /// In the order of the model.
        calls: Vec<ToolCall>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum StepStatus {
    /// Being executed, or waiting for the client's tool outputs.
    InProgress,
    Cancelled,
    Failed,
    Completed,
    Expired,
}
