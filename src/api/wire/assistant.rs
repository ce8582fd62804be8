//! Assistants, and the tools and tool resources that threads and runs show too.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::api::error::ApiError;
use crate::api::validate::{Object, invalid_value, missing};
use crate::api::wire::seconds;
use crate::api::wire::vector_store::parse_helper;
use crate::domain::Metadata;
use crate::domain::assistant::{
    Assistant, AssistantConfig, CodeInterpreterResources, FileSearchResources, ToolResources,
};
use crate::domain::tool::{Function, Tool};
use crate::domain::vector_store::NewVectorStore;
use crate::domain::vector_store::Weights;

/// An assistant.
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
    tool_resources: ResourcesObject<'a>,
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
            tool_resources: ResourcesObject {
                resources: tool_resources,
                code_interpreter: config.tools.contains(&Tool::CodeInterpreter),
            },
            metadata,
            response_format: &config.response_format,
        }
    }
}

/// Tool resources; an enabled code_interpreter shows its list of files even when it is empty.
#[derive(Debug)]
pub struct ResourcesObject<'a> {
    /// What is set.
    pub resources: &'a ToolResources,
    /// Whether the tool is enabled.
    pub code_interpreter: bool,
}

impl Serialize for ResourcesObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.code_interpreter && self.resources.code_interpreter.is_none() {
            let mut shown = self.resources.clone();
            shown.code_interpreter = Some(Default::default());
            return shown.serialize(serializer);
        }
        self.resources.serialize(serializer)
    }
}

const INSTRUCTIONS_MAX: usize = 256_000;
const TOOLS_MAX: usize = 128;

/// Settings that requests for assistants and for runs have in common, as far as they are given.
/// Null means the default.
pub fn parse_shared(body: &mut Object, changes: &mut Map<String, Value>) -> Result<(), ApiError> {
    if body.has("instructions") {
        changes.insert(
            "instructions".into(),
            json!(body.string("instructions", INSTRUCTIONS_MAX)?),
        );
    }
    if body.has("tools") {
        changes.insert("tools".into(), json!(parse_tools(body)?));
    }
    if body.has("temperature") {
        changes.insert(
            "temperature".into(),
            json!(body.decimal("temperature", 0.0, 2.0)?),
        );
    }
    if body.has("top_p") {
        changes.insert("top_p".into(), json!(body.decimal("top_p", 0.0, 1.0)?));
    }
    if body.has("reasoning_effort") {
        let words = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
        let effort = body.word("reasoning_effort", &words.map(|word| (word, word)))?;
        changes.insert("reasoning_effort".into(), json!(effort));
    }
    if body.has("response_format") {
        changes.insert("response_format".into(), parse_response_format(body)?);
    }
    Ok(())
}

/// An assistant's settings, as far as they are given.
pub fn parse_changes(body: &mut Object) -> Result<Map<String, Value>, ApiError> {
    let mut changes = Map::new();
    if body.has("model") {
        changes.insert("model".into(), json!(body.required_string("model", 256)?));
    }
    if body.has("name") {
        changes.insert("name".into(), json!(body.string("name", 256)?));
    }
    if body.has("description") {
        let description = body.string("description", 512)?;
        changes.insert("description".into(), json!(description));
    }
    parse_shared(body, &mut changes)?;
    Ok(changes)
}

/// A new assistant's settings.
pub fn parse_config(body: &mut Object) -> Result<AssistantConfig, ApiError> {
    if !body.has("model") {
        return Err(missing("model"));
    }
    let mut config = Map::new();
    config.insert("tools".into(), json!([]));
    config.insert("response_format".into(), json!("auto"));
    config.extend(parse_changes(body)?);
    serde_json::from_value(Value::Object(config)).map_err(|error| ApiError::internal(&error))
}

fn parse_tools(body: &mut Object) -> Result<Vec<Tool>, ApiError> {
    let tools = body.objects("tools", TOOLS_MAX)?.unwrap_or_default();
    tools.into_iter().map(parse_tool).collect()
}

