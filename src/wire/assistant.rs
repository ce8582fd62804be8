//! Assistants, and the settings that they share with runs.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::domain::Metadata;
use crate::domain::assistant::{Assistant, AssistantConfig};
use crate::domain::tool::Tool;
use crate::wire::json::JsonType;
use crate::wire::object::Object;
use crate::wire::refusal::{invalid_value, missing};
use crate::wire::tool::{parse_function_name, parse_tools};
use crate::wire::tool_resources::ToolResourcesObject;
use crate::wire::value;
use crate::wire::{ParseError, seconds};

#[derive(Debug, Serialize)]
pub struct AssistantObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    name: Option<&'a str>,
    description: Option<&'a str>,
    model: &'a str,
    instructions: Option<&'a str>,
    tools: &'a [Tool],
    top_p: f64,
    temperature: f64,
    reasoning_effort: Option<&'a str>,
    tool_resources: ToolResourcesObject<'a>,
    metadata: &'a Metadata,
    response_format: &'a Value,
}

impl<'a> From<&'a Assistant> for AssistantObject<'a> {
    fn from(assistant: &'a Assistant) -> Self {
        let Assistant {
            id,
            created_at,
            config,
            tool_resources,
            metadata,
        } = assistant;
        Self {
            id: id.as_str(),
            object: "assistant",
            created_at: seconds(*created_at),
            name: config.name.as_deref(),
            description: config.description.as_deref(),
            model: &config.model,
            instructions: config.instructions.as_deref(),
            tools: &config.tools,
            top_p: config.top_p.unwrap_or(1.0),
            temperature: config.temperature.unwrap_or(1.0),
            reasoning_effort: config.reasoning_effort.as_deref(),
            tool_resources: ToolResourcesObject {
                resources: tool_resources,
                has_code_interpreter: config.tools.contains(&Tool::CodeInterpreter),
            },
            metadata,
            response_format: &config.response_format,
        }
    }
}

/// Longest model name, in characters.
pub const MAX_MODEL: usize = 256;
const MAX_NAME: usize = 256;
const MAX_DESCRIPTION: usize = 512;
pub const MAX_INSTRUCTIONS: usize = 256_000;

/// The settings that requests for assistants and for runs share.
///
/// `None` is an absent setting. `Some(None)` is a null: it resets a setting of an assistant, and in a
/// run it keeps the assistant's. The API defines no null for `tools`, so there it counts as absent.
#[derive(Debug, Default)]
pub struct SharedSettings {
    pub instructions: Option<Option<String>>,
    pub tools: Option<Vec<Tool>>,
    pub temperature: Option<Option<f64>>,
    pub top_p: Option<Option<f64>>,
    pub reasoning_effort: Option<Option<String>>,
    pub response_format: Option<Option<Value>>,
}

impl SharedSettings {
    pub fn parse(body: &mut Object) -> Result<Self, ParseError> {
        let efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
        let efforts = efforts.map(|effort| (effort, effort));
        Ok(Self {
            instructions: body.nullable("instructions", |body, name| {
                body.string(name, MAX_INSTRUCTIONS)
            })?,
            tools: parse_tools(body)?,
            temperature: body.nullable("temperature", |body, name| body.decimal(name, 0.0, 2.0))?,
            top_p: body.nullable("top_p", |body, name| body.decimal(name, 0.0, 1.0))?,
            reasoning_effort: body.nullable("reasoning_effort", |body, name| {
                Ok(body.enum_value(name, &efforts)?.map(str::to_owned))
            })?,
            response_format: body.nullable("response_format", parse_response_format)?,
        })
    }
}

fn default_response_format() -> Value {
    json!("auto")
}

pub fn parse_changes(body: &mut Object) -> Result<Map<String, Value>, ParseError> {
    let model = body.string("model", MAX_MODEL)?;
    let name = body.nullable("name", |body, name| body.string(name, MAX_NAME))?;
    let description = body.nullable("description", |body, name| {
        body.string(name, MAX_DESCRIPTION)
    })?;
    let SharedSettings {
        instructions,
        tools,
        temperature,
        top_p,
        reasoning_effort,
        response_format,
    } = SharedSettings::parse(body)?;
    let response_format =
        response_format.map(|format| format.unwrap_or_else(default_response_format));
    let settings = [
        ("model", model.map(|model| json!(model))),
        ("name", name.map(|name| json!(name))),
        ("description", description.map(|text| json!(text))),
        ("instructions", instructions.map(|text| json!(text))),
        ("tools", tools.map(|tools| json!(tools))),
        ("temperature", temperature.map(|number| json!(number))),
        ("top_p", top_p.map(|number| json!(number))),
        (
            "reasoning_effort",
            reasoning_effort.map(|effort| json!(effort)),
        ),
        ("response_format", response_format),
    ];
    let present = settings
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(present.collect())
}

pub fn parse_config(body: &mut Object) -> Result<AssistantConfig, ParseError> {
    let model = body.required_string("model", MAX_MODEL)?;
    let name = body.string("name", MAX_NAME)?;
    let description = body.string("description", MAX_DESCRIPTION)?;
    let shared = SharedSettings::parse(body)?;
    Ok(AssistantConfig {
        model,
        name,
        description,
        instructions: shared.instructions.flatten(),
        tools: shared.tools.unwrap_or_default(),
        temperature: shared.temperature.flatten(),
        top_p: shared.top_p.flatten(),
        reasoning_effort: shared.reasoning_effort.flatten(),
        response_format: shared
            .response_format
            .flatten()
            .unwrap_or_else(default_response_format),
    })
}

/// Validates `"auto"` or an object with a type, and keeps it unchanged.
fn parse_response_format(body: &mut Object, name: &str) -> Result<Option<Value>, ParseError> {
    let path = body.path(name);
    let format = match body.take(name) {
        None => return Ok(None),
        Some(format) if format.json_type() == JsonType::String => {
            return match value::string(&path, format, usize::MAX)?.as_str() {
                "auto" => Ok(Some(default_response_format())),
                other => Err(invalid_value(&path, other, &["auto"])),
            };
        }
        Some(format) => format,
    };
    let mut fields = Object::at(path.clone(), format.clone())?;
    let has_schema = fields.type_tag(&[
        ("text", false),
        ("json_object", false),
        ("json_schema", true),
    ])?;
    if has_schema {
        let path = fields.path("json_schema");
        let mut schema = fields
            .object("json_schema")?
            .ok_or_else(|| missing(&path))?;
        parse_function_name(&mut schema)?;
        schema.string("description", usize::MAX)?;
        schema.arbitrary_object("schema")?;
        schema.boolean("strict")?;
        schema.finish()?;
    }
    fields.finish()?;
    let mut format = value::arbitrary(&path, format)?;
    // A null means the same as an absent field, and the hosted API does not show it.
    if let Some(schema) = format.get_mut("json_schema").and_then(Value::as_object_mut) {
        schema.retain(|_, value| !value.is_null());
    }
    Ok(Some(format))
}
