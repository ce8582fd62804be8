//! What happens in a run, in the order readers see it.

use serde::{Deserialize, Serialize};

use crate::domain::ids::{FileId, MessageId, StepId};
use crate::domain::message::{Annotation, Message};
use crate::domain::run::{RunState, RunStatus};
use crate::domain::run_step::RunStep;

/// Position of an event in its run. Each attempt at a run counts from the start of a range of its
/// own, so that a worker that takes over never reuses a number a reader may have seen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct Seq(pub i64);

impl Seq {
    /// Before every event.
    pub const START: Self = Self(0);

    const PER_ATTEMPT: i64 = 1 << 32;

    /// Just before the first event of this attempt.
    pub const fn before_attempt(attempt: i32) -> Self {
        Self(attempt as i64 * Self::PER_ATTEMPT)
    }

    /// The position after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position `count` further on.
    pub const fn plus(self, count: usize) -> Self {
        Self(self.0 + count as i64)
    }
}

/// One event of a run. Objects are whole, the run's fixed part excepted, which every reader has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RunEvent {
    /// The run was created; the status is `queued`.
    RunCreated(Box<RunState>),
    /// The run changed its status.
    RunChanged(Box<RunState>),
    /// A step began.
    StepCreated(Box<RunStep>),
    /// A step is under way.
    StepInProgress(Box<RunStep>),
    /// A tool call of a step began or went on.
    StepDelta {
        /// The step.
        step: StepId,
        /// Position of the call in the step.
        index: usize,
        /// What came.
        delta: ToolCallDelta,
    },
    /// A step reached a final status.
    StepEnded(Box<RunStep>),
    /// A message began.
    MessageCreated(Box<Message>),
    /// A message is being written.
    MessageInProgress(Box<Message>),
    /// A message went on.
    MessageDelta {
        /// The message.
        message: MessageId,
        /// Position of the content part.
        index: usize,
        /// Whether the part begins with this.
        first: bool,
        /// What came.
        delta: ContentDelta,
    },
    /// A message is complete or incomplete for good.
    MessageEnded(Box<Message>),
}

/// A piece of a tool call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolCallDelta {
    /// A call of a function begins.
    FunctionBegan {
        /// `call_…`.
        id: String,
        /// The function.
        name: String,
    },
    /// More of its arguments.
    FunctionArguments(String),
    /// A call of code_interpreter begins.
    CodeBegan {
        /// `call_…`.
        id: String,
    },
    /// More of its code.
    CodeInput(String),
    /// More text that the code put out.
    CodeLogs {
        /// Position among the call's outputs.
        output: usize,
        /// The text.
        logs: String,
    },
    /// A picture that the code put out.
    CodeImage {
        /// Position among the call's outputs.
        output: usize,
        /// The stored file.
        file: FileId,
    },
}

/// A piece of a message's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentDelta {
    /// More text.
    Text(String),
    /// Text that an annotation is about.
    Annotated {
        /// Position among the part's annotations.
        index: usize,
        /// It has the text too.
        annotation: Annotation,
    },
    /// More of a refusal.
    Refusal(String),
    /// A picture.
    Image(FileId),
}

impl RunEvent {
    /// The status this event announces, if it is about the run itself.
    pub fn run_status(&self) -> Option<RunStatus> {
        match self {
            Self::RunCreated(state) | Self::RunChanged(state) => Some(state.status),
            Self::StepCreated(_)
            | Self::StepInProgress(_)
            | Self::StepDelta { .. }
            | Self::StepEnded(_)
            | Self::MessageCreated(_)
            | Self::MessageInProgress(_)
            | Self::MessageDelta { .. }
            | Self::MessageEnded(_) => None,
        }
    }

    /// Whether a client's stream ends with this event: nothing more happens to the run, or
    /// nothing until the caller submits tool outputs.
    pub fn ends_stream(&self) -> bool {
        self.run_status()
            .is_some_and(|status| status.is_terminal() || status == RunStatus::RequiresAction)
    }
}
