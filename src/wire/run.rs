//! Runs.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::domain::Metadata;
use crate::domain::assistant::AssistantConfig;
use crate::domain::ids::AssistantId;
use crate::domain::message::NewMessage;
use crate::domain::run::{
    Run, RunConfig, RunError, RunIncompleteReason, RunState, RunStatus, Truncation, Usage,
};
use crate::domain::tool::{Tool, ToolCall, ToolCallBody, ToolChoice};
use crate::wire::ParseError;
use crate::wire::assistant::SharedSettings;
use crate::wire::json::Kind;
use crate::wire::object::{self, Object, invalid_value, missing};
use crate::wire::seconds;

/// A run.
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
    tool_resources: Resources,
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

/// Runs have no tool resources of their own; the hosted service showed an empty object.
#[derive(Debug, Serialize)]
struct Resources {}

impl<'a> RunObject<'a> {
    /// The run as it was in the given state.
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
            tool_resources: Resources {},
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
            // Never the caller's to answer.
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

/// The API has no word for the content filter here; the message's own details have.
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

/// Tokens spent. `prompt_token_details` is singular on the wire.
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
        let typed = |serializer: S, kind: &str| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry("type", kind)?;
            map.end()
        };
        match self.0 {
            ToolChoice::None => serializer.serialize_str("none"),
            ToolChoice::Auto => serializer.serialize_str("auto"),
            ToolChoice::Required => serializer.serialize_str("required"),
            ToolChoice::CodeInterpreter => typed(serializer, "code_interpreter"),
            ToolChoice::FileSearch => typed(serializer, "file_search"),
            ToolChoice::Function(name) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("type", "function")?;
                map.serialize_entry("function", &Named { name })?;
                map.end()
            }
        }
    }
}

/// What a client asks for when it creates a run: the settings override the assistant's.
#[derive(Debug)]
pub struct CreateRun {
    /// The assistant.
    pub assistant: AssistantId,
    /// Whether the answer is to be a stream.
    pub stream: bool,
    /// Messages to append to the thread first.
    pub additional_messages: Vec<NewMessage>,
    /// What to attach to the run.
    pub metadata: Metadata,
    model: Option<String>,
    additional_instructions: Option<String>,
    overrides: SharedSettings,
    max_prompt_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    truncation: Truncation,
    tool_choice: ToolChoice,
    parallel_tool_calls: bool,
}

impl CreateRun {
    /// Takes the fields of a run on an existing thread out of a body; the caller looks at what is
    /// left.
    pub fn parse(body: &mut Object) -> Result<Self, ParseError> {
        let additional_messages = super::message::parse_all(body, "additional_messages")?;
        let additional_instructions = body.string("additional_instructions", 256_000)?;
        let request = Self::parse_without_messages(body)?;
        Ok(Self {
            additional_messages,
            additional_instructions,
            ..request
        })
    }

    /// The same for a run that comes with its thread.
    pub fn parse_without_messages(body: &mut Object) -> Result<Self, ParseError> {
        let overrides = SharedSettings::parse(body)?;
        let tokens = |body: &mut Object, name| -> Result<Option<u32>, ParseError> {
            let given = body.integer(name, 256, i64::from(u32::MAX))?;
            Ok(given.map(|tokens| u32::try_from(tokens).expect("it is in range")))
        };
        Ok(Self {
            assistant: body.required_id("assistant_id")?,
            stream: body.boolean("stream")?.unwrap_or(false),
            additional_messages: Vec::new(),
            metadata: body.metadata()?.unwrap_or_default(),
            model: body.string("model", 256)?,
            additional_instructions: None,
            overrides,
            max_prompt_tokens: tokens(body, "max_prompt_tokens")?,
            max_completion_tokens: tokens(body, "max_completion_tokens")?,
            truncation: parse_truncation(body)?,
            tool_choice: parse_tool_choice(body)?,
            parallel_tool_calls: body.boolean("parallel_tool_calls")?.unwrap_or(true),
        })
    }

    /// The settings of the run: the assistant's with the overrides applied. An override that is null
    /// keeps the assistant's setting: clients send null for all that they do not set.
    pub fn config(&self, assistant: AssistantConfig) -> Result<RunConfig, ParseError> {
        let AssistantConfig {
            model,
            instructions,
            tools,
            temperature,
            top_p,
            reasoning_effort,
            response_format,
            name: _,
            description: _,
        } = assistant;
        let overrides = &self.overrides;
        let mut config = RunConfig {
            model: self.model.clone().unwrap_or(model),
            instructions: overridden(&overrides.instructions, instructions).unwrap_or_default(),
            tools: overrides.tools.clone().unwrap_or(tools),
            temperature: overridden(&overrides.temperature, temperature),
            top_p: overridden(&overrides.top_p, top_p),
            reasoning_effort: overridden(&overrides.reasoning_effort, reasoning_effort),
            response_format: overrides
                .response_format
                .clone()
                .flatten()
                .unwrap_or(response_format),
            tool_choice: self.tool_choice.clone(),
            parallel_tool_calls: self.parallel_tool_calls,
            max_prompt_tokens: self.max_prompt_tokens,
            max_completion_tokens: self.max_completion_tokens,
            truncation: self.truncation,
        };
        if let Some(more) = &self.additional_instructions {
            if !config.instructions.is_empty() {
                config.instructions.push_str("\n\n");
            }
            config.instructions.push_str(more);
        }
        check_tools(&config)?;
        Ok(config)
    }
}

