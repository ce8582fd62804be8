//! Searches in vector stores.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::domain::ids::FileId;
use crate::domain::vector_store::{Filter, Weights};
use crate::wire::ParseError;
use crate::wire::attribute_filter;
use crate::wire::json::{Json, JsonType};
use crate::wire::object::Object;
use crate::wire::tool::{MAX_SEARCH_RESULTS, parse_weights};
use crate::wire::value;

const MAX_QUERIES: usize = 16;

const MAX_QUERY_CHARS: usize = 4_096;

const DEFAULT_RESULTS: usize = 10;

#[derive(Debug)]
pub struct SearchRequest {
    pub queries: Vec<String>,
    pub filter: Option<Filter>,
    pub limit: usize,
    /// Lowest score of a result, from 0 to 1.
    pub threshold: f64,
    pub weights: Weights,
    pub rerank: bool,
    pub rewrite: bool,
}

impl SearchRequest {
    pub fn parse(mut body: Object) -> Result<Self, ParseError> {
        let queries = parse_queries(body.required("query")?)?;
        if queries.iter().any(|query| query.trim().is_empty()) {
            let message = "Invalid 'query': expected a string with something in it.";
            return Err(ParseError::new(message).param("query").code("empty_string"));
        }
        let rewrite = body.boolean("rewrite_query")?.unwrap_or(false);
        let limit = body.integer("max_num_results", 1, MAX_SEARCH_RESULTS)?;
        let filter = attribute_filter::parse(&mut body, "filters")?;
        let mut threshold = 0.0;
        let mut weights = Weights::default();
        let mut rerank = true;
        if let Some(mut ranking) = body.object("ranking_options")? {
            let rankers = ["none", "auto", "default-2024-11-15", "default_2024_08_21"];
            let ranker = ranking.enum_value("ranker", &rankers.map(|ranker| (ranker, ranker)))?;
            rerank = ranker != Some("none");
            threshold = ranking.decimal("score_threshold", 0.0, 1.0)?.unwrap_or(0.0);
            weights = parse_weights(&mut ranking)?.unwrap_or_default();
            ranking.finish()?;
        }
        body.finish()?;
        Ok(Self {
            queries,
            filter,
            limit: limit.map_or(DEFAULT_RESULTS, |limit| {
                usize::try_from(limit).unwrap_or(DEFAULT_RESULTS)
            }),
            threshold,
            weights,
            rerank,
            rewrite,
        })
    }
}

fn parse_queries(value: Json) -> Result<Vec<String>, ParseError> {
    let query = |value| value::string("query", value, MAX_QUERY_CHARS);
    if value.json_type() != JsonType::Array {
        return Ok(vec![query(value)?]);
    }
    let queries = value::array("query", value, MAX_QUERIES, |_, value| query(value))?;
    if queries.is_empty() {
        let message = format!("Invalid 'query': expected 1 to {MAX_QUERIES} strings.");
        return Err(ParseError::new(message)
            .param("query")
            .code("invalid_value"));
    }
    Ok(queries)
}

/// The results of a search. There is always one page.
#[derive(Debug, Serialize)]
pub struct SearchPageObject<'a> {
    object: &'static str,
    search_query: &'a [String],
    data: Vec<SearchResultObject<'a>>,
    has_more: bool,
    next_page: Option<String>,
}

impl<'a> SearchPageObject<'a> {
    pub fn new(queries: &'a [String], data: Vec<SearchResultObject<'a>>) -> Self {
        Self {
            object: "vector_store.search_results.page",
            search_query: queries,
            data,
            has_more: false,
            next_page: None,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct SearchResultObject<'a> {
    file_id: &'a str,
    filename: &'a str,
    score: f64,
    attributes: &'a Map<String, Value>,
    content: [TextObject<'a>; 1],
}

#[derive(Debug, Serialize)]
struct TextObject<'a> {
    r#type: &'static str,
    text: &'a str,
}

impl<'a> SearchResultObject<'a> {
    pub fn new(
        file: &'a FileId,
        filename: &'a str,
        score: f64,
        attributes: &'a Map<String, Value>,
        text: &'a str,
    ) -> Self {
        Self {
            file_id: file.as_str(),
            filename,
            score,
            attributes,
            content: [TextObject {
                r#type: "text",
                text,
            }],
        }
    }
}
