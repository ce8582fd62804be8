//! `/vector_stores/{vector_store_id}/search`.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::VectorStoreId;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath};
use crate::http::response::error::ApiError;
use crate::retrieval::{SearchHit, SearchQuery, rewrite_query};
use crate::wire::vector_store_search::{SearchPageObject, SearchRequest, SearchResultObject};

pub async fn search(
    Caller(project): Caller,
    InPath((id,)): InPath<(VectorStoreId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let mut request = SearchRequest::parse(body)?;
    if request.rewrite {
        for query in &mut request.queries {
            *query = rewrite_query(query);
        }
    }
    let query = SearchQuery {
        queries: &request.queries,
        filter: request.filter.as_ref(),
        limit: request.limit,
        threshold: request.threshold,
        weights: request.weights,
        rerank: request.rerank,
    };
    let hits = project.search_vector_store(&id, &query).await?;
    let results = hits.iter().map(result_object).collect();
    Ok(Json(SearchPageObject::new(&request.queries, results)).into_response())
}

fn result_object(hit: &SearchHit) -> SearchResultObject<'_> {
    let chunk = &hit.chunk;
    SearchResultObject::new(
        &chunk.file_id,
        &chunk.filename,
        hit.score,
        &chunk.attributes.0,
        &chunk.content,
    )
}
