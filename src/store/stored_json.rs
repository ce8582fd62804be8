//! What JSON columns hold, one snapshot for each variant.
//!
//! The types of `domain` are stored as they serialise, so renaming one of their fields or variants
//! would make rows of earlier versions unreadable. These tests fail then: keep the stored name with
//! `#[serde(rename = "…")]`. A new variant does not compile before it has a snapshot here. A
//! snapshot that has been released never changes; a new form is added beside it as [`legacy`].

use std::fmt::Debug;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::domain::Timestamp;
use crate::domain::assistant::{
    AssistantConfig, CodeInterpreterResources, FileSearchResources, ToolResources,
};
use crate::domain::event::{ContentDelta, RunEvent, Seq, ToolCallDelta};
use crate::domain::message::{
    Annotation, AnnotationTarget, Attachment, AttachmentTool, Content, ImageDetail,
    IncompleteReason, Message, MessageStatus, NewMessage, Role,
};
use crate::domain::project::ProjectLimits;
use crate::domain::run::{
    RunConfig, RunError, RunErrorCode, RunIncompleteReason, RunOutcome, RunState, RunStatus,
    Truncation, Usage,
};
use crate::domain::run_step::{RunStep, StepDetails, StepStatus};
use crate::domain::thread::Thread;
use crate::domain::tool::{
    CodeCall, CodeOutput, Function, FunctionCall, SearchCall, SearchResult, Tool, ToolCall,
    ToolCallBody, ToolChoice,
};
use crate::domain::usage::{Amounts, UsageEntry};
use crate::domain::vector_store::{AttributeValue, FileStatus, IndexError, IndexErrorCode};

/// Asserts that the value is stored as this JSON. The order of keys is left out: `jsonb` has none.
#[track_caller]
fn written<T: Serialize>(value: &T, text: &str) {
    let expected: Value = serde_json::from_str(text).expect("the snapshot is JSON");
    let stored = serde_json::to_value(value).expect("domain types serialise without errors");
    assert_eq!(stored, expected, "a stored form has changed");
}

/// Asserts that JSON which an earlier version has stored is read as this value.
#[track_caller]
fn legacy<T: DeserializeOwned + PartialEq + Debug>(value: &T, text: &str) {
    let read: T = serde_json::from_str(text).expect("a stored form can no longer be read");
    assert_eq!(&read, value, "a stored form is read differently");
}

/// Asserts that the value is stored as this JSON and read back from it.
#[track_caller]
fn stored<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, text: &str) {
    written(value, text);
    legacy(value, text);
}

/// Asserts the stored form of every variant of an enum: `pattern => value, JSON;`. The patterns
/// must be exhaustive, and each must match its value.
macro_rules! variants {
    ($type:ty: $($pattern:pat => $value:expr, $text:expr;)+) => {
        let _exhaustive = |value: &$type| match value {
            $($pattern => (),)+
        };
        $(
            let value: $type = $value;
            assert!(matches!(&value, $pattern), "{value:?} is another variant");
            stored(&value, $text);
        )+
    };
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 250_000_000).expect("a date that chrono can represent")
}

fn id<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("an id with the prefix of its kind")
}

fn run_step() -> RunStep {
    RunStep {
        id: id("step_1"),
        run: id("run_1"),
        thread: id("thread_1"),
        assistant: id("asst_1"),
        created_at: at(1),
        status: StepStatus::InProgress,
        expires_at: at(600),
        ended_at: None,
        last_error: None,
        details: StepDetails::ToolCalls { calls: Vec::new() },
        usage: None,
    }
}

const RUN_STEP: &str = r#"{
    "id": "step_1", "run": "run_1", "thread": "thread_1", "assistant": "asst_1",
    "created_at": "1970-01-01T00:00:01.250Z", "status": "in_progress",
    "expires_at": "1970-01-01T00:10:00.250Z", "ended_at": null, "last_error": null,
    "details": {"type": "tool_calls", "calls": []}, "usage": null
}"#;

