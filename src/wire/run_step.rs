//! Run steps.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::domain::Metadata;
use crate::domain::run::RunError;
use crate::domain::run_step::{RunStep, StepDetails, StepStatus};
use crate::domain::tool::{CodeOutput, SearchCall, SearchResult, ToolCall, ToolCallBody};
use crate::wire::run::UsageObject;
use crate::wire::seconds;

#[derive(Debug, Serialize)]
pub struct StepObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    run_id: &'a str,
    assistant_id: &'a str,
    thread_id: &'a str,
    r#type: &'static str,
    status: StepStatus,
    cancelled_at: Option<i64>,
    completed_at: Option<i64>,
    expires_at: Option<i64>,
    expired_at: Option<i64>,
    failed_at: Option<i64>,
    last_error: Option<&'a RunError>,
    step_details: DetailsObject<'a>,
    usage: Option<UsageObject>,
    metadata: Metadata,
}

impl<'a> StepObject<'a> {
    /// The step as events show it, with `expires_at` in every status. With `includes_result_content`, search
    /// results contain their text.
    pub fn in_event(step: &'a RunStep, includes_result_content: bool) -> Self {
        let ended_in = |status| step.ended_at.filter(|_| step.status == status).map(seconds);
        let usage = step.usage.filter(|_| step.status != StepStatus::InProgress);
        Self {
            id: step.id.as_str(),
            object: "thread.run.step",
            created_at: seconds(step.created_at),
            run_id: step.run.as_str(),
            assistant_id: step.assistant.as_str(),
            thread_id: step.thread.as_str(),
            r#type: match step.details {
                StepDetails::MessageCreation { .. } => "message_creation",
                StepDetails::ToolCalls { .. } => "tool_calls",
            },
            status: step.status,
            cancelled_at: ended_in(StepStatus::Cancelled),
            completed_at: ended_in(StepStatus::Completed),
            expires_at: Some(seconds(step.expires_at)),
            expired_at: ended_in(StepStatus::Expired),
            failed_at: ended_in(StepStatus::Failed),
            last_error: step.last_error.as_ref(),
            step_details: DetailsObject::of(&step.details, includes_result_content),
            usage: usage.map(UsageObject::from),
            metadata: Metadata::new(),
        }
    }

    /// The step as lists and retrievals show it, with `expires_at` only while it is in progress.
    pub fn stored(step: &'a RunStep, includes_result_content: bool) -> Self {
        let mut object = Self::in_event(step, includes_result_content);
        if step.status != StepStatus::InProgress {
            object.expires_at = None;
        }
        object
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum DetailsObject<'a> {
    MessageCreation {
        message_creation: CreatedMessage<'a>,
    },
    ToolCalls {
        tool_calls: Vec<CallObject<'a>>,
    },
}

#[derive(Debug, Serialize)]
struct CreatedMessage<'a> {
    message_id: &'a str,
}

#[derive(Debug, Serialize)]
struct CallObject<'a> {
    id: &'a str,
    #[serde(flatten)]
    body: CallBody<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CallBody<'a> {
    Function { function: FunctionObject<'a> },
    CodeInterpreter { code_interpreter: CodeObject<'a> },
    FileSearch { file_search: SearchObject<'a> },
}

#[derive(Debug, Serialize)]
struct SearchObject<'a> {
    ranking_options: RankingObject<'a>,
    results: Vec<ResultObject<'a>>,
}

#[derive(Debug, Serialize)]
pub struct RankingObject<'a> {
    /// As requested; this server has one ranker.
    pub ranker: &'a str,
    pub score_threshold: f64,
}

#[derive(Debug, Serialize)]
struct ResultObject<'a> {
    file_id: &'a str,
    file_name: &'a str,
    score: f64,
    attributes: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<[ResultTextObject<'a>; 1]>,
}

#[derive(Debug, Serialize)]
struct ResultTextObject<'a> {
    r#type: &'static str,
    text: &'a str,
}

impl<'a> SearchObject<'a> {
    fn of(call: &'a SearchCall, includes_result_content: bool) -> Self {
        let result = |result: &'a SearchResult| ResultObject {
            file_id: result.file.as_str(),
            file_name: &result.file_name,
            score: result.score,
            attributes: &result.attributes,
            content: includes_result_content.then(|| {
                [ResultTextObject {
                    r#type: "text",
                    text: &result.content,
                }]
            }),
        };
        Self {
            ranking_options: RankingObject {
                ranker: &call.ranker,
                score_threshold: call.score_threshold,
            },
            results: call.results.iter().flatten().map(result).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct FunctionObject<'a> {
    name: &'a str,
    arguments: &'a str,
    output: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct CodeObject<'a> {
    input: &'a str,
    outputs: Vec<CodeOutputObject<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CodeOutputObject<'a> {
    Logs { logs: &'a str },
    Image { image: ImageObject<'a> },
}

#[derive(Debug, Serialize)]
pub struct ImageObject<'a> {
    pub file_id: &'a str,
}

impl<'a> From<&'a CodeOutput> for CodeOutputObject<'a> {
    fn from(output: &'a CodeOutput) -> Self {
        match output {
            CodeOutput::Logs(logs) => Self::Logs { logs },
            CodeOutput::Image(file) => Self::Image {
                image: ImageObject {
                    file_id: file.as_str(),
                },
            },
        }
    }
}

impl<'a> CallObject<'a> {
    fn of(call: &'a ToolCall, includes_result_content: bool) -> Self {
        let body = match &call.body {
            ToolCallBody::Function(call) => CallBody::Function {
                function: FunctionObject {
                    name: &call.name,
                    arguments: &call.arguments,
                    output: call.output.as_deref(),
                },
            },
            ToolCallBody::CodeInterpreter(call) => CallBody::CodeInterpreter {
                code_interpreter: CodeObject {
                    input: &call.input,
                    outputs: call
                        .outputs
                        .iter()
                        .flatten()
                        .map(CodeOutputObject::from)
                        .collect(),
                },
            },
            ToolCallBody::FileSearch(call) => CallBody::FileSearch {
                file_search: SearchObject::of(call, includes_result_content),
            },
        };
        Self { id: &call.id, body }
    }
}

impl<'a> DetailsObject<'a> {
    fn of(details: &'a StepDetails, includes_result_content: bool) -> Self {
        match details {
            StepDetails::MessageCreation { message } => Self::MessageCreation {
                message_creation: CreatedMessage {
                    message_id: message.as_str(),
                },
            },
            StepDetails::ToolCalls { calls } => Self::ToolCalls {
                tool_calls: calls
                    .iter()
                    .map(|call| CallObject::of(call, includes_result_content))
                    .collect(),
            },
        }
    }
}
