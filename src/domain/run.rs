//! Runs: their settings, their states, and the one table of transitions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::ids::{AssistantId, ProjectId, RunId, ThreadId};
use crate::domain::tool::{Tool, ToolCall, ToolChoice};
use crate::domain::{Metadata, Timestamp};

/// One execution of an assistant over a thread.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub project: ProjectId,
    /// The thread it reads and writes.
    pub thread: ThreadId,
    /// The assistant it was started with.
    pub assistant: AssistantId,
    /// When it was created.
    pub created_at: Timestamp,
    /// Settings, fixed at creation.
    pub config: Arc<RunConfig>,
    /// What the client attached to it.
    pub metadata: Metadata,
    /// Where it stands.
    pub state: RunState,
}

/// A run's settings: the assistant's, overridden by the request that created the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Model name as the client gave it.
    pub model: String,
    /// The system prompt, additional instructions appended.
    pub instructions: String,
    /// Tools offered.
    pub tools: Vec<Tool>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// Passed to the upstream as it is.
    pub reasoning_effort: Option<String>,
    /// `"auto"` or an object with a `type`, kept word for word.
    pub response_format: Value,
    /// How the model may choose among the tools; a forced choice holds for the first turn only.
    pub tool_choice: ToolChoice,
    /// Whether one turn may call several tools.
    pub parallel_tool_calls: bool,
    /// Budget of prompt tokens over all turns.
    pub max_prompt_tokens: Option<u32>,
    /// Budget of completion tokens over all turns.
    pub max_completion_tokens: Option<u32>,
    /// How much of the thread the model sees.
    pub truncation: Truncation,
}

/// How much of the thread the model sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// As much as fits the model and the budget; the oldest goes first.
    Auto,
    /// This many of the newest messages.
    LastMessages(u32),
}

/// Where a run stands: all of it that changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Its status.
    pub status: RunStatus,
    /// When it was last taken up by a worker.
    pub started_at: Option<Timestamp>,
    /// When it must be over.
    pub expires_at: Timestamp,
    /// When it reached a terminal status.
    pub ended_at: Option<Timestamp>,
    /// What belongs to the status.
    pub outcome: RunOutcome,
}

/// What belongs to certain statuses; empty otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// In `requires_action`: the calls whose outputs are awaited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_calls: Vec<ToolCall>,
    /// In `failed`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<RunError>,
    /// In `incomplete`: which limit was hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete_reason: Option<RunIncompleteReason>,
    /// In terminal statuses: the sum over all steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// The status of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RunStatus {
    /// Waits for a worker.
    Queued,
    /// A worker drives it.
    InProgress,
    /// Waits for the caller's tool outputs.
    RequiresAction,
    /// Asked to stop.
    Cancelling,
    /// Stopped.
    Cancelled,
    /// Gave up; `last_error` says why.
    Failed,
    /// Done.
    Completed,
    /// Ended at a token limit or by the content filter.
    Incomplete,
    /// Ran out of time.
    Expired,
}

impl RunStatus {
    /// Every status there is.
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
    /// This is the whole state machine. `in_progress` follows itself when a worker takes over a
    /// run whose lease ran out. A run that was asked to stop may still end otherwise if it got
    /// there first.
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

    /// Whether nothing follows.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::InProgress | Self::RequiresAction | Self::Cancelling => false,
            Self::Cancelled | Self::Failed | Self::Completed | Self::Incomplete | Self::Expired => {
                true
            }
        }
    }

    /// The name on the wire and in the store.
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

/// Why a run ended `incomplete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunIncompleteReason {
    /// The budget of prompt tokens is spent.
    MaxPromptTokens,
    /// The budget of completion tokens is spent.
    MaxCompletionTokens,
    /// The upstream's content filter stepped in. Older clients know no such reason, but the
    /// message's own details say the same.
    ContentFilter,
}

/// Why a run failed, as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// The class.
    pub code: RunErrorCode,
    /// For people; never holds a secret.
    pub message: String,
}

/// The classes of failure that the API knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunErrorCode {
    /// We or the upstream broke.
    ServerError,
    /// The upstream would take no more for now.
    RateLimitExceeded,
    /// The upstream refused the prompt.
    InvalidPrompt,
}

/// Tokens spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens of the answer.
    pub completion: u32,
    /// Of the prompt's, those the upstream had cached.
    #[serde(default)]
    pub cached: u32,
    /// Of the answer's, those spent on reasoning.
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