fn overridden<T: Clone>(given: &Option<Option<T>>, assistants: Option<T>) -> Option<T> {
    given.clone().flatten().or(assistants)
}

/// A run offers the model no two tools of one name, and a forced choice must exist.
fn check_tools(config: &RunConfig) -> Result<(), ParseError> {
    let offers = |name: &str| {
        config.tools.iter().any(|tool| match tool {
            Tool::CodeInterpreter => name == "code_interpreter",
            Tool::FileSearch { .. } => name == "file_search",
            Tool::Function { .. } => false,
        })
    };
    let namesake = config.tools.iter().find_map(|tool| match tool {
        Tool::Function { function } if offers(&function.name) => Some(&function.name),
        Tool::Function { .. } | Tool::CodeInterpreter | Tool::FileSearch { .. } => None,
    });
    if let Some(name) = namesake {
        return Err(ParseError::new(format!(
            "Invalid 'tools': a function cannot be named '{name}' beside the tool of that name, \
             because models could not tell them apart."
        ))
        .param("tools")
        .code("invalid_value"));
    }
    let offered = match &config.tool_choice {
        ToolChoice::None | ToolChoice::Auto => true,
        ToolChoice::Required => !config.tools.is_empty(),
        ToolChoice::CodeInterpreter => config.tools.contains(&Tool::CodeInterpreter),
        ToolChoice::FileSearch => config
            .tools
            .iter()
            .any(|tool| matches!(tool, Tool::FileSearch { .. })),
        ToolChoice::Function(name) => config
            .tools
            .iter()
            .any(|tool| matches!(tool, Tool::Function { function } if function.name == *name)),
    };
    if offered {
        return Ok(());
    }
    Err(
        ParseError::new("Invalid 'tool_choice': the tool it asks for is not among the 'tools'.")
            .param("tool_choice")
            .code("invalid_value"),
    )
}

fn parse_truncation(body: &mut Object) -> Result<Truncation, ParseError> {
    let Some(mut strategy) = body.object("truncation_strategy")? else {
        return Ok(Truncation::Auto);
    };
    let last = strategy.kind(&[("auto", false), ("last_messages", true)])?;
    let path = strategy.path("last_messages");
    let count = strategy.integer("last_messages", 1, i64::from(u32::MAX))?;
    strategy.finish()?;
    match (last, count) {
        (false, None) => Ok(Truncation::Auto),
        (true, Some(count)) => Ok(Truncation::LastMessages(
            u32::try_from(count).expect("it is in range"),
        )),
        (true, None) => Err(missing(&path)),
        (false, Some(_)) => Err(ParseError::new(format!(
            "Invalid '{path}': it is for truncation strategies of type 'last_messages' only."
        ))
        .param(path)
        .code("invalid_value")),
    }
}

#[derive(Clone, Copy)]
enum ForcedTool {
    CodeInterpreter,
    FileSearch,
    Function,
}

fn parse_tool_choice(body: &mut Object) -> Result<ToolChoice, ParseError> {
    let path = body.path("tool_choice");
    let choice = match body.any("tool_choice") {
        None => return Ok(ToolChoice::Auto),
        Some(word) if word.kind() == Kind::String => {
            return match object::string(&path, word, usize::MAX)?.as_str() {
                "none" => Ok(ToolChoice::None),
                "auto" => Ok(ToolChoice::Auto),
                "required" => Ok(ToolChoice::Required),
                other => Err(invalid_value(&path, other, &["none", "auto", "required"])),
            };
        }
        Some(choice) => choice,
    };
    let mut choice = Object::at(path, choice)?;
    let forced = match choice.kind(&[
        ("code_interpreter", ForcedTool::CodeInterpreter),
        ("file_search", ForcedTool::FileSearch),
        ("function", ForcedTool::Function),
    ])? {
        ForcedTool::CodeInterpreter => ToolChoice::CodeInterpreter,
        ForcedTool::FileSearch => ToolChoice::FileSearch,
        ForcedTool::Function => {
            let path = choice.path("function");
            let mut function = choice.object("function")?.ok_or_else(|| missing(&path))?;
            let name = function.required_string("name", 64)?;
            function.finish()?;
            ToolChoice::Function(name)
        }
    };
    choice.finish()?;
    Ok(forced)
}

/// The outputs that a client submits, by call.
pub fn parse_outputs(mut body: Object) -> Result<(Vec<(String, String)>, bool), ParseError> {
    let stream = body.boolean("stream")?.unwrap_or(false);
    let outputs = body
        .objects("tool_outputs", 1_000)?
        .ok_or_else(|| missing("tool_outputs"))?;
    body.finish()?;
    let parse = |mut output: Object| {
        let id = output.string("tool_call_id", 256)?.unwrap_or_default();
        let text = output.string("output", usize::MAX)?.unwrap_or_default();
        output.finish()?;
        Ok((id, text))
    };
    Ok((
        outputs
            .into_iter()
            .map(parse)
            .collect::<Result<_, ParseError>>()?,
        stream,
    ))
}
