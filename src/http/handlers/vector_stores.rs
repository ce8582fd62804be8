//! `/vector_stores`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::{ProjectId, VectorStoreId};
use crate::domain::vector_store::VectorStore;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::service::references::check_files_exist;
use crate::store;
use crate::wire::vector_store::{VectorStoreObject, parse_changes, parse_new};
use crate::wire::{Deleted, List};

/// `POST /vector_stores`
pub async fn create(
    State(state): State<ApiState>,
    Caller(project): Caller,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let new = parse_new(body)?;
    check_files_exist(&state, &project, new.files.iter().map(|new| &new.file)).await?;
    let mut transaction = state.pool.begin().await?;
    let id = store::vector_stores::insert(&mut transaction, &project, &new).await?;
    let made = store::vector_stores::find(&mut *transaction, &project, &id).await?;
    transaction.commit().await?;
    if !new.files.is_empty() {
        state.indexing.notify_one();
    }
    let made = made.ok_or_else(|| missing(&id))?;
    Ok(Json(VectorStoreObject::from(&made)).into_response())
}

/// `GET /vector_stores`
pub async fn list(
    State(state): State<ApiState>,
    Caller(project): Caller,
    query: Query,
) -> Result<Response, ApiError> {
    let page = store::vector_stores::list(&state.pool, &project, &query.page()?).await?;
    let list = List::of(&page, |item| item.id.to_string(), VectorStoreObject::from);
    Ok(Json(list).into_response())
}

/// `GET /vector_stores/{vector_store_id}`
pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(VectorStoreId,)>,
) -> Result<Response, ApiError> {
    let store = find(&state, &project, &id).await?;
    let shown = Json(VectorStoreObject::from(&store));
    Ok((state.limits.poll_headers(), shown).into_response())
}

/// `POST /vector_stores/{vector_store_id}`
pub async fn modify(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(VectorStoreId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let changes = parse_changes(body)?;
    if !store::vector_stores::update(&state.pool, &project, &id, &changes).await? {
        return Err(missing(&id));
    }
    let store = find(&state, &project, &id).await?;
    Ok(Json(VectorStoreObject::from(&store)).into_response())
}

/// `DELETE /vector_stores/{vector_store_id}`
pub async fn delete(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(VectorStoreId,)>,
) -> Result<Response, ApiError> {
    let mut transaction = state.pool.begin().await?;
    if !store::vector_stores::delete(&mut transaction, &project, &id).await? {
        return Err(missing(&id));
    }
    transaction.commit().await?;
    Ok(Json(Deleted::new(&id, "vector_store.deleted")).into_response())
}

async fn find(
    state: &ApiState,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<VectorStore, ApiError> {
    store::vector_stores::find(&state.pool, project, id)
        .await?
        .ok_or_else(|| missing(id))
}

/// Refuses a vector store that does not exist.
pub async fn check(
    state: &ApiState,
    project: &ProjectId,
    id: &VectorStoreId,
) -> Result<(), ApiError> {
    if store::vector_stores::exists(&state.pool, project, id).await? {
        Ok(())
    } else {
        Err(missing(id))
    }
}

/// The documented 404.
pub fn missing(id: &VectorStoreId) -> ApiError {
    ApiError::no_such("vector store", id)
}