fn message() -> Message {
    Message {
        id: id("msg_1"),
        thread: id("thread_1"),
        created_at: at(2),
        status: MessageStatus::Incomplete,
        incomplete_reason: Some(IncompleteReason::MaxTokens),
        ended_at: Some(at(3)),
        role: Role::Assistant,
        content: vec![Content::text("Hello")],
        attachments: Vec::new(),
        assistant: Some(id("asst_1")),
        run: Some(id("run_1")),
        metadata: [("key".to_owned(), "value".to_owned())].into(),
    }
}

const MESSAGE: &str = r#"{
    "id": "msg_1", "thread": "thread_1", "created_at": "1970-01-01T00:00:02.250Z",
    "status": "incomplete", "incomplete_reason": "max_tokens",
    "ended_at": "1970-01-01T00:00:03.250Z", "role": "assistant",
    "content": [{"type": "text", "value": "Hello"}], "attachments": [],
    "assistant": "asst_1", "run": "run_1", "metadata": {"key": "value"}
}"#;

fn run_state() -> RunState {
    RunState {
        status: RunStatus::Completed,
        started_at: Some(at(1)),
        expires_at: at(600),
        ended_at: Some(at(5)),
        outcome: RunOutcome::default(),
    }
}

const RUN_STATE: &str = r#"{
    "status": "completed", "started_at": "1970-01-01T00:00:01.250Z",
    "expires_at": "1970-01-01T00:10:00.250Z", "ended_at": "1970-01-01T00:00:05.250Z",
    "outcome": {}
}"#;

fn event(name: &str, payload: &str) -> String {
    format!(r#"{{"{name}": {payload}}}"#)
}

#[test]
fn settings_of_assistants() {
    let config = AssistantConfig {
        model: "gpt-4o".to_owned(),
        name: Some("Tutor".to_owned()),
        description: Some("Helps".to_owned()),
        instructions: Some("Be kind.".to_owned()),
        tools: vec![Tool::CodeInterpreter],
        temperature: Some(0.5),
        top_p: Some(1.0),
        reasoning_effort: Some("low".to_owned()),
        response_format: json!("auto"),
    };
    let text = r#"{
        "model": "gpt-4o", "name": "Tutor", "description": "Helps", "instructions": "Be kind.",
        "tools": [{"type": "code_interpreter"}], "temperature": 0.5, "top_p": 1.0,
        "reasoning_effort": "low", "response_format": "auto"
    }"#;
    stored(&config, text);
}

#[test]
fn settings_of_runs() {
    let config = RunConfig {
        model: "gpt-4o".to_owned(),
        instructions: "Be kind.".to_owned(),
        tools: vec![Tool::CodeInterpreter],
        temperature: None,
        top_p: Some(0.5),
        reasoning_effort: None,
        response_format: json!({"type": "json_object"}),
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
        max_prompt_tokens: Some(1000),
        max_completion_tokens: None,
        truncation: Truncation::Auto,
    };
    let text = r#"{
        "model": "gpt-4o", "instructions": "Be kind.", "tools": [{"type": "code_interpreter"}],
        "temperature": null, "top_p": 0.5, "reasoning_effort": null,
        "response_format": {"type": "json_object"}, "tool_choice": "Auto",
        "parallel_tool_calls": true, "max_prompt_tokens": 1000, "max_completion_tokens": null,
        "truncation": "auto"
    }"#;
    stored(&Arc::new(config), text);
    variants! { Truncation:
        Truncation::Auto => Truncation::Auto, r#""auto""#;
        Truncation::LastMessages(_) => Truncation::LastMessages(3), r#"{"last_messages": 3}"#;
    }
    variants! { ToolChoice:
        ToolChoice::None => ToolChoice::None, r#""None""#;
        ToolChoice::Auto => ToolChoice::Auto, r#""Auto""#;
        ToolChoice::Required => ToolChoice::Required, r#""Required""#;
        ToolChoice::CodeInterpreter => ToolChoice::CodeInterpreter, r#""CodeInterpreter""#;
        ToolChoice::FileSearch => ToolChoice::FileSearch, r#""FileSearch""#;
        ToolChoice::Function(_) => ToolChoice::Function("f".to_owned()), r#"{"Function": "f"}"#;
    }
}

