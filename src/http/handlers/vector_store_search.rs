//! `/vector_stores/{vector_store_id}/search`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::domain::ids::VectorStoreId;
use crate::domain::vector_store::{Filter, Weights};
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::retrieval::{SearchError, SearchHit, SearchQuery, rewrite};
use crate::store;
use crate::wire::assistant::parse_weights;
use crate::wire::attribute_filter;
use crate::wire::json::{Json as Given, Kind};
use crate::wire::object::{self, Object};

/// Most queries of one request.
const QUERIES_MAX: usize = 16;

/// Longest query, in characters.
const QUERY_MAX: usize = 4_096;

/// Results unless the client says otherwise.
const RESULTS: usize = 10;

/// `POST /vector_stores/{vector_store_id}/search`
pub async fn search(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(VectorStoreId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let request = Request::parse(body)?;
    let store = store::vector_stores::touch(&state.pool, &project, &id)
        .await?
        .ok_or_else(|| ApiError::no_such("vector store", &id))?;
    if store.is_expired {
        return Err(ApiError::invalid(format!("Vector store {id} is expired.")));
    }
    let ask = SearchQuery {
        queries: &request.queries,
        filter: request.filter.as_ref(),
        limit: request.limit,
        threshold: request.threshold,
        weights: request.weights,
        rerank: request.rerank,
    };
    let hits = state.retrieval.search(&store, &ask).await.map_err(failed)?;
    let page = PageObject {
        object: "vector_store.search_results.page",
        search_query: &request.queries,
        data: hits.iter().map(ResultObject::from).collect(),
        has_more: false,
        next_page: None,
    };
    Ok(Json(page).into_response())
}

fn failed(error: SearchError) -> ApiError {
    match error {
        SearchError::Store(error) => error.into(),
        SearchError::Embed(error) => {
            let status = axum::http::StatusCode::BAD_GATEWAY;
            ApiError::upstream(status, "server_error", format!("Cannot search: {error}."))
        }
    }
}

struct Request {
    queries: Vec<String>,
    filter: Option<Filter>,
    limit: usize,
    threshold: f64,
    weights: Weights,
    rerank: bool,
}

impl Request {
    fn parse(mut body: Object) -> Result<Self, ApiError> {
        let mut queries = parse_queries(body.required("query")?)?;
        if queries.iter().any(|query| query.trim().is_empty()) {
            let message = "Invalid 'query': expected a string with something in it.";
            return Err(ApiError::invalid(message)
                .param("query")
                .code("empty_string"));
        }
        if body.boolean("rewrite_query")?.unwrap_or(false) {
            queries = queries.iter().map(|query| rewrite(query)).collect();
        }
        let limit = body.integer("max_num_results", 1, 50)?;
        let filter = attribute_filter::parse(&mut body, "filters")?;
        let mut threshold = 0.0;
        let mut weights = Weights::default();
        let mut rerank = true;
        if let Some(mut ranking) = body.object("ranking_options")? {
            let words = ["none", "auto", "default-2024-11-15", "default_2024_08_21"];
            let ranker = ranking.word("ranker", &words.map(|word| (word, word)))?;
            rerank = ranker != Some("none");
            threshold = ranking.decimal("score_threshold", 0.0, 1.0)?.unwrap_or(0.0);
            weights = parse_weights(&mut ranking)?.unwrap_or_default();
            ranking.finish()?;
        }
        body.finish()?;
        Ok(Self {
            queries,
            filter,
            limit: limit.map_or(RESULTS, |limit| usize::try_from(limit).unwrap_or(RESULTS)),
            threshold,
            weights,
            rerank,
        })
    }
}

/// One query or several.
fn parse_queries(given: Given) -> Result<Vec<String>, ApiError> {
    let query = |given| object::string("query", given, QUERY_MAX);
    if given.kind() != Kind::Array {
        return Ok(vec![query(given)?]);
    }
    let queries = object::items("query", given, QUERIES_MAX, |_, given| query(given))?;
    if queries.is_empty() {
        let message = format!("Invalid 'query': expected 1 to {QUERIES_MAX} strings.");
        return Err(ApiError::invalid(message)
            .param("query")
            .code("invalid_value"));
    }
    Ok(queries)
}

#[derive(Serialize)]
struct PageObject<'a> {
    object: &'static str,
    search_query: &'a [String],
    data: Vec<ResultObject<'a>>,
    has_more: bool,
    next_page: Option<String>,
}

#[derive(Serialize)]
struct ResultObject<'a> {
    file_id: &'a str,
    filename: &'a str,
    score: f64,
    attributes: &'a Map<String, Value>,
    content: [TextObject<'a>; 1],
}

#[derive(Serialize)]
struct TextObject<'a> {
    r#type: &'static str,
    text: &'a str,
}

impl<'a> From<&'a SearchHit> for ResultObject<'a> {
    fn from(hit: &'a SearchHit) -> Self {
        Self {
            file_id: hit.chunk.file_id.as_str(),
            filename: &hit.chunk.filename,
            score: hit.score,
            attributes: &hit.chunk.attributes.0,
            content: [TextObject {
                r#type: "text",
                text: &hit.chunk.content,
            }],
        }
    }
}
