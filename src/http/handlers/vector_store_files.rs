//! `/vector_stores/{vector_store_id}/files`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::{FileId, ProjectId, VectorStoreId};
use crate::domain::vector_store::FileStatus;
use crate::http::handlers::vector_stores;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::service::references::check_files_exist;
use crate::store;
use crate::wire::object::invalid_value;
use crate::wire::vector_store_file::{
    ContentPage, STATUSES, VectorStoreFileObject, parse_changes, parse_new,
};
use crate::wire::{Deleted, List};

/// `POST /vector_stores/{vector_store_id}/files`
pub async fn create(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store,)): InPath<(VectorStoreId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let new = parse_new(body)?;
    vector_stores::check(&state, &project, &store).await?;
    check_files_exist(&state, &project, [&new.file]).await?;
    let mut transaction = state.pool.begin().await?;
    let files = std::slice::from_ref(&new);
    store::vector_store_files::insert(&mut transaction, &project, &store, files).await?;
    let added =
        store::vector_store_files::find(&mut *transaction, &project, &store, &new.file).await?;
    transaction.commit().await?;
    state.indexing.notify_one();
    let added = added.ok_or_else(|| vector_stores::missing(&store))?;
    Ok(Json(VectorStoreFileObject::from(&added)).into_response())
}

/// `GET /vector_stores/{vector_store_id}/files`
pub async fn list(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store,)): InPath<(VectorStoreId,)>,
    query: Query,
) -> Result<Response, ApiError> {
    let status = status_in(&query)?;
    let page = query.page()?;
    let page =
        store::vector_store_files::list(&state.pool, &project, &store, None, status, &page).await?;
    if page.data.is_empty() {
        vector_stores::check(&state, &project, &store).await?;
    }
    let list = List::of(
        &page,
        |item| item.file.to_string(),
        VectorStoreFileObject::from,
    );
    Ok(Json(list).into_response())
}

/// `GET /vector_stores/{vector_store_id}/files/{file_id}`
pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store, file)): InPath<(VectorStoreId, FileId)>,
) -> Result<Response, ApiError> {
    match store::vector_store_files::find(&state.pool, &project, &store, &file).await? {
        Some(found) => {
            let shown = Json(VectorStoreFileObject::from(&found));
            Ok((state.limits.poll_headers(), shown).into_response())
        }
        None => Err(missing(&state, &project, &store, &file).await?),
    }
}

/// `POST /vector_stores/{vector_store_id}/files/{file_id}`
pub async fn modify(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store, file)): InPath<(VectorStoreId, FileId)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let attributes = parse_changes(body)?;
    let changed =
        store::vector_store_files::update(&state.pool, &project, &store, &file, &attributes)
            .await?;
    match changed {
        Some(changed) => Ok(Json(VectorStoreFileObject::from(&changed)).into_response()),
        None => Err(missing(&state, &project, &store, &file).await?),
    }
}

/// `DELETE /vector_stores/{vector_store_id}/files/{file_id}`
pub async fn delete(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store, file)): InPath<(VectorStoreId, FileId)>,
) -> Result<Response, ApiError> {
    if !store::vector_store_files::delete(&state.pool, &project, &store, &file).await? {
        return Err(missing(&state, &project, &store, &file).await?);
    }
    Ok(Json(Deleted::new(&file, "vector_store.file.deleted")).into_response())
}

/// `GET /vector_stores/{vector_store_id}/files/{file_id}/content`: empty until the file is indexed.
pub async fn content(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store, file)): InPath<(VectorStoreId, FileId)>,
) -> Result<Response, ApiError> {
    match store::vector_store_files::content(&state.pool, &project, &store, &file).await? {
        Some(text) => Ok(Json(ContentPage::from(text.as_str())).into_response()),
        None => Err(missing(&state, &project, &store, &file).await?),
    }
}

/// The status that a list of files is to be filtered by.
pub fn status_in(query: &Query) -> Result<Option<FileStatus>, ApiError> {
    let Some(word) = query.get("filter") else {
        return Ok(None);
    };
    let found = STATUSES.iter().find(|(name, _)| *name == word);
    match found {
        Some((_, status)) => Ok(Some(*status)),
        None => Err(invalid_value("filter", word, &STATUSES.map(|(name, _)| name)).into()),
    }
}

async fn missing(
    state: &ApiState,
    project: &ProjectId,
    store: &VectorStoreId,
    file: &FileId,
) -> Result<ApiError, ApiError> {
    vector_stores::check(state, project, store).await?;
    Ok(ApiError::not_found(format!(
        "No file found with id '{file}' in vector store '{store}'."
    )))
}
