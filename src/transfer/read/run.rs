//! Runs and their steps.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, json};

use super::{Fields, Read, Reader, stored};
use crate::domain::assistant::AssistantConfig;
use crate::domain::run::{
    Run, RunError, RunErrorCode, RunIncompleteReason, RunOutcome, RunState, RunStatus, Usage,
};
use crate::domain::run_step::{RunStep, StepDetails, StepStatus};
use crate::domain::tool::{
    CodeCall, CodeOutput, FunctionCall, SearchCall, SearchResult, ToolCall, ToolCallBody,
};
use crate::wire::ParseError;
use crate::wire::object::Object;
use crate::wire::refusal::missing;
use crate::wire::run_request::CreateRun;

/// Time until a run expires if the export does not say: the server's default.
const DEFAULT_EXPIRY: Duration = Duration::from_secs(600);

pub(super) fn run(reader: &mut Reader<'_>, mut fields: Fields) -> Read<Run> {
    let created_at = fields.created_at()?;
    let started_at = fields.time("started_at")?;
    let expires_at = fields.time("expires_at")?;
    let ended = [
        fields.time("ended_at")?,
        fields.time("completed_at")?,
        fields.time("failed_at")?,
        fields.time("cancelled_at")?,
    ];
    let hidden_reason = fields.unshown("incomplete_reason")?;
    let shown = &mut fields.shown;
    let id = shown.required_id("id")?;
    let thread = shown.required_id("thread_id")?;
    let status_before = shown.enum_value(
        "status",
        &RunStatus::ALL.map(|status| (status.as_str(), status)),
    )?;
    let status_before = status_before.ok_or_else(|| missing("status"))?;
    let reason = match shown.object("incomplete_details")? {
        Some(mut details) => details.enum_value("reason", &REASONS)?,
        None => None,
    };
    let last_error = parse_error(shown)?;
    let usage = parse_usage(shown)?;

    let request = CreateRun::parse_without_messages(shown)?;
    let mut config = request.config(AssistantConfig {
        model: "unknown".to_owned(),
        name: None,
        description: None,
        instructions: None,
        tools: Vec::new(),
        temperature: None,
        top_p: None,
        reasoning_effort: None,
        response_format: json!("auto"),
    })?;
    config.temperature = fields.sampling("temperature", config.temperature);
    config.top_p = fields.sampling("top_p", config.top_p);

    let expires_at = expires_at.unwrap_or(created_at + DEFAULT_EXPIRY);
    let status = terminal_status(status_before);
    if status != status_before {
        reader.remarks.push(format!(
            "{id} was {}, which nobody here could go on with: it is {}",
            status_before.as_str(),
            status.as_str()
        ));
    }
    let ended_at = ended.into_iter().flatten().next();
    Ok(Run {
        id,
        project: reader.project.clone(),
        thread,
        assistant: request.assistant,
        created_at,
        config: Arc::new(config),
        metadata: request.metadata,
        state: RunState {
            status,
            started_at,
            expires_at,
            ended_at: Some(ended_at.unwrap_or(expires_at.min(reader.now))),
            outcome: RunOutcome {
                required_calls: Vec::new(),
                last_error: last_error.filter(|_| status == RunStatus::Failed),
                incomplete_reason: match hidden_reason {
                    Some(reason) => Some(stored("incomplete_reason", reason)?),
                    None => reason,
                },
                usage,
            },
        },
    })
}

const REASONS: [(&str, RunIncompleteReason); 2] = [
    ("max_prompt_tokens", RunIncompleteReason::MaxPromptTokens),
    (
        "max_completion_tokens",
        RunIncompleteReason::MaxCompletionTokens,
    ),
];

