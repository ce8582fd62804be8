//! Run steps: what a run did, one thing after the other.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::ids::{AssistantId, MessageId, RunId, StepId, ThreadId};
use crate::domain::run::{RunError, Usage};
use crate::domain::tool::ToolCall;

/// One thing a run did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStep {
    /// Its id.
    pub id: StepId,
    /// The run it belongs to.
    pub run: RunId,
    /// The run's thread.
    pub thread: ThreadId,
    /// The run's assistant.
    pub assistant: AssistantId,
    /// When it began.
    pub created_at: Timestamp,
    /// Where it stands.
    pub status: StepStatus,
    /// When the run expires, which ends the step too.
    pub expires_at: Timestamp,
    /// When it ended; `None` while in progress.
    pub ended_at: Option<Timestamp>,
    /// Why it failed, if it did.
    pub last_error: Option<RunError>,
    /// What it is.
    pub details: StepDetails,
    /// Tokens of the model turn behind it; `None` until known.
    pub usage: Option<Usage>,
}

impl RunStep {
    /// Whether the server runs some of its calls, and is not done with them.
    pub fn awaits_built_in_tools(&self) -> bool {
        match &self.details {
            StepDetails::MessageCreation { .. } => false,
            StepDetails::ToolCalls { calls } => {
                self.status == StepStatus::InProgress && calls.iter().any(ToolCall::is_built_in)
            }
        }
    }
}

/// What a step is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StepDetails {
    /// It writes a message.
    MessageCreation {
        /// The message.
        message: MessageId,
    },
    /// It calls tools: all the calls of one model turn.
    ToolCalls {
        /// The calls, in the model's order.
        calls: Vec<ToolCall>,
    },
}

/// The status of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum StepStatus {
    /// Under way, or waiting for the caller's tool outputs.
    InProgress,
    /// Stopped with its run.
    Cancelled,
    /// Failed with its run.
    Failed,
    /// Done.
    Completed,
    /// Out of time with its run.
    Expired,
}
