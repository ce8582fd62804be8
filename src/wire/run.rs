//! Runs.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::domain::Metadata;
use crate::domain::run::{
    Run, RunError, RunIncompleteReason, RunState, RunStatus, Truncation, Usage,
};
use crate::domain::tool::{Tool, ToolCall, ToolCallBody, ToolChoice};
use crate::wire::seconds;

#[derive(Debug, Serialize)]
pub struct RunObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    assistant_id: &'a str,
    thread_id: &'a str,
    status: RunStatus,
    started_at: Option<i64>,
    expires_at: Option<i64>,
    cancelled_at: Option<i64>,
    failed_at: Option<i64>,
    completed_at: Option<i64>,
    required_action: Option<RequiredAction<'a>>,
    last_error: Option<&'a RunError>,
    model: &'a str,
    instructions: &'a str,
    tools: &'a [Tool],
    tool_resources: EmptyResources,
    metadata: &'a Metadata,
    temperature: f64,
    top_p: f64,
    reasoning_effort: Option<&'a str>,
    max_completion_tokens: Option<u32>,
    max_prompt_tokens: Option<u32>,
    truncation_strategy: TruncationObject,
    incomplete_details: Option<IncompleteDetails>,
    usage: Option<UsageObject>,
    response_format: &'a Value,
    tool_choice: ToolChoiceObject<'a>,
    parallel_tool_calls: bool,
}

/// Always empty, as in the hosted API: runs have no tool resources of their own.
#[derive(Debug, Serialize)]
struct EmptyResources {}

impl<'a> RunObject<'a> {
    /// The run as it was in an earlier state.
    pub fn in_state(run: &'a Run, state: &'a RunState) -> Self {
        let config = &*run.config;
        let ended_in = |statuses: &[RunStatus]| {
            state
                .ended_at
                .filter(|_| statuses.contains(&state.status))
                .map(seconds)
        };
        Self {
            id: run.id.as_str(),
            object: "thread.run",
            created_at: seconds(run.created_at),
            assistant_id: run.assistant.as_str(),
            thread_id: run.thread.as_str(),
            status: state.status,
            started_at: state.started_at.map(seconds),
            expires_at: (!state.status.is_terminal()).then(|| seconds(state.expires_at)),
            cancelled_at: ended_in(&[RunStatus::Cancelled]),
            failed_at: ended_in(&[RunStatus::Failed]),
            completed_at: ended_in(&[RunStatus::Completed, RunStatus::Incomplete]),
            required_action: RequiredAction::of(&state.outcome.required_calls),
            last_error: state.outcome.last_error.as_ref(),
            model: &config.model,
            instructions: &config.instructions,
            tools: &config.tools,
            tool_resources: EmptyResources {},
            metadata: &run.metadata,
            temperature: config.temperature.unwrap_or(1.0),
            top_p: config.top_p.unwrap_or(1.0),
            reasoning_effort: config.reasoning_effort.as_deref(),
            max_completion_tokens: config.max_completion_tokens,
            max_prompt_tokens: config.max_prompt_tokens,
            truncation_strategy: config.truncation.into(),
            incomplete_details: state.outcome.incomplete_reason.map(IncompleteDetails::from),
            usage: state.outcome.usage.map(UsageObject::from),
            response_format: &config.response_format,
            tool_choice: ToolChoiceObject(&config.tool_choice),
            parallel_tool_calls: config.parallel_tool_calls,
        }
    }
}

impl<'a> From<&'a Run> for RunObject<'a> {
    fn from(run: &'a Run) -> Self {
        Self::in_state(run, &run.state)
    }
}

#[derive(Debug, Serialize)]
struct RequiredAction<'a> {
    r#type: &'static str,
    submit_tool_outputs: RequiredCalls<'a>,
}

#[derive(Debug, Serialize)]
struct RequiredCalls<'a> {
    tool_calls: Vec<RequiredCall<'a>>,
}

#[derive(Debug, Serialize)]
struct RequiredCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: RequiredFunction<'a>,
}

#[derive(Debug, Serialize)]
struct RequiredFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl<'a> RequiredAction<'a> {
    fn of(calls: &'a [ToolCall]) -> Option<Self> {
        if calls.is_empty() {
            return None;
        }
        let call = |call: &'a ToolCall| match &call.body {
            ToolCallBody::Function(function) => Some(RequiredCall {
                id: &call.id,
                r#type: "function",
                function: RequiredFunction {
                    name: &function.name,
                    arguments: &function.arguments,
                },
            }),
            // The server executes these itself.
            ToolCallBody::CodeInterpreter(_) | ToolCallBody::FileSearch(_) => None,
        };
        let tool_calls = calls.iter().filter_map(call).collect();
        Some(Self {
            r#type: "submit_tool_outputs",
            submit_tool_outputs: RequiredCalls { tool_calls },
        })
    }
}

#[derive(Debug, Serialize)]
struct TruncationObject {
    r#type: &'static str,
    last_messages: Option<u32>,
}

impl From<Truncation> for TruncationObject {
    fn from(truncation: Truncation) -> Self {
        match truncation {
            Truncation::Auto => Self {
                r#type: "auto",
                last_messages: None,
            },
            Truncation::LastMessages(n) => Self {
                r#type: "last_messages",
                last_messages: Some(n),
            },
        }
    }
}

/// A run stopped by the content filter has no reason here; its message's details have one.
#[derive(Debug, Serialize)]
struct IncompleteDetails {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl From<RunIncompleteReason> for IncompleteDetails {
    fn from(reason: RunIncompleteReason) -> Self {
        let reason = match reason {
            RunIncompleteReason::MaxPromptTokens => Some("max_prompt_tokens"),
            RunIncompleteReason::MaxCompletionTokens => Some("max_completion_tokens"),
            RunIncompleteReason::ContentFilter => None,
        };
        Self { reason }
    }
}

/// Token usage. The hosted API spells `prompt_token_details` in the singular.
#[derive(Debug, Serialize)]
pub struct UsageObject {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_token_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u32,
}

#[derive(Debug, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u32,
}

impl From<Usage> for UsageObject {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt,
            completion_tokens: usage.completion,
            total_tokens: usage.prompt.saturating_add(usage.completion),
            prompt_token_details: PromptDetails {
                cached_tokens: usage.cached,
            },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: usage.reasoning,
            },
        }
    }
}

#[derive(Debug)]
struct ToolChoiceObject<'a>(&'a ToolChoice);

impl Serialize for ToolChoiceObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Named<'a> {
            name: &'a str,
        }
        let tagged = |serializer: S, tag: &str| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry("type", tag)?;
            map.end()
        };
        match self.0 {
            ToolChoice::None => serializer.serialize_str("none"),
            ToolChoice::Auto => serializer.serialize_str("auto"),
            ToolChoice::Required => serializer.serialize_str("required"),
            ToolChoice::CodeInterpreter => tagged(serializer, "code_interpreter"),
            ToolChoice::FileSearch => tagged(serializer, "file_search"),
            ToolChoice::Function(name) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("type", "function")?;
                map.serialize_entry("function", &Named { name })?;
                map.end()
            }
        }
    }
}