/// The terminal status of a run that was active: nobody can continue it on this server.
fn terminal_status(status: RunStatus) -> RunStatus {
    match status {
        RunStatus::Queued | RunStatus::InProgress | RunStatus::RequiresAction => RunStatus::Expired,
        RunStatus::Cancelling => RunStatus::Cancelled,
        ended @ (RunStatus::Cancelled
        | RunStatus::Failed
        | RunStatus::Completed
        | RunStatus::Incomplete
        | RunStatus::Expired) => ended,
    }
}

fn parse_error(shown: &mut Object) -> Read<Option<RunError>> {
    let Some(mut error) = shown.object("last_error")? else {
        return Ok(None);
    };
    Ok(Some(RunError {
        code: match error.string("code", usize::MAX)?.as_deref() {
            Some("rate_limit_exceeded") => RunErrorCode::RateLimitExceeded,
            Some("invalid_prompt") => RunErrorCode::InvalidPrompt,
            Some(_) | None => RunErrorCode::ServerError,
        },
        message: error.string("message", usize::MAX)?.unwrap_or_default(),
    }))
}

fn parse_usage(shown: &mut Object) -> Read<Option<Usage>> {
    let Some(mut usage) = shown.object("usage")? else {
        return Ok(None);
    };
    let mut detail = |object: &str, name: &str| match usage.object(object)? {
        Some(mut details) => tokens(&mut details, name),
        None => Ok(0),
    };
    let cached = detail("prompt_token_details", "cached_tokens")?;
    let reasoning = detail("completion_tokens_details", "reasoning_tokens")?;
    Ok(Some(Usage {
        prompt: tokens(&mut usage, "prompt_tokens")?,
        completion: tokens(&mut usage, "completion_tokens")?,
        cached,
        reasoning,
    }))
}

fn tokens(object: &mut Object, name: &str) -> Read<u32> {
    let count = object.integer(name, 0, i64::from(u32::MAX))?;
    Ok(count
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(0))
}

pub(super) fn step(reader: &mut Reader<'_>, mut fields: Fields) -> Read<RunStep> {
    let created_at = fields.created_at()?;
    let expires_at = fields.time("expires_at")?;
    let ended = [
        fields.time("ended_at")?,
        fields.time("completed_at")?,
        fields.time("failed_at")?,
        fields.time("cancelled_at")?,
        fields.time("expired_at")?,
    ];
    let details = fields.unshown("details")?;
    let shown = &mut fields.shown;
    let statuses = [
        ("in_progress", StepStatus::InProgress),
        ("cancelled", StepStatus::Cancelled),
        ("failed", StepStatus::Failed),
        ("completed", StepStatus::Completed),
        ("expired", StepStatus::Expired),
    ];
    let status = shown.enum_value("status", &statuses)?;
    let status = match status.ok_or_else(|| missing("status"))? {
        // Its run cannot continue either; `order` adjusts the status to that of the run.
        StepStatus::InProgress => StepStatus::Expired,
        ended @ (StepStatus::Cancelled
        | StepStatus::Failed
        | StepStatus::Completed
        | StepStatus::Expired) => ended,
    };
    let ended_at = ended.into_iter().flatten().next();
    let expires_at = expires_at.unwrap_or(created_at + DEFAULT_EXPIRY);
    Ok(RunStep {
        id: shown.required_id("id")?,
        run: shown.required_id("run_id")?,
        thread: shown.required_id("thread_id")?,
        assistant: shown.required_id("assistant_id")?,
        created_at,
        status,
        expires_at,
        ended_at: Some(ended_at.unwrap_or(expires_at.min(reader.now))),
        last_error: parse_error(shown)?,
        details: match details {
            Some(details) => stored("details", details)?,
            None => parse_details(shown)?,
        },
        usage: parse_usage(shown)?,
    })
}

