//! `/vector_stores`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::VectorStoreId;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::vector_store::{VectorStoreObject, parse_changes, parse_new};
use crate::wire::{Deleted, List};

pub async fn create(Caller(project): Caller, Body(body): Body) -> Result<Response, ApiError> {
    let store = project.create_vector_store(&parse_new(body)?).await?;
    Ok(Json(VectorStoreObject::from(&store)).into_response())
}

pub async fn list(Caller(project): Caller, query: Query) -> Result<Response, ApiError> {
    let page = project.list_vector_stores(&query.page()?).await?;
    let list = List::of(&page, |item| item.id.to_string(), VectorStoreObject::from);
    Ok(Json(list).into_response())
}

pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(VectorStoreId,)>,
) -> Result<Response, ApiError> {
    let store = project.vector_store(&id).await?;
    let object = Json(VectorStoreObject::from(&store));
    Ok((state.limits.poll_headers(), object).into_response())
}

pub async fn modify(
    Caller(project): Caller,
    InPath((id,)): InPath<(VectorStoreId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let store = project
        .update_vector_store(&id, &parse_changes(body)?)
        .await?;
    Ok(Json(VectorStoreObject::from(&store)).into_response())
}

pub async fn delete(
    Caller(project): Caller,
    InPath((id,)): InPath<(VectorStoreId,)>,
) -> Result<Response, ApiError> {
    project.delete_vector_store(&id).await?;
    Ok(Json(Deleted::new(&id, "vector_store.deleted")).into_response())
}
