//! `/threads`.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::ThreadId;
use crate::domain::thread::ThreadFilter;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::wire::thread::{NewThread, ThreadObject};
use crate::wire::tool_resources::parse_tool_resources;
use crate::wire::{Deleted, List};

pub async fn create(Caller(project): Caller, Body(body): Body) -> Result<Response, ApiError> {
    let thread = project.create_thread(NewThread::parse(body)?).await?;
    Ok(Json(ThreadObject::from(&thread)).into_response())
}

/// `GET /threads`, an extension; `metadata[key]=value` selects threads with this pair
pub async fn list(Caller(project): Caller, query: Query) -> Result<Response, ApiError> {
    let filter = ThreadFilter {
        metadata: query.metadata(),
        created_after: query.time("created_after")?,
        created_before: query.time("created_before")?,
    };
    let page = project.list_threads(&filter, &query.page()?).await?;
    let list = List::of(&page, |item| item.id.to_string(), ThreadObject::from);
    Ok(Json(list).into_response())
}

pub async fn retrieve(
    Caller(project): Caller,
    InPath((id,)): InPath<(ThreadId,)>,
) -> Result<Response, ApiError> {
    let thread = project.thread(&id).await?;
    Ok(Json(ThreadObject::from(&thread)).into_response())
}

pub async fn modify(
    Caller(project): Caller,
    InPath((id,)): InPath<(ThreadId,)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let resources = parse_tool_resources(&mut body)?;
    let metadata = body.metadata()?;
    body.finish()?;
    let thread = project
        .update_thread(&id, &resources, metadata.as_ref())
        .await?;
    Ok(Json(ThreadObject::from(&thread)).into_response())
}

pub async fn delete(
    Caller(project): Caller,
    InPath((id,)): InPath<(ThreadId,)>,
) -> Result<Response, ApiError> {
    project.delete_thread(&id).await?;
    Ok(Json(Deleted::new(&id, "thread.deleted")).into_response())
}
