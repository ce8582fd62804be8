//! Requests that create or continue runs.

use crate::domain::Metadata;
use crate::domain::assistant::AssistantConfig;
use crate::domain::ids::AssistantId;
use crate::domain::message::NewMessage;
use crate::domain::run::{RunConfig, Truncation};
use crate::domain::tool::{Tool, ToolChoice};
use crate::wire::ParseError;
use crate::wire::assistant::{MAX_INSTRUCTIONS, MAX_MODEL, SharedSettings};
use crate::wire::json::JsonType;
use crate::wire::message;
use crate::wire::object::Object;
use crate::wire::refusal::{invalid_value, missing};
use crate::wire::tool::MAX_FUNCTION_NAME;
use crate::wire::value;

const MIN_TOKEN_LIMIT: i64 = 256;
const MAX_TOOL_OUTPUTS: usize = 1_000;
const MAX_TOOL_CALL_ID: usize = 256;

/// A request to create a run. Its settings override the assistant's.
#[derive(Debug)]
pub struct CreateRun {
    pub assistant: AssistantId,
    pub stream: bool,
    pub additional_messages: Vec<NewMessage>,
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
    /// Takes the fields of a run on an existing thread; the caller finishes the body.
    pub fn parse(body: &mut Object) -> Result<Self, ParseError> {
        let additional_messages = message::parse_all(body, "additional_messages")?;
        let additional_instructions = body.string("additional_instructions", MAX_INSTRUCTIONS)?;
        let request = Self::parse_without_messages(body)?;
        Ok(Self {
            additional_messages,
            additional_instructions,
            ..request
        })
    }

    /// Takes the fields of a run that is created together with its thread.
    pub fn parse_without_messages(body: &mut Object) -> Result<Self, ParseError> {
        let overrides = SharedSettings::parse(body)?;
        let token_limit = |body: &mut Object, name| -> Result<Option<u32>, ParseError> {
            let limit = body.integer(name, MIN_TOKEN_LIMIT, i64::from(u32::MAX))?;
            Ok(limit.map(|limit| u32::try_from(limit).expect("the bounds are those of u32")))
        };
        Ok(Self {
            assistant: body.required_id("assistant_id")?,
            stream: body.boolean("stream")?.unwrap_or(false),
            additional_messages: Vec::new(),
            metadata: body.metadata()?.unwrap_or_default(),
            model: body.string("model", MAX_MODEL)?,
            additional_instructions: None,
            overrides,
            max_prompt_tokens: token_limit(body, "max_prompt_tokens")?,
            max_completion_tokens: token_limit(body, "max_completion_tokens")?,
            truncation: parse_truncation(body)?,
            tool_choice: parse_tool_choice(body)?,
            parallel_tool_calls: body.boolean("parallel_tool_calls")?.unwrap_or(true),
        })
    }

    /// The assistant's settings with the overrides applied. A null override keeps the assistant's
    /// setting, because SDKs send null for every parameter that is not set.
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
            instructions: override_or(&overrides.instructions, instructions).unwrap_or_default(),
            tools: overrides.tools.clone().unwrap_or(tools),
            temperature: override_or(&overrides.temperature, temperature),
            top_p: override_or(&overrides.top_p, top_p),
            reasoning_effort: override_or(&overrides.reasoning_effort, reasoning_effort),
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
        if let Some(additional) = &self.additional_instructions {
            if !config.instructions.is_empty() {
                config.instructions.push_str("\n\n");
            }
            config.instructions.push_str(additional);
        }
        check_tools(&config)?;
        Ok(config)
    }
}

fn override_or<T: Clone>(setting: &Option<Option<T>>, assistants: Option<T>) -> Option<T> {
    setting.clone().flatten().or(assistants)
}

/// Refuses two tools of one name, and a `tool_choice` that is not among the tools.
fn check_tools(config: &RunConfig) -> Result<(), ParseError> {
    let has_tool_named = |name: &str| {
        config.tools.iter().any(|tool| match tool {
            Tool::CodeInterpreter => name == "code_interpreter",
            Tool::FileSearch { .. } => name == "file_search",
            Tool::Function { .. } => false,
        })
    };
    let namesake = config.tools.iter().find_map(|tool| match tool {
        Tool::Function { function } if has_tool_named(&function.name) => Some(&function.name),
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
    let is_available = match &config.tool_choice {
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
    if is_available {
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
    let is_last_messages = strategy.type_tag(&[("auto", false), ("last_messages", true)])?;
    let path = strategy.path("last_messages");
    let count = strategy.integer("last_messages", 1, i64::from(u32::MAX))?;
    strategy.finish()?;
    match (is_last_messages, count) {
        (false, None) => Ok(Truncation::Auto),
        (true, Some(count)) => Ok(Truncation::LastMessages(
            u32::try_from(count).expect("the bounds are those of u32"),
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
    let choice = match body.take("tool_choice") {
        None => return Ok(ToolChoice::Auto),
        Some(choice) if choice.json_type() == JsonType::String => {
            return match value::string(&path, choice, usize::MAX)?.as_str() {
                "none" => Ok(ToolChoice::None),
                "auto" => Ok(ToolChoice::Auto),
                "required" => Ok(ToolChoice::Required),
                other => Err(invalid_value(&path, other, &["none", "auto", "required"])),
            };
        }
        Some(choice) => choice,
    };
    let mut choice = Object::at(path, choice)?;
    let forced = match choice.type_tag(&[
        ("code_interpreter", ForcedTool::CodeInterpreter),
        ("file_search", ForcedTool::FileSearch),
        ("function", ForcedTool::Function),
    ])? {
        ForcedTool::CodeInterpreter => ToolChoice::CodeInterpreter,
        ForcedTool::FileSearch => ToolChoice::FileSearch,
        ForcedTool::Function => {
            let path = choice.path("function");
            let mut function = choice.object("function")?.ok_or_else(|| missing(&path))?;
            let name = function.required_string("name", MAX_FUNCTION_NAME)?;
            function.finish()?;
            ToolChoice::Function(name)
        }
    };
    choice.finish()?;
    Ok(forced)
}

#[derive(Debug)]
pub struct SubmitToolOutputs {
    /// Pairs of a tool call's id and its output.
    pub outputs: Vec<(String, String)>,
    pub stream: bool,
}

impl SubmitToolOutputs {
    pub fn parse(mut body: Object) -> Result<Self, ParseError> {
        let stream = body.boolean("stream")?.unwrap_or(false);
        let outputs = body
            .objects("tool_outputs", MAX_TOOL_OUTPUTS)?
            .ok_or_else(|| missing("tool_outputs"))?;
        body.finish()?;
        let parse = |mut output: Object| {
            let id = output
                .string("tool_call_id", MAX_TOOL_CALL_ID)?
                .unwrap_or_default();
            let text = output.string("output", usize::MAX)?.unwrap_or_default();
            output.finish()?;
            Ok((id, text))
        };
        let outputs = outputs
            .into_iter()
            .map(parse)
            .collect::<Result<_, ParseError>>()?;
        Ok(Self { outputs, stream })
    }
}