#[test]
fn tools_and_their_resources() {
    let Value::Object(file_search) = json!({"max_num_results": 5}) else {
        unreachable!("the literal is an object");
    };
    let function = Function {
        name: "f".to_owned(),
        description: None,
        parameters: json!({"type": "object"}),
        strict: false,
    };
    variants! { Tool:
        Tool::CodeInterpreter => Tool::CodeInterpreter, r#"{"type": "code_interpreter"}"#;
        Tool::FileSearch { .. } => Tool::FileSearch { file_search },
            r#"{"type": "file_search", "file_search": {"max_num_results": 5}}"#;
        Tool::Function { .. } => Tool::Function { function },
            r#"{"type": "function", "function": {"name": "f", "description": null,
                "parameters": {"type": "object"}, "strict": false}}"#;
    }
    stored(&ToolResources::default(), "{}");
    let resources = ToolResources {
        code_interpreter: Some(CodeInterpreterResources {
            file_ids: vec![id("file-1")],
        }),
        file_search: Some(FileSearchResources {
            vector_store_ids: vec![id("vs_1")],
        }),
    };
    let text = r#"{
        "code_interpreter": {"file_ids": ["file-1"]},
        "file_search": {"vector_store_ids": ["vs_1"]}
    }"#;
    stored(&resources, text);
    let empty = ToolResources {
        code_interpreter: Some(CodeInterpreterResources::default()),
        file_search: Some(FileSearchResources::default()),
    };
    legacy(&empty, r#"{"code_interpreter": {}, "file_search": {}}"#);
}

#[test]
fn outcomes_of_runs() {
    stored(&RunOutcome::default(), "{}");
    let outcome = RunOutcome {
        required_calls: vec![ToolCall {
            id: "call_1".to_owned(),
            body: ToolCallBody::Function(FunctionCall {
                name: "f".to_owned(),
                arguments: "{}".to_owned(),
                output: None,
            }),
        }],
        last_error: Some(RunError {
            code: RunErrorCode::ServerError,
            message: "It broke.".to_owned(),
        }),
        incomplete_reason: Some(RunIncompleteReason::ContentFilter),
        usage: Some(Usage {
            prompt: 1,
            completion: 2,
            cached: 3,
            reasoning: 4,
        }),
    };
    let text = r#"{
        "required_calls": [
            {"id": "call_1", "function": {"name": "f", "arguments": "{}", "output": null}}
        ],
        "last_error": {"code": "server_error", "message": "It broke."},
        "incomplete_reason": "content_filter",
        "usage": {"prompt": 1, "completion": 2, "cached": 3, "reasoning": 4}
    }"#;
    stored(&outcome, text);
    let usage = Usage {
        prompt: 1,
        completion: 2,
        ..Usage::default()
    };
    legacy(&usage, r#"{"prompt": 1, "completion": 2}"#);
    variants! { RunErrorCode:
        RunErrorCode::ServerError => RunErrorCode::ServerError, r#""server_error""#;
        RunErrorCode::RateLimitExceeded => RunErrorCode::RateLimitExceeded,
            r#""rate_limit_exceeded""#;
        RunErrorCode::InvalidPrompt => RunErrorCode::InvalidPrompt, r#""invalid_prompt""#;
    }
    variants! { RunIncompleteReason:
        RunIncompleteReason::MaxPromptTokens => RunIncompleteReason::MaxPromptTokens,
            r#""max_prompt_tokens""#;
        RunIncompleteReason::MaxCompletionTokens => RunIncompleteReason::MaxCompletionTokens,
            r#""max_completion_tokens""#;
        RunIncompleteReason::ContentFilter => RunIncompleteReason::ContentFilter,
            r#""content_filter""#;
    }
}

