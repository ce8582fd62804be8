//! Events of a stream: their names and their data.

use serde::Serialize;

use crate::api::wire::message::MessageObject;
use crate::api::wire::run::RunObject;
use crate::api::wire::run_step::StepObject;
use crate::domain::event::{ContentDelta, RunEvent, ToolCallDelta};
use crate::domain::message::MessageStatus;
use crate::domain::run::{Run, RunStatus};
use crate::domain::run_step::StepStatus;

/// Writes `event: NAME\ndata: JSON\n\n` for an event of this run.
pub fn write(run: &Run, event: &RunEvent) -> Result<Vec<u8>, serde_json::Error> {
    match event {
        RunEvent::RunCreated(state) => {
            frame("thread.run.created", &RunObject::in_state(run, state))
        }
        RunEvent::RunChanged(state) => {
            frame(run_event(state.status), &RunObject::in_state(run, state))
        }
        RunEvent::StepCreated(step) => {
            frame("thread.run.step.created", &StepObject::in_event(step))
        }
        RunEvent::StepInProgress(step) => {
            frame("thread.run.step.in_progress", &StepObject::in_event(step))
        }
        RunEvent::StepDelta { step, index, delta } => frame(
            "thread.run.step.delta",
            &step_delta(step.as_str(), *index, delta),
        ),
        RunEvent::StepEnded(step) => frame(step_event(step.status), &StepObject::in_event(step)),
        RunEvent::MessageCreated(message) => {
            frame("thread.message.created", &MessageObject::from(&**message))
        }
        RunEvent::MessageInProgress(message) => frame(
            "thread.message.in_progress",
            &MessageObject::from(&**message),
        ),
        RunEvent::MessageDelta {
            message,
            index,
            first,
            delta,
        } => frame(
            "thread.message.delta",
            &message_delta(message.as_str(), *index, *first, delta),
        ),
        RunEvent::MessageEnded(message) => frame(
            message_event(message.status),
            &MessageObject::from(&**message),
        ),
    }
}

/// One event of a stream, in the exact framing of the hosted service.
pub fn frame(name: &str, data: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(b"event: ");
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b"\ndata: ");
    serde_json::to_writer(&mut bytes, data)?;
    bytes.extend_from_slice(b"\n\n");
    Ok(bytes)
}

/// The last event of every stream.
pub const DONE: &[u8] = b"event: done\ndata: [DONE]\n\n";

const fn run_event(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Queued => "thread.run.queued",
        RunStatus::InProgress => "thread.run.in_progress",
        RunStatus::RequiresAction => "thread.run.requires_action",
        RunStatus::Cancelling => "thread.run.cancelling",
        RunStatus::Cancelled => "thread.run.cancelled",
        RunStatus::Failed => "thread.run.failed",
        RunStatus::Completed => "thread.run.completed",
        RunStatus::Incomplete => "thread.run.incomplete",
        RunStatus::Expired => "thread.run.expired",
    }
}

const fn step_event(status: StepStatus) -> &'static str {
    match status {
        StepStatus::InProgress => "thread.run.step.in_progress",
        StepStatus::Cancelled => "thread.run.step.cancelled",
        StepStatus::Failed => "thread.run.step.failed",
        StepStatus::Completed => "thread.run.step.completed",
        StepStatus::Expired => "thread.run.step.expired",
    }
}

const fn message_event(status: MessageStatus) -> &'static str {
    match status {
        MessageStatus::InProgress => "thread.message.in_progress",
        MessageStatus::Completed => "thread.message.completed",
        MessageStatus::Incomplete => "thread.message.incomplete",
    }
}

/// Clients merge deltas: strings are concatenated, so each is sent once, and nothing that was set
/// is sent again.
#[derive(Serialize)]
struct Delta<'a, T> {
    id: &'a str,
    object: &'static str,
    delta: T,
}

#[derive(Serialize)]
struct MessageDelta<'a> {
    content: [PartDelta<'a>; 1],
}

#[derive(Serialize)]
struct PartDelta<'a> {
    index: usize,
    #[serde(flatten)]
    part: PartKind<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PartKind<'a> {
    Text { text: TextDelta<'a> },
    Refusal { refusal: &'a str },
}

#[derive(Serialize)]
struct TextDelta<'a> {
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<[(); 0]>,
}

fn message_delta<'a>(
    id: &'a str,
    index: usize,
    first: bool,
    delta: &'a ContentDelta,
) -> Delta<'a, MessageDelta<'a>> {
    let part = match delta {
        ContentDelta::Text(value) => PartKind::Text {
            text: TextDelta {
                value,
                annotations: first.then_some([]),
            },
        },
        ContentDelta::Refusal(refusal) => PartKind::Refusal { refusal },
    };
    let content = [PartDelta { index, part }];
    Delta {
        id,
        object: "thread.message.delta",
        delta: MessageDelta { content },
    }
}

#[derive(Serialize)]
struct StepDelta<'a> {
    step_details: StepDetailsDelta<'a>,
}

#[derive(Serialize)]
struct StepDetailsDelta<'a> {
    r#type: &'static str,
    tool_calls: [CallDelta<'a>; 1],
}

#[derive(Serialize)]
struct CallDelta<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    r#type: &'static str,
    function: FunctionDelta<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum FunctionDelta<'a> {
    Began {
        name: &'a str,
        arguments: &'static str,
        output: Option<&'static str>,
    },
    Arguments {
        arguments: &'a str,
    },
}

fn step_delta<'a>(id: &'a str, index: usize, delta: &'a ToolCallDelta) -> Delta<'a, StepDelta<'a>> {
    let (call, function) = match delta {
        ToolCallDelta::FunctionBegan { id, name } => (
            Some(id.as_str()),
            FunctionDelta::Began {
                name,
                arguments: "",
                output: None,
            },
        ),
        ToolCallDelta::FunctionArguments(arguments) => {
            (None, FunctionDelta::Arguments { arguments })
        }
    };
    let call = CallDelta {
        index,
        id: call,
        r#type: "function",
        function,
    };
    let step_details = StepDetailsDelta {
        r#type: "tool_calls",
        tool_calls: [call],
    };
    Delta {
        id,
        object: "thread.run.step.delta",
        delta: StepDelta { step_details },
    }
}
