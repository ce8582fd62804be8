//! `/threads/{thread_id}/messages`.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::{MessageId, RunId, ThreadId};
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::wire::message::{MessageObject, parse_new};
use crate::wire::{Deleted, List};

pub async fn create(
    Caller(project): Caller,
    InPath((thread,)): InPath<(ThreadId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let message = project.create_message(&thread, &parse_new(body)?).await?;
    Ok(Json(MessageObject::from(&message)).into_response())
}

pub async fn list(
    Caller(project): Caller,
    InPath((thread,)): InPath<(ThreadId,)>,
    query: Query,
) -> Result<Response, ApiError> {
    let run: Option<RunId> = query.id("run_id")?;
    let page = project
        .list_messages(&thread, run.as_ref(), &query.page()?)
        .await?;
    let list = List::of(&page, |item| item.id.to_string(), MessageObject::from);
    Ok(Json(list).into_response())
}

pub async fn retrieve(
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, MessageId)>,
) -> Result<Response, ApiError> {
    let message = project.message(&thread, &id).await?;
    Ok(Json(MessageObject::from(&message)).into_response())
}

pub async fn modify(
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, MessageId)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let metadata = body.metadata()?;
    body.finish()?;
    let message = project
        .update_message(&thread, &id, metadata.as_ref())
        .await?;
    Ok(Json(MessageObject::from(&message)).into_response())
}

pub async fn delete(
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, MessageId)>,
) -> Result<Response, ApiError> {
    project.delete_message(&thread, &id).await?;
    Ok(Json(Deleted::new(&id, "thread.message.deleted")).into_response())
}