#[test]
fn statuses_and_reasons() {
    variants! { RunStatus:
        RunStatus::Queued => RunStatus::Queued, r#""queued""#;
        RunStatus::InProgress => RunStatus::InProgress, r#""in_progress""#;
        RunStatus::RequiresAction => RunStatus::RequiresAction, r#""requires_action""#;
        RunStatus::Cancelling => RunStatus::Cancelling, r#""cancelling""#;
        RunStatus::Cancelled => RunStatus::Cancelled, r#""cancelled""#;
        RunStatus::Failed => RunStatus::Failed, r#""failed""#;
        RunStatus::Completed => RunStatus::Completed, r#""completed""#;
        RunStatus::Incomplete => RunStatus::Incomplete, r#""incomplete""#;
        RunStatus::Expired => RunStatus::Expired, r#""expired""#;
    }
    variants! { StepStatus:
        StepStatus::InProgress => StepStatus::InProgress, r#""in_progress""#;
        StepStatus::Cancelled => StepStatus::Cancelled, r#""cancelled""#;
        StepStatus::Failed => StepStatus::Failed, r#""failed""#;
        StepStatus::Completed => StepStatus::Completed, r#""completed""#;
        StepStatus::Expired => StepStatus::Expired, r#""expired""#;
    }
    variants! { MessageStatus:
        MessageStatus::InProgress => MessageStatus::InProgress, r#""in_progress""#;
        MessageStatus::Completed => MessageStatus::Completed, r#""completed""#;
        MessageStatus::Incomplete => MessageStatus::Incomplete, r#""incomplete""#;
    }
    variants! { IncompleteReason:
        IncompleteReason::ContentFilter => IncompleteReason::ContentFilter, r#""content_filter""#;
        IncompleteReason::MaxTokens => IncompleteReason::MaxTokens, r#""max_tokens""#;
        IncompleteReason::RunCancelled => IncompleteReason::RunCancelled, r#""run_cancelled""#;
        IncompleteReason::RunExpired => IncompleteReason::RunExpired, r#""run_expired""#;
        IncompleteReason::RunFailed => IncompleteReason::RunFailed, r#""run_failed""#;
    }
    variants! { Role:
        Role::User => Role::User, r#""user""#;
        Role::Assistant => Role::Assistant, r#""assistant""#;
    }
    // Of rows in `webhook_events.snapshot`.
    variants! { FileStatus:
        FileStatus::InProgress => FileStatus::InProgress, r#""in_progress""#;
        FileStatus::Completed => FileStatus::Completed, r#""completed""#;
        FileStatus::Cancelled => FileStatus::Cancelled, r#""cancelled""#;
        FileStatus::Failed => FileStatus::Failed, r#""failed""#;
    }
}

