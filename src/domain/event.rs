//! Events of runs, in the order in which readers receive them.

use serde::{Deserialize, Serialize};

use crate::domain::ids::{FileId, MessageId, StepId};
use crate::domain::message::{Annotation, Message};
use crate::domain::run::{RunState, RunStatus};
use crate::domain::run_step::RunStep;

/// Sequence number of an event in its run. Each attempt numbers its events in a range of its own,
/// so that a recovered run never reuses a number that a reader may have received.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct Seq(pub i64);

impl Seq {
    /// Precedes every event.
    pub const START: Self = Self(0);

    const PER_ATTEMPT: i64 = 1 << 32;

    /// Directly precedes the first event of this attempt.
    pub const fn before_attempt(attempt: i32) -> Self {
        Self(attempt as i64 * Self::PER_ATTEMPT)
    }

    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub const fn plus(self, count: usize) -> Self {
        Self(self.0 + count as i64)
    }
}

/// One event of a run. It holds complete objects; of the run itself only the part that changes,
/// because every reader has the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RunEvent {
    RunCreated(Box<RunState>),
    RunChanged(Box<RunState>),
    StepCreated(Box<RunStep>),
    StepInProgress(Box<RunStep>),
    /// A tool call was created or got more content.
    StepDelta {
        step: StepId,
        index: usize,
        delta: ToolCallDelta,
    },
    /// A step reached a final status.
    StepEnded(Box<RunStep>),
    MessageCreated(Box<Message>),
    MessageInProgress(Box<Message>),
    MessageDelta {
        message: MessageId,
        index: usize,
        /// Whether this delta creates the content part.
        first: bool,
        delta: ContentDelta,
    },
    MessageEnded(Box<Message>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToolCallDelta {
    /// A function call was created.
    FunctionBegan { id: String, name: String },
    /// Function arguments to append.
    FunctionArguments(String),
    /// A file_search call was created.
    SearchBegan {
        id: String,
        ranker: String,
        score_threshold: f64,
    },
    /// A code_interpreter call was created.
    CodeBegan { id: String },
    /// Code to append.
    CodeInput(String),
    /// Text output to append.
    CodeLogs { output: usize, logs: String },
    /// An image that the code produced.
    CodeImage { output: usize, file: FileId },
}

/// Content to append to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentDelta {
    Text(String),
    Annotated {
        /// Position among the annotations of the content part.
        index: usize,
        /// Also holds the text.
        annotation: Annotation,
    },
    Refusal(String),
    Image(FileId),
}

impl RunEvent {
    /// The new status, if the event is about the run itself.
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

    /// Whether a client's stream ends with this event: the run is terminal or waits for tool
    /// outputs.
    pub fn ends_stream(&self) -> bool {
        self.run_status()
            .is_some_and(|status| status.is_terminal() || status == RunStatus::RequiresAction)
    }
}
