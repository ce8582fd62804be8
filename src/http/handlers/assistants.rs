//! `/assistants`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::assistant::FileSearchResources;
use crate::domain::ids::AssistantId;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::service::references::{check_files_exist, check_tool_resources};
use crate::store;
use crate::wire::assistant::{
    AssistantObject, parse_changes, parse_config, parse_new_tool_resources, parse_tool_resources,
};
use crate::wire::{Deleted, List};

/// `POST /assistants`
pub async fn create(
    State(state): State<ApiState>,
    Caller(project): Caller,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let config = parse_config(&mut body)?;
    let resources = parse_new_tool_resources(&mut body)?;
    let metadata = body.metadata()?.unwrap_or_default();
    body.finish()?;
    let (mut named, new) = (resources.named, resources.vector_store);
    check_tool_resources(&state, &project, &named).await?;
    let Some(new) = new else {
        let assistant =
            store::assistants::insert(&state.pool, &project, &config, &named, &metadata).await?;
        return Ok(Json(AssistantObject::from(&assistant)).into_response());
    };
    check_files_exist(&state, &project, new.files.iter().map(|new| &new.file)).await?;
    let mut transaction = state.pool.begin().await?;
    let made = store::vector_stores::insert(&mut transaction, &project, &new).await?;
    named.file_search = Some(FileSearchResources {
        vector_store_ids: vec![made],
    });
    let assistant =
        store::assistants::insert(&mut *transaction, &project, &config, &named, &metadata).await?;
    transaction.commit().await?;
    state.indexing.notify_one();
    Ok(Json(AssistantObject::from(&assistant)).into_response())
}

/// `GET /assistants`
pub async fn list(
    State(state): State<ApiState>,
    Caller(project): Caller,
    query: Query,
) -> Result<Response, ApiError> {
    let page = store::assistants::list(&state.pool, &project, &query.page()?).await?;
    let list = List::of(&page, |item| item.id.to_string(), AssistantObject::from);
    Ok(Json(list).into_response())
}

/// `GET /assistants/{assistant_id}`
pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(AssistantId,)>,
) -> Result<Response, ApiError> {
    let assistant = store::assistants::find(&state.pool, &project, &id)
        .await?
        .ok_or_else(|| ApiError::no_such("assistant", &id))?;
    Ok(Json(AssistantObject::from(&assistant)).into_response())
}

/// `POST /assistants/{assistant_id}`
pub async fn modify(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(AssistantId,)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let changes = parse_changes(&mut body)?;
    let resources = parse_tool_resources(&mut body)?;
    let metadata = body.metadata()?;
    body.finish()?;
    check_tool_resources(&state, &project, &resources).await?;
    let assistant = store::assistants::update(
        &state.pool,
        &project,
        &id,
        &changes,
        &resources,
        metadata.as_ref(),
    )
    .await?
    .ok_or_else(|| ApiError::no_such("assistant", &id))?;
    Ok(Json(AssistantObject::from(&assistant)).into_response())
}

/// `DELETE /assistants/{assistant_id}`
pub async fn delete(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(AssistantId,)>,
) -> Result<Response, ApiError> {
    if !store::assistants::delete(&state.pool, &project, &id).await? {
        return Err(ApiError::no_such("assistant", &id));
    }
    Ok(Json(Deleted::new(&id, "assistant.deleted")).into_response())
}
