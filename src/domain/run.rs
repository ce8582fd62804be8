//! Runs: settings, state, and the table of status transitions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::ids::{AssistantId, ProjectId, RunId, ThreadId};
use crate::domain::tool::{Tool, ToolCall, ToolChoice};
use crate::domain::{Metadata, Timestamp};

/// One execution of an assistant over a thread.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub id: RunId,
    pub project: ProjectId,
    pub thread: ThreadId,
    pub assistant: AssistantId,
    pub created_at: Timestamp,
    /// Fixed at creation.
    pub config: Arc<RunConfig>,
    pub metadata: Metadata,
    pub state: RunState,
}

/// Settings of a run: those of its assistant, overridden by the request that created it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    pub model: String,
    /// The system prompt with the additional instructions appended.
    pub instructions: String,
    pub tools: Vec<Tool>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub reasoning_effort: Option<String>,
    pub response_format: Value,
    /// A forced choice applies to the first turn only.
    pub tool_choice: ToolChoice,
    pub parallel_tool_calls: bool,
    /// Each token budget is for all turns together.
    pub max_prompt_tokens: Option<u32>,
    pub max_completion_tokens: Option<u32>,
    pub truncation: Truncation,
}

/// How much of the thread goes into the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// As much as fits the model and the token budget; the oldest messages are dropped first.
    Auto,
    LastMessages(u32),
}

/// The part of a run that changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    pub status: RunStatus,
    /// When a worker last claimed the run.
    pub started_at: Option<Timestamp>,
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub outcome: RunOutcome,
}

/// What accompanies certain statuses, and is empty in all others.
///
/// These are the calls in `requires_action`, the error in `failed`, the reason in `incomplete`, and
/// in every terminal status the usage of all steps together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunOutcome {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_calls: Vec<ToolCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<RunError>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete_reason: Option<RunIncompleteReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RunStatus {
    Queued,
    InProgress,
    RequiresAction,
    Cancelling,
    Cancelled,
    Failed,
    Completed,
    /// Stopped by a token limit or the content filter; `incomplete_reason` says which.
    Incomplete,
    Expired,
}

impl RunStatus {
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::InProgress,
        Self::RequiresAction,
        Self::Cancelling,
        Self::Cancelled,
        Self::Failed,
        Self::Completed,
        Self::Incomplete,
        Self::Expired,
    ];

    /// The statuses a run may be in just before it becomes `self`.
    ///
    /// This is the whole state machine. `in_progress` follows itself when a run is recovered after
    /// a lost lease. A run in `cancelling` may still end in another status if its worker commits
    /// that first.
    pub const fn allowed_from(self) -> &'static [Self] {
        match self {
            Self::Queued => &[Self::RequiresAction],
            Self::InProgress => &[Self::Queued, Self::InProgress],
            Self::RequiresAction => &[Self::InProgress],
            Self::Cancelling => &[Self::Queued, Self::InProgress, Self::RequiresAction],
            Self::Cancelled => &[Self::Cancelling],
            Self::Completed | Self::Incomplete | Self::Failed => {
                &[Self::InProgress, Self::Cancelling]
            }
            Self::Expired => &[
                Self::Queued,
                Self::InProgress,
                Self::RequiresAction,
                Self::Cancelling,
            ],
        }
    }

    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::InProgress | Self::RequiresAction | Self::Cancelling => false,
            Self::Cancelled | Self::Failed | Self::Completed | Self::Incomplete | Self::Expired => {
                true
            }
        }
    }

    /// The name in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::RequiresAction => "requires_action",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Expired => "expired",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunIncompleteReason {
    MaxPromptTokens,
    MaxCompletionTokens,
    /// The upstream's content filter cut the answer off. The API shows no reason for the run then,
    /// since older clients know no such one; the message's own details have it.
    ContentFilter,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    pub code: RunErrorCode,
    /// Never holds a secret.
    pub message: String,
}

/// The error codes of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunErrorCode {
    /// This server or the upstream failed.
    ServerError,
    RateLimitExceeded,
    InvalidPrompt,
}

/// Numbers of tokens. `prompt` includes those that the upstream had `cached`, and `completion`
/// those for `reasoning`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub prompt: u32,
    pub completion: u32,
    #[serde(default)]
    pub cached: u32,
    #[serde(default)]
    pub reasoning: u32,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt = self.prompt.saturating_add(other.prompt);
        self.completion = self.completion.saturating_add(other.completion);
        self.cached = self.cached.saturating_add(other.cached);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_terminal_status() {
        for to in RunStatus::ALL {
            for from in to.allowed_from() {
                assert!(!from.is_terminal(), "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn every_active_status_can_be_cancelled_and_can_expire() {
        for from in RunStatus::ALL
            .into_iter()
            .filter(|status| !status.is_terminal())
        {
            assert!(
                RunStatus::Expired.allowed_from().contains(&from),
                "{from:?}"
            );
            if from != RunStatus::Cancelling {
                assert!(
                    RunStatus::Cancelling.allowed_from().contains(&from),
                    "{from:?}"
                );
            }
        }
    }
}