#[test]
fn content_of_messages() {
    let annotation = |target| Annotation {
        text: "there".to_owned(),
        start: 1,
        end: 6,
        target,
    };
    variants! { Content:
        Content::Text { .. } => Content::Text {
                value: "Look there".to_owned(),
                annotations: vec![annotation(AnnotationTarget::FilePath(id("file-1")))],
            },
            r#"{"type": "text", "value": "Look there", "annotations": [{"text": "there",
                "start": 1, "end": 6, "target": {"file_path": "file-1"}}]}"#;
        Content::Refusal { .. } => Content::Refusal { refusal: "No.".to_owned() },
            r#"{"type": "refusal", "refusal": "No."}"#;
        Content::ImageFile { .. } => Content::ImageFile {
                file: id("file-1"),
                detail: Some(ImageDetail::High),
            },
            r#"{"type": "image_file", "file": "file-1", "detail": "high"}"#;
        Content::ImageUrl { .. } => Content::ImageUrl {
                url: "https://example.com/a.png".to_owned(),
                detail: ImageDetail::Auto,
            },
            r#"{"type": "image_url", "url": "https://example.com/a.png", "detail": "auto"}"#;
    }
    stored(&Content::text("a"), r#"{"type": "text", "value": "a"}"#);
    let picture = Content::ImageFile {
        file: id("file-1"),
        detail: None,
    };
    stored(&picture, r#"{"type": "image_file", "file": "file-1"}"#);
    variants! { AnnotationTarget:
        AnnotationTarget::FilePath(_) => AnnotationTarget::FilePath(id("file-1")),
            r#"{"file_path": "file-1"}"#;
        AnnotationTarget::FileCitation(_) => AnnotationTarget::FileCitation(id("file-1")),
            r#"{"file_citation": "file-1"}"#;
    }
    variants! { ImageDetail:
        ImageDetail::Auto => ImageDetail::Auto, r#""auto""#;
        ImageDetail::Low => ImageDetail::Low, r#""low""#;
        ImageDetail::High => ImageDetail::High, r#""high""#;
    }
}

#[test]
fn attachments_of_messages() {
    let attachment = Attachment {
        file_id: Some(id("file-1")),
        tools: vec![AttachmentTool::CodeInterpreter],
    };
    let text = r#"{"file_id": "file-1", "tools": [{"type": "code_interpreter"}]}"#;
    stored(&attachment, text);
    variants! { AttachmentTool:
        AttachmentTool::CodeInterpreter => AttachmentTool::CodeInterpreter,
            r#"{"type": "code_interpreter"}"#;
        AttachmentTool::FileSearch => AttachmentTool::FileSearch, r#"{"type": "file_search"}"#;
    }
}

#[test]
fn details_of_run_steps() {
    variants! { StepDetails:
        StepDetails::MessageCreation { .. } => StepDetails::MessageCreation { message: id("msg_1") },
            r#"{"type": "message_creation", "message": "msg_1"}"#;
        StepDetails::ToolCalls { .. } => StepDetails::ToolCalls {
                calls: vec![ToolCall {
                    id: "call_1".to_owned(),
                    body: ToolCallBody::CodeInterpreter(CodeCall {
                        input: "1".to_owned(),
                        ..CodeCall::default()
                    }),
                }],
            },
            r#"{"type": "tool_calls", "calls": [{"id": "call_1",
                "code_interpreter": {"input": "1", "outputs": null, "restarted": false}}]}"#;
    }
}

#[test]
fn tool_calls() {
    let search = SearchCall {
        arguments: "{\"queries\": [\"a\"]}".to_owned(),
        ranker: "auto".to_owned(),
        score_threshold: 0.0,
        ordinal: 4,
        results: Some(vec![SearchResult {
            file: id("file-1"),
            file_name: "a.pdf".to_owned(),
            score: 0.5,
            attributes: serde_json::Map::new(),
            page: Some(2),
            heading: Some("Heading".to_owned()),
            content: "Text".to_owned(),
        }]),
    };
    variants! { ToolCallBody:
        ToolCallBody::Function(_) => ToolCallBody::Function(FunctionCall {
                name: "f".to_owned(),
                arguments: "{}".to_owned(),
                output: Some("1".to_owned()),
            }),
            r#"{"function": {"name": "f", "arguments": "{}", "output": "1"}}"#;
        ToolCallBody::CodeInterpreter(_) => ToolCallBody::CodeInterpreter(CodeCall {
                input: "print(1)".to_owned(),
                outputs: Some(vec![CodeOutput::Logs("1".to_owned())]),
                notes: vec!["A note.".to_owned()],
                restarted: true,
            }),
            r#"{"code_interpreter": {"input": "print(1)", "outputs": [{"logs": "1"}],
                "notes": ["A note."], "restarted": true}}"#;
        ToolCallBody::FileSearch(_) => ToolCallBody::FileSearch(search),
            r#"{"file_search": {"arguments": "{\"queries\": [\"a\"]}", "ranker": "auto",
                "score_threshold": 0.0, "place": 4, "results": [{"file": "file-1",
                "file_name": "a.pdf", "score": 0.5, "attributes": {}, "page": 2,
                "heading": "Heading", "content": "Text"}]}}"#;
    }
    variants! { CodeOutput:
        CodeOutput::Logs(_) => CodeOutput::Logs("1".to_owned()), r#"{"logs": "1"}"#;
        CodeOutput::Image(_) => CodeOutput::Image(id("file-1")), r#"{"image": "file-1"}"#;
    }
    let call = CodeCall {
        input: "1".to_owned(),
        ..CodeCall::default()
    };
    legacy(&call, r#"{"input": "1", "outputs": null}"#);
}