#[derive(Clone, Copy)]
enum Kind {
    CodeInterpreter,
    FileSearch,
    Function,
}

/// A tool of an assistant or a run.
pub fn parse_tool(mut tool: Object) -> Result<Tool, ApiError> {
    let kind = tool.kind(&[
        ("code_interpreter", Kind::CodeInterpreter),
        ("file_search", Kind::FileSearch),
        ("function", Kind::Function),
    ])?;
    let parsed = match kind {
        Kind::CodeInterpreter => Tool::CodeInterpreter,
        Kind::FileSearch => Tool::FileSearch {
            file_search: parse_file_search(&mut tool)?,
        },
        Kind::Function => Tool::Function {
            function: parse_function(&mut tool)?,
        },
    };
    tool.finish()?;
    Ok(parsed)
}

/// The name of a function or of a schema, as models take it.
fn parse_name(object: &mut Object) -> Result<String, ApiError> {
    let path = object.path("name");
    let name = object.required_string("name", 64)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(ApiError::invalid(format!(
            "Invalid '{path}': string does not match pattern. Expected a string that matches the \
             pattern '^[a-zA-Z0-9_-]+$'."
        ))
        .param(path)
        .code("invalid_value"));
    }
    Ok(name)
}

fn parse_function(tool: &mut Object) -> Result<Function, ApiError> {
    let mut function = tool
        .object("function")?
        .ok_or_else(|| missing(&tool.path("function")))?;
    let name = parse_name(&mut function)?;
    let description = function.string("description", usize::MAX)?;
    let parameters = match function.object("parameters")? {
        Some(object) => Value::Object(object.rest()),
        None => json!({"type": "object", "properties": {}}),
    };
    let strict = function.boolean("strict")?.unwrap_or(false);
    function.finish()?;
    Ok(Function {
        name,
        description,
        parameters,
        strict,
    })
}

fn parse_file_search(tool: &mut Object) -> Result<Map<String, Value>, ApiError> {
    let mut shown = Map::new();
    let mut ranker = "default_2024_08_21";
    let mut threshold = 0.0;
    let mut weights = None;
    if let Some(mut settings) = tool.object("file_search")? {
        if let Some(most) = settings.integer("max_num_results", 1, 50)? {
            shown.insert("max_num_results".into(), json!(most));
        }
        if let Some(mut ranking) = settings.object("ranking_options")? {
            let words = ["auto", "default_2024_08_21"];
            ranker = ranking
                .word("ranker", &words.map(|word| (word, word)))?
                .unwrap_or(ranker);
            threshold = ranking
                .decimal("score_threshold", 0.0, 1.0)?
                .unwrap_or(threshold);
            weights = parse_weights(&mut ranking)?;
            ranking.finish()?;
        }
        settings.finish()?;
    }
    shown.insert(
        "ranking_options".into(),
        json!({"ranker": ranker, "score_threshold": threshold, "hybrid_search": weights}),
    );
    Ok(shown)
}

/// How much words and meaning count in a search: `hybrid_search` of ranking options.
pub fn parse_weights(ranking: &mut Object) -> Result<Option<Weights>, ApiError> {
    let Some(mut hybrid) = ranking.object("hybrid_search")? else {
        return Ok(None);
    };
    let default = Weights::default();
    let weights = Weights {
        meaning: hybrid
            .decimal("embedding_weight", 0.0, f64::MAX)?
            .unwrap_or(default.meaning),
        words: hybrid
            .decimal("text_weight", 0.0, f64::MAX)?
            .unwrap_or(default.words),
    };
    hybrid.finish()?;
    if weights.meaning + weights.words > 0.0 {
        return Ok(Some(weights));
    }
    let path = ranking.path("hybrid_search");
    let message = format!("Invalid '{path}': at least one of its weights must be greater than 0.");
    Err(ApiError::invalid(message).param(path).code("invalid_value"))
}

