//! `/vector_stores/{vector_store_id}/file_batches`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::{BatchId, ProjectId, VectorStoreId};
use crate::domain::vector_store::Batch;
use crate::http::handlers::vector_store_files::status_in;
use crate::http::handlers::vector_stores;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::service::references::check_files_exist;
use crate::store;
use crate::wire::List;
use crate::wire::vector_store_batch::{BatchObject, parse_new};
use crate::wire::vector_store_file::VectorStoreFileObject;

/// `POST /vector_stores/{vector_store_id}/file_batches`
pub async fn create(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store,)): InPath<(VectorStoreId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let files = parse_new(body)?;
    vector_stores::check(&state, &project, &store).await?;
    check_files_exist(&state, &project, files.iter().map(|new| &new.file)).await?;
    let mut transaction = state.pool.begin().await?;
    let id =
        store::vector_store_batches::insert(&mut transaction, &project, &store, &files).await?;
    let id = id.ok_or_else(|| vector_stores::missing(&store))?;
    let batch = store::vector_store_batches::find(&mut *transaction, &project, &store, &id).await?;
    transaction.commit().await?;
    state.indexing.notify_one();
    let batch = batch.ok_or_else(|| no_such_batch(&id))?;
    Ok(Json(BatchObject::from(&batch)).into_response())
}

/// `GET /vector_stores/{vector_store_id}/file_batches/{batch_id}`
pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store, id)): InPath<(VectorStoreId, BatchId)>,
) -> Result<Response, ApiError> {
    let batch = find(&state, &project, &store, &id).await?;
    let shown = Json(BatchObject::from(&batch));
    Ok((state.limits.poll_headers(), shown).into_response())
}

/// `POST /vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel`
pub async fn cancel(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store, id)): InPath<(VectorStoreId, BatchId)>,
) -> Result<Response, ApiError> {
    store::vector_store_batches::cancel(&state.pool, &project, &store, &id).await?;
    let batch = find(&state, &project, &store, &id).await?;
    Ok(Json(BatchObject::from(&batch)).into_response())
}

/// `GET /vector_stores/{vector_store_id}/file_batches/{batch_id}/files`
pub async fn list_files(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((store, id)): InPath<(VectorStoreId, BatchId)>,
    query: Query,
) -> Result<Response, ApiError> {
    let status = status_in(&query)?;
    let page = query.page()?;
    let batch = Some(&id);
    let page = store::vector_store_files::list(&state.pool, &project, &store, batch, status, &page)
        .await?;
    if page.data.is_empty() {
        find(&state, &project, &store, &id).await?;
    }
    let list = List::of(
        &page,
        |item| item.file.to_string(),
        VectorStoreFileObject::from,
    );
    Ok(Json(list).into_response())
}

async fn find(
    state: &ApiState,
    project: &ProjectId,
    store: &VectorStoreId,
    id: &BatchId,
) -> Result<Batch, ApiError> {
    if let Some(batch) = store::vector_store_batches::find(&state.pool, project, store, id).await? {
        return Ok(batch);
    }
    vector_stores::check(state, project, store).await?;
    Err(no_such_batch(id))
}

fn no_such_batch(id: &BatchId) -> ApiError {
    ApiError::no_such("vector store file batch", id)
}