#[test]
fn events_of_runs() {
    variants! { RunEvent:
        RunEvent::RunCreated(_) => RunEvent::RunCreated(Box::new(run_state())),
            &event("RunCreated", RUN_STATE);
        RunEvent::RunChanged(_) => RunEvent::RunChanged(Box::new(run_state())),
            &event("RunChanged", RUN_STATE);
        RunEvent::StepCreated(_) => RunEvent::StepCreated(Box::new(run_step())),
            &event("StepCreated", RUN_STEP);
        RunEvent::StepInProgress(_) => RunEvent::StepInProgress(Box::new(run_step())),
            &event("StepInProgress", RUN_STEP);
        RunEvent::StepDelta { .. } => RunEvent::StepDelta {
                step: id("step_1"),
                index: 1,
                delta: ToolCallDelta::CodeInput("1".to_owned()),
            },
            r#"{"StepDelta": {"step": "step_1", "index": 1, "delta": {"CodeInput": "1"}}}"#;
        RunEvent::StepEnded(_) => RunEvent::StepEnded(Box::new(run_step())),
            &event("StepEnded", RUN_STEP);
        RunEvent::MessageCreated(_) => RunEvent::MessageCreated(Box::new(message())),
            &event("MessageCreated", MESSAGE);
        RunEvent::MessageInProgress(_) => RunEvent::MessageInProgress(Box::new(message())),
            &event("MessageInProgress", MESSAGE);
        RunEvent::MessageDelta { .. } => RunEvent::MessageDelta {
                message: id("msg_1"),
                index: 0,
                first: true,
                delta: ContentDelta::Text("a".to_owned()),
            },
            r#"{"MessageDelta": {"message": "msg_1", "index": 0, "first": true,
                "delta": {"Text": "a"}}}"#;
        RunEvent::MessageEnded(_) => RunEvent::MessageEnded(Box::new(message())),
            &event("MessageEnded", MESSAGE);
    }
    stored(&Seq(7), "7");
}

#[test]
fn pieces_of_events() {
    variants! { ToolCallDelta:
        ToolCallDelta::FunctionBegan { .. } => ToolCallDelta::FunctionBegan {
                id: "call_1".to_owned(),
                name: "f".to_owned(),
            },
            r#"{"FunctionBegan": {"id": "call_1", "name": "f"}}"#;
        ToolCallDelta::FunctionArguments(_) => ToolCallDelta::FunctionArguments("{".to_owned()),
            r#"{"FunctionArguments": "{"}"#;
        ToolCallDelta::SearchBegan { .. } => ToolCallDelta::SearchBegan {
                id: "call_1".to_owned(),
                ranker: "auto".to_owned(),
                score_threshold: 0.5,
            },
            r#"{"SearchBegan": {"id": "call_1", "ranker": "auto", "score_threshold": 0.5}}"#;
        ToolCallDelta::CodeBegan { .. } => ToolCallDelta::CodeBegan { id: "call_1".to_owned() },
            r#"{"CodeBegan": {"id": "call_1"}}"#;
        ToolCallDelta::CodeInput(_) => ToolCallDelta::CodeInput("1".to_owned()),
            r#"{"CodeInput": "1"}"#;
        ToolCallDelta::CodeLogs { .. } => ToolCallDelta::CodeLogs {
                output: 0,
                logs: "1".to_owned(),
            },
            r#"{"CodeLogs": {"output": 0, "logs": "1"}}"#;
        ToolCallDelta::CodeImage { .. } => ToolCallDelta::CodeImage {
                output: 1,
                file: id("file-1"),
            },
            r#"{"CodeImage": {"output": 1, "file": "file-1"}}"#;
    }
    let annotation = Annotation {
        text: "a".to_owned(),
        start: 0,
        end: 1,
        target: AnnotationTarget::FileCitation(id("file-1")),
    };
    variants! { ContentDelta:
        ContentDelta::Text(_) => ContentDelta::Text("a".to_owned()), r#"{"Text": "a"}"#;
        ContentDelta::Annotated { .. } => ContentDelta::Annotated { index: 2, annotation },
            r#"{"Annotated": {"index": 2, "annotation": {"text": "a", "start": 0, "end": 1,
                "target": {"file_citation": "file-1"}}}}"#;
        ContentDelta::Refusal(_) => ContentDelta::Refusal("No.".to_owned()),
            r#"{"Refusal": "No."}"#;
        ContentDelta::Image(_) => ContentDelta::Image(id("file-1")), r#"{"Image": "file-1"}"#;
    }
}