fn parse_details(shown: &mut Object) -> Read<StepDetails> {
    let mut details = inner(shown, "step_details")?;
    if details.type_tag(&[("message_creation", true), ("tool_calls", false)])? {
        let mut created = inner(&mut details, "message_creation")?;
        let message = created.required_id("message_id")?;
        return Ok(StepDetails::MessageCreation { message });
    }
    let calls = details.objects("tool_calls", usize::MAX)?;
    let calls = calls.unwrap_or_default().into_iter().map(parse_call);
    let calls = calls.collect::<Read<_>>()?;
    Ok(StepDetails::ToolCalls { calls })
}

fn inner(object: &mut Object, name: &str) -> Read<Object> {
    let path = object.path(name);
    object.object(name)?.ok_or_else(|| missing(&path))
}

fn parse_call(mut call: Object) -> Read<ToolCall> {
    let id = call.string("id", usize::MAX)?;
    let body = match call.required_string("type", usize::MAX)?.as_str() {
        "function" => {
            let mut function = inner(&mut call, "function")?;
            ToolCallBody::Function(FunctionCall {
                name: function.required_string("name", usize::MAX)?,
                arguments: function
                    .string("arguments", usize::MAX)?
                    .unwrap_or_default(),
                output: function.string("output", usize::MAX)?,
            })
        }
        "code_interpreter" => {
            let mut code = inner(&mut call, "code_interpreter")?;
            let outputs = code.objects("outputs", usize::MAX)?.unwrap_or_default();
            let outputs = outputs.into_iter().map(parse_output);
            ToolCallBody::CodeInterpreter(CodeCall {
                input: code.string("input", usize::MAX)?.unwrap_or_default(),
                outputs: Some(outputs.collect::<Read<_>>()?),
                ..CodeCall::default()
            })
        }
        "file_search" => ToolCallBody::FileSearch(parse_search(&mut call)?),
        other => {
            let text = format!("calls of the tool '{other}' are unknown.");
            return Err(ParseError::new(text));
        }
    };
    Ok(ToolCall {
        id: id.unwrap_or_else(crate::domain::ids::tool_call_id),
        body,
    })
}

fn parse_output(mut output: Object) -> Read<CodeOutput> {
    if output.type_tag(&[("logs", true), ("image", false)])? {
        let logs = output.string("logs", usize::MAX)?.unwrap_or_default();
        return Ok(CodeOutput::Logs(logs));
    }
    let mut image = inner(&mut output, "image")?;
    Ok(CodeOutput::Image(image.required_id("file_id")?))
}

fn parse_search(call: &mut Object) -> Read<SearchCall> {
    let mut search = match call.object("file_search")? {
        Some(search) => search,
        None => Object::from_fields(Map::new()),
    };
    let mut ranking = match search.object("ranking_options")? {
        Some(ranking) => ranking,
        None => Object::from_fields(Map::new()),
    };
    let results = search.objects("results", usize::MAX)?.unwrap_or_default();
    let results = results.into_iter().map(parse_result);
    Ok(SearchCall {
        // The API does not show the queries.
        arguments: "{}".to_owned(),
        ranker: ranking
            .string("ranker", usize::MAX)?
            .unwrap_or_else(|| "default_2024_08_21".to_owned()),
        score_threshold: ranking.decimal("score_threshold", 0.0, 1.0)?.unwrap_or(0.0),
        ordinal: 0,
        results: Some(results.collect::<Read<_>>()?),
    })
}

fn parse_result(mut result: Object) -> Read<SearchResult> {
    let mut content = String::new();
    for mut passage in result.objects("content", usize::MAX)?.unwrap_or_default() {
        content += &passage.string("text", usize::MAX)?.unwrap_or_default();
    }
    Ok(SearchResult {
        file: result.required_id("file_id")?,
        file_name: result.string("file_name", usize::MAX)?.unwrap_or_default(),
        score: result.decimal("score", 0.0, f64::MAX)?.unwrap_or(0.0),
        attributes: result
            .object("attributes")?
            .map(Object::remaining)
            .transpose()?
            .unwrap_or_default(),
        page: None,
        heading: None,
        content,
    })
}
