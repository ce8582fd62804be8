//! file_search as models see it: a function definition, its arguments, and the results of its calls.

use async_openai::types::chat::{ChatCompletionTool, ChatCompletionTools, FunctionObject};
use serde_json::{Value, json};

use crate::domain::json_escapes;
use crate::domain::run::RunConfig;
use crate::domain::tool::{SearchCall, Tool};
use crate::domain::vector_store::Weights;

pub(in crate::engine) const NAME: &str = "file_search";

/// The name under which some models were trained to call it.
pub(in crate::engine) const ALIAS: &str = "msearch";

const QUERIES_MAX: usize = 5;

/// Default number of results of a call and most tokens of them together, as in the hosted service.
const RESULTS: usize = 20;

const TOKENS: u32 = 16_000;

const RESULTS_OF_SMALL_MODELS: usize = 5;
const TOKENS_OF_SMALL_MODELS: u32 = 4_000;

const DESCRIPTION: &str = "\
Searches the files of this assistant and conversation, by words and by meaning, and returns the \
passages that fit best. Use it before you answer whenever the answer may be in the files. Write \
each query as a full question or statement with the words that the text would have; ask for \
different things in different queries.";

pub(in crate::engine) fn definition() -> ChatCompletionTools {
    ChatCompletionTools::Function(ChatCompletionTool {
        function: FunctionObject {
            name: NAME.to_owned(),
            description: Some(DESCRIPTION.to_owned()),
            parameters: Some(json!({
                "type": "object",
                "properties": {
                    "queries": {
                        "type": "array",
                        "items": {"type": "string"},
                        "minItems": 1,
                        "maxItems": QUERIES_MAX,
                        "description": "What to search for.",
                    },
                },
                "required": ["queries"],
                "additionalProperties": false,
            })),
            strict: None,
        },
    })
}

pub(in crate::engine) struct SearchSettings {
    pub(in crate::engine) results: usize,
    pub(in crate::engine) tokens: u32,
    /// The ranker's name as the client set it. It does not change the ranking.
    pub(in crate::engine) ranker: String,
    /// Lowest score of a result, 0 to 1.
    pub(in crate::engine) score_threshold: f64,
    pub(in crate::engine) weights: Weights,
}

impl SearchSettings {
    pub(in crate::engine) fn of(config: &RunConfig) -> Option<Self> {
        let settings = config.tools.iter().find_map(|tool| match tool {
            Tool::FileSearch { file_search } => Some(file_search),
            Tool::CodeInterpreter | Tool::Function { .. } => None,
        })?;
        let ranking = &settings.get("ranking_options").unwrap_or(&Value::Null);
        let results = settings.get("max_num_results").and_then(Value::as_u64);
        let results = results.and_then(|results| usize::try_from(results).ok());
        let (max_results, tokens) = match config.model.starts_with("gpt-3.5") {
            true => (RESULTS_OF_SMALL_MODELS, TOKENS_OF_SMALL_MODELS),
            false => (RESULTS, TOKENS),
        };
        Some(Self {
            results: results.unwrap_or(max_results),
            tokens,
            ranker: ranking["ranker"].as_str().unwrap_or("auto").to_owned(),
            score_threshold: ranking["score_threshold"].as_f64().unwrap_or(0.0),
            weights: serde_json::from_value(ranking["hybrid_search"].clone()).unwrap_or_default(),
        })
    }
}

pub(in crate::engine) fn is_call_to(config: &RunConfig, name: &str) -> bool {
    let function = |tool: &Tool| match tool {
        Tool::Function { function } => function.name == name,
        Tool::CodeInterpreter | Tool::FileSearch { .. } => false,
    };
    (name == NAME || name == ALIAS)
        && SearchSettings::of(config).is_some()
        && !config.tools.iter().any(function)
}

pub(in crate::engine) fn settings_of_call(
    config: &RunConfig,
    name: &str,
) -> Option<SearchSettings> {
    is_call_to(config, name).then(|| SearchSettings::of(config))?
}

/// The queries of a call. Arguments that are not JSON are a query: some models send that.
pub(in crate::engine) fn queries(arguments: &str) -> Vec<String> {
    let value = match json_escapes::parse(arguments) {
        Ok(Value::Object(mut fields)) => {
            let first = ["queries", "query", "q", "input"]
                .iter()
                .find_map(|key| fields.remove(*key));
            first.unwrap_or(Value::Null)
        }
        Ok(other) => other,
        Err(_) => Value::String(arguments.to_owned()),
    };
    let texts = match value {
        Value::Array(items) => items,
        other => vec![other],
    };
    texts
        .into_iter()
        .filter_map(|text| match text {
            Value::String(text) => Some(text.trim().to_owned()),
            _ => None,
        })
        .filter(|text| !text.is_empty())
        .take(QUERIES_MAX)
        .collect()
}

pub(in crate::engine) fn output_for_model(call: &SearchCall) -> Option<String> {
    let results = call.results.as_ref()?;
    let Some(first) = results.first() else {
        return Some("[Nothing was found. Other words may find it.]".to_owned());
    };
    let mut text = String::new();
    for (n, result) in results.iter().enumerate() {
        text.push_str(&call.marker(n, &result.file_name));
        if let Some(page) = result.page {
            text.push_str(&format!(" page {page}"));
        }
        if let Some(heading) = &result.heading {
            text.push_str(&format!(" under \"{heading}\""));
        }
        text.push('\n');
        text.push_str(result.content.trim());
        text.push_str("\n\n");
    }
    let example = call.marker(0, &first.file_name);
    text.push_str(&format!(
        "[Put the marker of each passage that you use, such as {example}, right behind what you \
         take from it.]"
    ));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_however_models_write_them() {
        for (arguments, expected) in [
            (r#"{"queries": ["a", " b ", ""]}"#, vec!["a", "b"]),
            (r#"{"query": "a"}"#, vec!["a"]),
            (r#"["a", 1]"#, vec!["a"]),
            (r#""a""#, vec!["a"]),
            (
                r#"{"queries": ["a\u0000b \ud83d"]}"#,
                vec!["a\u{fffd}b \u{fffd}"],
            ),
            ("what is a", vec!["what is a"]),
            ("{}", vec![]),
            (
                r#"{"queries": ["1","2","3","4","5","6"]}"#,
                vec!["1", "2", "3", "4", "5"],
            ),
        ] {
            assert_eq!(queries(arguments), expected, "{arguments}");
        }
    }
}