#[test]
fn errors_and_attributes_of_files_in_vector_stores() {
    let error = IndexError {
        code: IndexErrorCode::InvalidFile,
        message: "It is empty.".to_owned(),
    };
    stored(
        &error,
        r#"{"code": "invalid_file", "message": "It is empty."}"#,
    );
    written(
        &IndexError::without_contents(),
        r#"{"code": "invalid_file", "message": "The contents of this file are not on this server. Upload it again, or let the operator attach them with `assistd import --files`: it is indexed then."}"#,
    );
    variants! { IndexErrorCode:
        IndexErrorCode::ServerError => IndexErrorCode::ServerError, r#""server_error""#;
        IndexErrorCode::UnsupportedFile => IndexErrorCode::UnsupportedFile,
            r#""unsupported_file""#;
        IndexErrorCode::InvalidFile => IndexErrorCode::InvalidFile, r#""invalid_file""#;
    }
    variants! { AttributeValue:
        AttributeValue::Flag(_) => AttributeValue::Flag(true), "true";
        AttributeValue::Number(_) => AttributeValue::Number(5.into()), "5";
        AttributeValue::Text(_) => AttributeValue::Text("a".to_owned()), r#""a""#;
    }
}

#[test]
fn limits_in_the_audit_log() {
    let limits = ProjectLimits {
        max_concurrent_runs: Some(1),
        requests_per_minute: None,
        tokens_per_minute: Some(2),
        storage_bytes: Some(3),
    };
    let text = r#"{
        "max_concurrent_runs": 1, "requests_per_minute": null, "tokens_per_minute": 2,
        "storage_bytes": 3
    }"#;
    stored(&limits, text);
}

/// Some statements take rows as JSON and name the fields of these types as columns.
#[test]
fn rows_that_statements_take_as_json() {
    stored(&message(), MESSAGE);
    stored(&run_step(), RUN_STEP);
    let thread = Thread {
        id: id("thread_1"),
        created_at: at(1),
        metadata: Default::default(),
        tool_resources: ToolResources::default(),
    };
    let text = r#"{
        "id": "thread_1", "created_at": "1970-01-01T00:00:01.250Z", "metadata": {},
        "tool_resources": {}
    }"#;
    stored(&thread, text);
    let new = NewMessage {
        role: Role::User,
        content: vec![Content::text("a")],
        attachments: Vec::new(),
        metadata: Default::default(),
    };
    let text = r#"{
        "role": "user", "content": [{"type": "text", "value": "a"}], "attachments": [],
        "metadata": {}
    }"#;
    written(&new, text);
    let usage = UsageEntry {
        id: "01980000000070008000000000000000".to_owned(),
        at: at(1),
        model: "gpt-4o".to_owned(),
        amounts: Amounts {
            runs: 1,
            model_calls: 2,
            prompt_tokens: 3,
            completion_tokens: 4,
            code_calls: 5,
            search_calls: 6,
            function_calls: 7,
            sandbox_ms: 8,
        },
    };
    let text = r#"{
        "id": "01980000000070008000000000000000", "at": "1970-01-01T00:00:01.250Z",
        "model": "gpt-4o", "runs": 1, "model_calls": 2, "prompt_tokens": 3,
        "completion_tokens": 4, "code_calls": 5, "search_calls": 6, "function_calls": 7,
        "sandbox_ms": 8
    }"#;
    written(&usage, text);
}
