//! The events of a stream: their names and data.

use serde::Serialize;

use crate::domain::event::{ContentDelta, RunEvent, ToolCallDelta};
use crate::domain::message::MessageStatus;
use crate::domain::run::{Run, RunStatus};
use crate::domain::run_step::StepStatus;
use crate::wire::message::{AnnotationObject, MessageObject};
use crate::wire::run::RunObject;
use crate::wire::run_step::{CodeOutputObject, ImageObject, RankingObject, StepObject};

pub fn encode(
    run: &Run,
    event: &RunEvent,
    includes_result_content: bool,
) -> Result<Vec<u8>, serde_json::Error> {
    match event {
        RunEvent::RunCreated(state) => {
            frame("thread.run.created", &RunObject::in_state(run, state))
        }
        RunEvent::RunChanged(state) => {
            frame(run_event(state.status), &RunObject::in_state(run, state))
        }
        RunEvent::StepCreated(step) => frame(
            "thread.run.step.created",
            &StepObject::in_event(step, includes_result_content),
        ),
        RunEvent::StepInProgress(step) => frame(
            "thread.run.step.in_progress",
            &StepObject::in_event(step, includes_result_content),
        ),
        RunEvent::StepDelta { step, index, delta } => frame(
            "thread.run.step.delta",
            &step_delta(step.as_str(), *index, delta),
        ),
        RunEvent::StepEnded(step) => frame(
            step_event(step.status),
            &StepObject::in_event(step, includes_result_content),
        ),
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

/// Encodes one event as `event: NAME\ndata: JSON\n\n`, the framing of the hosted API.
pub fn frame(name: &str, data: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(b"event: ");
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b"\ndata: ");
    serde_json::to_writer(&mut bytes, data)?;
    bytes.extend_from_slice(b"\n\n");
    Ok(bytes)
}

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

/// A change of an object. Clients merge deltas by concatenating strings, so no value is sent twice.
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
    ImageFile { image_file: ImageObject<'a> },
}

#[derive(Serialize)]
struct TextDelta<'a> {
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Vec<AnnotationDelta<'a>>>,
}

#[derive(Serialize)]
struct AnnotationDelta<'a> {
    index: usize,
    #[serde(flatten)]
    annotation: AnnotationObject<'a>,
}

fn message_delta<'a>(
    id: &'a str,
    index: usize,
    is_first: bool,
    delta: &'a ContentDelta,
) -> Delta<'a, MessageDelta<'a>> {
    let part = match delta {
        ContentDelta::Text(value) => PartKind::Text {
            text: TextDelta {
                value,
                annotations: is_first.then(Vec::new),
            },
        },
        ContentDelta::Annotated { index, annotation } => PartKind::Text {
            text: TextDelta {
                value: &annotation.text,
                annotations: Some(vec![AnnotationDelta {
                    index: *index,
                    annotation: AnnotationObject::from(annotation).in_delta(),
                }]),
            },
        },
        ContentDelta::Image(file) => PartKind::ImageFile {
            image_file: ImageObject {
                file_id: file.as_str(),
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
    #[serde(flatten)]
    body: CallBodyDelta<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CallBodyDelta<'a> {
    Function { function: FunctionDelta<'a> },
    CodeInterpreter { code_interpreter: CodeDelta<'a> },
    FileSearch { file_search: SearchDelta<'a> },
}

#[derive(Serialize)]
struct SearchDelta<'a> {
    ranking_options: RankingObject<'a>,
    results: [(); 0],
}

#[derive(Serialize)]
#[serde(untagged)]
enum FunctionDelta<'a> {
    Start {
        name: &'a str,
        arguments: &'static str,
        output: Option<&'static str>,
    },
    Arguments {
        arguments: &'a str,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum CodeDelta<'a> {
    Start {
        input: &'static str,
        outputs: [(); 0],
    },
    Input {
        input: &'a str,
    },
    Output {
        outputs: [OutputDelta<'a>; 1],
    },
}

#[derive(Serialize)]
struct OutputDelta<'a> {
    index: usize,
    #[serde(flatten)]
    output: CodeOutputObject<'a>,
}

fn step_delta<'a>(id: &'a str, index: usize, delta: &'a ToolCallDelta) -> Delta<'a, StepDelta<'a>> {
    let function = |function| CallBodyDelta::Function { function };
    let code = |code_interpreter| CallBodyDelta::CodeInterpreter { code_interpreter };
    let output = |index, output| {
        let outputs = [OutputDelta { index, output }];
        code(CodeDelta::Output { outputs })
    };
    let (call, body) = match delta {
        ToolCallDelta::FunctionBegan { id, name } => {
            let start = FunctionDelta::Start {
                name,
                arguments: "",
                output: None,
            };
            (Some(id.as_str()), function(start))
        }
        ToolCallDelta::FunctionArguments(arguments) => {
            (None, function(FunctionDelta::Arguments { arguments }))
        }
        ToolCallDelta::SearchBegan {
            id,
            ranker,
            score_threshold,
        } => {
            let file_search = SearchDelta {
                ranking_options: RankingObject {
                    ranker,
                    score_threshold: *score_threshold,
                },
                results: [],
            };
            (Some(id.as_str()), CallBodyDelta::FileSearch { file_search })
        }
        ToolCallDelta::CodeBegan { id } => {
            let start = CodeDelta::Start {
                input: "",
                outputs: [],
            };
            (Some(id.as_str()), code(start))
        }
        ToolCallDelta::CodeInput(input) => (None, code(CodeDelta::Input { input })),
        ToolCallDelta::CodeLogs {
            output: index,
            logs,
        } => (None, output(*index, CodeOutputObject::Logs { logs })),
        ToolCallDelta::CodeImage {
            output: index,
            file,
        } => {
            let file_id = file.as_str();
            let image = ImageObject { file_id };
            (None, output(*index, CodeOutputObject::Image { image }))
        }
    };
    let call = CallDelta {
        index,
        id: call,
        body,
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