/// Tool resources of something new, which may bring a vector store that is to be made.
#[derive(Debug, Default)]
pub struct NewToolResources {
    /// What exists already.
    pub named: ToolResources,
    /// What is to be made for file_search; then no vector store is named.
    pub vector_store: Option<NewVectorStore>,
}

/// Files for code_interpreter, and the vector store for file_search.
pub fn parse_tool_resources(body: &mut Object) -> Result<ToolResources, ApiError> {
    let Some(mut resources) = body.object("tool_resources")? else {
        return Ok(ToolResources::default());
    };
    let mut parsed = ToolResources {
        code_interpreter: parse_code_interpreter_resources(&mut resources)?,
        file_search: None,
    };
    if let Some(mut tool) = resources.object("file_search")? {
        let vector_store_ids = tool.ids("vector_store_ids", 1)?.unwrap_or_default();
        tool.finish()?;
        parsed.file_search = Some(FileSearchResources { vector_store_ids });
    }
    resources.finish()?;
    Ok(parsed)
}

/// The same for something new: the vector store may be one that is to be made.
pub fn parse_new_tool_resources(body: &mut Object) -> Result<NewToolResources, ApiError> {
    let mut parsed = NewToolResources::default();
    let Some(mut resources) = body.object("tool_resources")? else {
        return Ok(parsed);
    };
    parsed.named.code_interpreter = parse_code_interpreter_resources(&mut resources)?;
    if let Some(mut tool) = resources.object("file_search")? {
        let ids = tool.ids("vector_store_ids", 1)?;
        let path = tool.path("vector_stores");
        let stores = tool.objects("vector_stores", 1)?;
        tool.finish()?;
        if ids.is_some() && stores.is_some() {
            return Err(ApiError::invalid(
                "'vector_store_ids' and 'vector_stores' are mutually exclusive.",
            )
            .param(path)
            .code("invalid_value"));
        }
        let store = stores.unwrap_or_default().pop();
        parsed.vector_store = store.map(parse_helper).transpose()?;
        parsed.named.file_search = Some(FileSearchResources {
            vector_store_ids: ids.unwrap_or_default(),
        });
    }
    resources.finish()?;
    Ok(parsed)
}

fn parse_code_interpreter_resources(
    resources: &mut Object,
) -> Result<Option<CodeInterpreterResources>, ApiError> {
    let Some(mut tool) = resources.object("code_interpreter")? else {
        return Ok(None);
    };
    let file_ids = tool.ids("file_ids", 20)?.unwrap_or_default();
    tool.finish()?;
    Ok(Some(CodeInterpreterResources { file_ids }))
}

/// `"auto"` or an object with a type; checked, and kept word for word.
fn parse_response_format(body: &mut Object) -> Result<Value, ApiError> {
    let path = body.path("response_format");
    let mut given = match body.any("response_format") {
        None => return Ok(json!("auto")),
        Some(Value::String(word)) if word == "auto" => return Ok(json!("auto")),
        Some(Value::String(word)) => return Err(invalid_value(&path, &word, &["auto"])),
        Some(given) => given,
    };
    let mut format = Object::at(path, given.clone())?;
    let has_schema = format.kind(&[
        ("text", false),
        ("json_object", false),
        ("json_schema", true),
    ])?;
    if has_schema {
        let path = format.path("json_schema");
        let mut schema = format
            .object("json_schema")?
            .ok_or_else(|| missing(&path))?;
        parse_name(&mut schema)?;
        schema.string("description", usize::MAX)?;
        schema.object("schema")?;
        schema.boolean("strict")?;
        schema.finish()?;
    }
    format.finish()?;
    // Null says no more than leaving out does, and is not shown.
    if let Some(schema) = given.get_mut("json_schema").and_then(Value::as_object_mut) {
        schema.retain(|_, value| !value.is_null());
    }
    Ok(given)
}
