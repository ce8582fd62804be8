//! `/vector_stores/{vector_store_id}/files`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::{FileId, VectorStoreId};
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::vector_store_file::{
    ContentPage, VectorStoreFileObject, parse_changes, parse_new, parse_status_filter,
};
use crate::wire::{Deleted, List};

pub async fn create(
    Caller(project): Caller,
    InPath((store,)): InPath<(VectorStoreId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let added = project
        .add_vector_store_file(&store, &parse_new(body)?)
        .await?;
    Ok(Json(VectorStoreFileObject::from(&added)).into_response())
}

pub async fn list(
    Caller(project): Caller,
    InPath((store,)): InPath<(VectorStoreId,)>,
    query: Query,
) -> Result<Response, ApiError> {
    let status = query.get("filter").map(parse_status_filter).transpose()?;
    let page = project
        .list_vector_store_files(&store, status, &query.page()?)
        .await?;
    let list = List::of(
        &page,
        |item| item.file.to_string(),
        VectorStoreFileObject::from,
    );
    Ok(Json(list).into_response())
}

pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store, file)): InPath<(VectorStoreId, FileId)>,
) -> Result<Response, ApiError> {
    let file = project.vector_store_file(&store, &file).await?;
    let object = Json(VectorStoreFileObject::from(&file));
    Ok((state.limits.poll_headers(), object).into_response())
}

pub async fn modify(
    Caller(project): Caller,
    InPath((store, file)): InPath<(VectorStoreId, FileId)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let attributes = parse_changes(body)?;
    let file = project
        .update_vector_store_file(&store, &file, &attributes)
        .await?;
    Ok(Json(VectorStoreFileObject::from(&file)).into_response())
}

pub async fn delete(
    Caller(project): Caller,
    InPath((store, file)): InPath<(VectorStoreId, FileId)>,
) -> Result<Response, ApiError> {
    project.remove_vector_store_file(&store, &file).await?;
    Ok(Json(Deleted::new(&file, "vector_store.file.deleted")).into_response())
}

pub async fn content(
    Caller(project): Caller,
    InPath((store, file)): InPath<(VectorStoreId, FileId)>,
) -> Result<Response, ApiError> {
    let text = project.vector_store_file_text(&store, &file).await?;
    Ok(Json(ContentPage::from(text.as_str())).into_response())
}
