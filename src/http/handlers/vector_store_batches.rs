//! `/vector_stores/{vector_store_id}/file_batches`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::{BatchId, VectorStoreId};
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::List;
use crate::wire::vector_store_batch::{BatchObject, parse_new};
use crate::wire::vector_store_file::{VectorStoreFileObject, parse_status_filter};

pub async fn create(
    Caller(project): Caller,
    InPath((store,)): InPath<(VectorStoreId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let batch = project
        .create_vector_store_batch(&store, &parse_new(body)?)
        .await?;
    Ok(Json(BatchObject::from(&batch)).into_response())
}

pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store, id)): InPath<(VectorStoreId, BatchId)>,
) -> Result<Response, ApiError> {
    let batch = project.vector_store_batch(&store, &id).await?;
    let object = Json(BatchObject::from(&batch));
    Ok((state.limits.poll_headers(), object).into_response())
}

pub async fn cancel(
    Caller(project): Caller,
    InPath((store, id)): InPath<(VectorStoreId, BatchId)>,
) -> Result<Response, ApiError> {
    let batch = project.cancel_vector_store_batch(&store, &id).await?;
    Ok(Json(BatchObject::from(&batch)).into_response())
}

pub async fn list_files(
    Caller(project): Caller,
    InPath((store, id)): InPath<(VectorStoreId, BatchId)>,
    query: Query,
) -> Result<Response, ApiError> {
    let status = query.get("filter").map(parse_status_filter).transpose()?;
    let page = project
        .list_vector_store_batch_files(&store, &id, status, &query.page()?)
        .await?;
    let list = List::of(
        &page,
        |item| item.file.to_string(),
        VectorStoreFileObject::from,
    );
    Ok(Json(list).into_response())
}
