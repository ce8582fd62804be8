//! `/assistants`.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::AssistantId;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::wire::assistant::{AssistantObject, parse_changes, parse_config};
use crate::wire::tool_resources::{parse_new_tool_resources, parse_tool_resources};
use crate::wire::{Deleted, List};

pub async fn create(Caller(project): Caller, Body(mut body): Body) -> Result<Response, ApiError> {
    let config = parse_config(&mut body)?;
    let resources = parse_new_tool_resources(&mut body)?;
    let metadata = body.metadata()?.unwrap_or_default();
    body.finish()?;
    let assistant = project
        .create_assistant(&config, resources, &metadata)
        .await?;
    Ok(Json(AssistantObject::from(&assistant)).into_response())
}

pub async fn list(Caller(project): Caller, query: Query) -> Result<Response, ApiError> {
    let page = project.list_assistants(&query.page()?).await?;
    let list = List::of(&page, |item| item.id.to_string(), AssistantObject::from);
    Ok(Json(list).into_response())
}

pub async fn retrieve(
    Caller(project): Caller,
    InPath((id,)): InPath<(AssistantId,)>,
) -> Result<Response, ApiError> {
    let assistant = project.assistant(&id).await?;
    Ok(Json(AssistantObject::from(&assistant)).into_response())
}

pub async fn modify(
    Caller(project): Caller,
    InPath((id,)): InPath<(AssistantId,)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let changes = parse_changes(&mut body)?;
    let resources = parse_tool_resources(&mut body)?;
    let metadata = body.metadata()?;
    body.finish()?;
    let assistant = project
        .update_assistant(&id, &changes, &resources, metadata.as_ref())
        .await?;
    Ok(Json(AssistantObject::from(&assistant)).into_response())
}

pub async fn delete(
    Caller(project): Caller,
    InPath((id,)): InPath<(AssistantId,)>,
) -> Result<Response, ApiError> {
    project.delete_assistant(&id).await?;
    Ok(Json(Deleted::new(&id, "assistant.deleted")).into_response())
}
