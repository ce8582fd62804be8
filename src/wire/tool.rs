//! Tools of assistants and runs.

use serde_json::{Map, Value, json};

use crate::domain::tool::{Function, Tool};
use crate::domain::vector_store::Weights;
use crate::wire::ParseError;
use crate::wire::object::Object;
use crate::wire::refusal::missing;

pub const MAX_FUNCTION_NAME: usize = 64;
const MAX_TOOLS: usize = 128;
const DEFAULT_RANKER: &str = "default_2024_08_21";

pub const MAX_SEARCH_RESULTS: i64 = 50;

pub fn parse_tools(body: &mut Object) -> Result<Option<Vec<Tool>>, ParseError> {
    body.check_value_count("tools")?;
    let Some(tools) = body.objects("tools", MAX_TOOLS)? else {
        return Ok(None);
    };
    tools
        .into_iter()
        .map(parse_tool)
        .collect::<Result<_, _>>()
        .map(Some)
}

#[derive(Clone, Copy)]
enum ToolType {
    CodeInterpreter,
    FileSearch,
    Function,
}

pub fn parse_tool(mut tool: Object) -> Result<Tool, ParseError> {
    let tool_type = tool.type_tag(&[
        ("code_interpreter", ToolType::CodeInterpreter),
        ("file_search", ToolType::FileSearch),
        ("function", ToolType::Function),
    ])?;
    let parsed = match tool_type {
        ToolType::CodeInterpreter => Tool::CodeInterpreter,
        ToolType::FileSearch => Tool::FileSearch {
            file_search: parse_file_search(&mut tool)?,
        },
        ToolType::Function => Tool::Function {
            function: parse_function(&mut tool)?,
        },
    };
    tool.finish()?;
    Ok(parsed)
}

/// Takes the `name` of a function or a schema. Models accept no other characters.
pub fn parse_function_name(object: &mut Object) -> Result<String, ParseError> {
    let path = object.path("name");
    let name = object.required_string("name", MAX_FUNCTION_NAME)?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || !name.bytes().all(is_allowed) {
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
    let name = parse_function_name(&mut function)?;
    let description = function.string("description", usize::MAX)?;
    let parameters = function.arbitrary_object("parameters")?;
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
    let mut file_search = Map::new();
    let mut ranker = DEFAULT_RANKER;
    let mut threshold = 0.0;
    let mut weights = None;
    if let Some(mut settings) = tool.object("file_search")? {
        if let Some(limit) = settings.integer("max_num_results", 1, MAX_SEARCH_RESULTS)? {
            file_search.insert("max_num_results".into(), json!(limit));
        }
        if let Some(mut ranking) = settings.object("ranking_options")? {
            let rankers = ["auto", DEFAULT_RANKER];
            ranker = ranking
                .enum_value("ranker", &rankers.map(|ranker| (ranker, ranker)))?
                .unwrap_or(ranker);
            threshold = ranking
                .decimal("score_threshold", 0.0, 1.0)?
                .unwrap_or(threshold);
            weights = parse_weights(&mut ranking)?;
            ranking.finish()?;
        }
        settings.finish()?;
    }
    file_search.insert(
        "ranking_options".into(),
        json!({"ranker": ranker, "score_threshold": threshold, "hybrid_search": weights}),
    );
    Ok(file_search)
}

/// Takes `hybrid_search` of ranking options: the weights of semantic and lexical search.
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
