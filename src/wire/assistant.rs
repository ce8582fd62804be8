//! Assistants, and the tools and tool resources that threads and runs show too.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::domain::Metadata;
use crate::domain::assistant::{
    Assistant, AssistantConfig, CodeInterpreterResources, FileSearchResources, ToolResources,
};
use crate::domain::tool::{Function, Tool};
use crate::domain::vector_store::NewVectorStore;
use crate::domain::vector_store::Weights;
use crate::wire::ParseError;
use crate::wire::json::Kind;
use crate::wire::object::{self, Object, invalid_value, missing};
use crate::wire::seconds;
use crate::wire::vector_store::parse_helper;

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

const MODEL_MAX: usize = 256;
const NAME_MAX: usize = 256;
const DESCRIPTION_MAX: usize = 512;
const INSTRUCTIONS_MAX: usize = 256_000;
const TOOLS_MAX: usize = 128;

/// Settings that requests for assistants and for runs have in common.
///
/// `None` is a setting that was not given. `Some(None)` is one that was given as null: it resets an
/// assistant's setting, and a run keeps the assistant's. The contract has no null for `tools`, so
/// there null counts as not given.
#[derive(Debug, Default)]
pub struct SharedSettings {
    /// The system prompt.
    pub instructions: Option<Option<String>>,
    /// The tools offered to the model.
    pub tools: Option<Vec<Tool>>,
    /// 0 to 2.
    pub temperature: Option<Option<f64>>,
    /// 0 to 1.
    pub top_p: Option<Option<f64>>,
    /// How long a reasoning model may think.
    pub reasoning_effort: Option<Option<String>>,
    /// `"auto"` or an object with a type.
    pub response_format: Option<Option<Value>>,
}

impl SharedSettings {
    /// Takes the settings out of a body.
    pub fn parse(body: &mut Object) -> Result<Self, ParseError> {
        let efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
        let efforts = efforts.map(|effort| (effort, effort));
        Ok(Self {
            instructions: body.given("instructions", |body, name| {
                body.string(name, INSTRUCTIONS_MAX)
            })?,
            tools: parse_tools(body)?,
            temperature: body.given("temperature", |body, name| body.decimal(name, 0.0, 2.0))?,
            top_p: body.given("top_p", |body, name| body.decimal(name, 0.0, 1.0))?,
            reasoning_effort: body.given("reasoning_effort", |body, name| {
                Ok(body.word(name, &efforts)?.map(str::to_owned))
            })?,
            response_format: body.given("response_format", parse_response_format)?,
        })
    }
}

fn default_response_format() -> Value {
    json!("auto")
}

/// The settings of an assistant that are to change.
pub fn parse_changes(body: &mut Object) -> Result<Map<String, Value>, ParseError> {
    let model = body.string("model", MODEL_MAX)?;
    let name = body.given("name", |body, name| body.string(name, NAME_MAX))?;
    let description = body.given("description", |body, name| {
        body.string(name, DESCRIPTION_MAX)
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
        ("reasoning_effort", reasoning_effort.map(|word| json!(word))),
        ("response_format", response_format),
    ];
    let given = settings
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(given.collect())
}

/// A new assistant's settings.
pub fn parse_config(body: &mut Object) -> Result<AssistantConfig, ParseError> {
    let model = body.required_string("model", MODEL_MAX)?;
    let name = body.string("name", NAME_MAX)?;
    let description = body.string("description", DESCRIPTION_MAX)?;
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

fn parse_tools(body: &mut Object) -> Result<Option<Vec<Tool>>, ParseError> {
    body.check_size("tools")?;
    let Some(tools) = body.objects("tools", TOOLS_MAX)? else {
        return Ok(None);
    };
    tools
        .into_iter()
        .map(parse_tool)
        .collect::<Result<_, _>>()
        .map(Some)
}

#[derive(Clone, Copy)]
enum ToolKind {
    CodeInterpreter,
    FileSearch,
    Function,
}

/// A tool of an assistant or a run.
pub fn parse_tool(mut tool: Object) -> Result<Tool, ParseError> {
    let kind = tool.kind(&[
        ("code_interpreter", ToolKind::CodeInterpreter),
        ("file_search", ToolKind::FileSearch),
        ("function", ToolKind::Function),
    ])?;
    let parsed = match kind {
        ToolKind::CodeInterpreter => Tool::CodeInterpreter,
        ToolKind::FileSearch => Tool::FileSearch {
            file_search: parse_file_search(&mut tool)?,
        },
        ToolKind::Function => Tool::Function {
            function: parse_function(&mut tool)?,
        },
    };
    tool.finish()?;
    Ok(parsed)
}

/// The name of a function or of a schema, as models take it.
fn parse_name(object: &mut Object) -> Result<String, ParseError> {
    let path = object.path("name");
    let name = object.required_string("name", 64)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(ParseError::new(format!(
            "Invalid '{path}': string does not match pattern. Expected a string that matches the \
             pattern '^[a-zA-Z0-9_-]+$'."
        ))
        .param(path)
        .code("invalid_value"));
    }
    Ok(name)
}

fn parse_function(tool: &mut Object) -> Result<Function, ParseError> {
    let mut function = tool
        .object("function")?
        .ok_or_else(|| missing(&tool.path("function")))?;
    let name = parse_name(&mut function)?;
    let description = function.string("description", usize::MAX)?;
    let parameters = function.own_object("parameters")?;
    let parameters = parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    let strict = function.boolean("strict")?.unwrap_or(false);
    function.finish()?;
    Ok(Function {
        name,
        description,
        parameters,
        strict,
    })
}

fn parse_file_search(tool: &mut Object) -> Result<Map<String, Value>, ParseError> {
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
pub fn parse_weights(ranking: &mut Object) -> Result<Option<Weights>, ParseError> {
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
    Err(ParseError::new(message).param(path).code("invalid_value"))
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
pub fn parse_tool_resources(body: &mut Object) -> Result<ToolResources, ParseError> {
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
pub fn parse_new_tool_resources(body: &mut Object) -> Result<NewToolResources, ParseError> {
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
            return Err(ParseError::new(
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
) -> Result<Option<CodeInterpreterResources>, ParseError> {
    let Some(mut tool) = resources.object("code_interpreter")? else {
        return Ok(None);
    };
    let file_ids = tool.ids("file_ids", 20)?.unwrap_or_default();
    tool.finish()?;
    Ok(Some(CodeInterpreterResources { file_ids }))
}

/// `"auto"` or an object with a type; checked, and kept word for word.
fn parse_response_format(body: &mut Object, name: &str) -> Result<Option<Value>, ParseError> {
    let path = body.path(name);
    let given = match body.any(name) {
        None => return Ok(None),
        Some(word) if word.kind() == Kind::String => {
            return match object::string(&path, word, usize::MAX)?.as_str() {
                "auto" => Ok(Some(default_response_format())),
                word => Err(invalid_value(&path, word, &["auto"])),
            };
        }
        Some(given) => given,
    };
    let mut format = Object::at(path.clone(), given.clone())?;
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
        schema.own_object("schema")?;
        schema.boolean("strict")?;
        schema.finish()?;
    }
    format.finish()?;
    let mut given = object::tree(&path, given)?;
    // Null says no more than leaving out does, and is not shown.
    if let Some(schema) = given.get_mut("json_schema").and_then(Value::as_object_mut) {
        schema.retain(|_, value| !value.is_null());
    }
    Ok(Some(given))
}
