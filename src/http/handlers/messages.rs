//! `/threads/{thread_id}/messages`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::{FileId, MessageId, ProjectId, RunId, ThreadId};
use crate::domain::message::NewMessage;
use crate::domain::message::{AttachmentTool, Content, Message};
use crate::http::handlers::threads;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::service::attachments::{Attached, files_for};
use crate::service::references::{check_files_exist, check_pictures, check_searchable};
use crate::store;
use crate::store::StoreError;
use crate::wire::message::{MessageObject, parse_new};
use crate::wire::{Deleted, List};

/// `POST /threads/{thread_id}/messages`
pub async fn create(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread,)): InPath<(ThreadId,)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let new = parse_new(body)?;
    check_files(&state, &project, std::slice::from_ref(&new)).await?;
    let mut tries = 0..threads::TRIES_WHEN_BUSY;
    let message = loop {
        if let Some(message) = insert(&state, &project, &thread, &new).await? {
            break message;
        }
        if let Some(run) = store::runs::active_on(&state.pool, &project, &thread).await? {
            return Err(ApiError::invalid(format!(
                "Can't add messages to {thread} while a run {run} is active."
            )));
        }
        threads::check(&state, &project, &thread).await?;
        if tries.next().is_none() {
            return Err(threads::restless());
        }
    };
    Ok(Json(MessageObject::from(&message)).into_response())
}

/// `GET /threads/{thread_id}/messages`
pub async fn list(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread,)): InPath<(ThreadId,)>,
    query: Query,
) -> Result<Response, ApiError> {
    let run: Option<RunId> = query.id("run_id")?;
    let page = query.page()?;
    let page = store::messages::list(&state.pool, &project, &thread, run.as_ref(), &page).await?;
    if page.data.is_empty() {
        threads::check(&state, &project, &thread).await?;
    }
    let list = List::of(&page, |item| item.id.to_string(), MessageObject::from);
    Ok(Json(list).into_response())
}

/// `GET /threads/{thread_id}/messages/{message_id}`
pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, MessageId)>,
) -> Result<Response, ApiError> {
    match store::messages::find(&state.pool, &project, &thread, &id).await? {
        Some(message) => Ok(Json(MessageObject::from(&message)).into_response()),
        None => Err(missing(&state, &project, &thread, &id).await?),
    }
}

/// `POST /threads/{thread_id}/messages/{message_id}`
pub async fn modify(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, MessageId)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let metadata = body.metadata()?;
    body.finish()?;
    let metadata = metadata.as_ref();
    match store::messages::update(&state.pool, &project, &thread, &id, metadata).await? {
        Some(message) => Ok(Json(MessageObject::from(&message)).into_response()),
        None => Err(missing(&state, &project, &thread, &id).await?),
    }
}

/// `DELETE /threads/{thread_id}/messages/{message_id}`
pub async fn delete(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, MessageId)>,
) -> Result<Response, ApiError> {
    if !store::messages::delete(&state.pool, &project, &thread, &id).await? {
        return Err(missing(&state, &project, &thread, &id).await?);
    }
    Ok(Json(Deleted::new(&id, "thread.message.deleted")).into_response())
}

async fn missing(
    state: &ApiState,
    project: &ProjectId,
    thread: &ThreadId,
    id: &MessageId,
) -> Result<ApiError, ApiError> {
    threads::check(state, project, thread).await?;
    Ok(ApiError::no_such("message", id))
}

/// Stores a message and gives its attachments to the thread. `None` when the thread is missing or
/// busy.
async fn insert(
    state: &ApiState,
    project: &ProjectId,
    thread: &ThreadId,
    new: &NewMessage,
) -> Result<Option<Message>, StoreError> {
    let attached = Attached::by(std::slice::from_ref(new));
    if attached.is_empty() {
        // One statement needs no transaction around it.
        return store::messages::insert(&state.pool, project, thread, new).await;
    }
    let mut transaction = state.pool.begin().await?;
    let message = store::messages::insert(&mut *transaction, project, thread, new).await?;
    if message.is_some() {
        attached
            .add_to_thread(&mut transaction, state, project, thread)
            .await?;
        transaction.commit().await?;
        if attached.are_indexed() {
            state.indexing.notify_one();
        }
    }
    Ok(message)
}

/// Refuses messages with files that do not exist, or that what they are given to does not support.
pub async fn check_files(
    state: &ApiState,
    project: &ProjectId,
    messages: &[NewMessage],
) -> Result<(), ApiError> {
    let attachments = messages.iter().flat_map(|message| &message.attachments);
    let attached = attachments.filter_map(|attachment| attachment.file_id.as_ref());
    let content = messages.iter().flat_map(|message| &message.content);
    let pictures: Vec<FileId> = content
        .filter_map(|content| match content {
            Content::ImageFile { file, .. } => Some(file.clone()),
            Content::Text { .. } | Content::Refusal { .. } | Content::ImageUrl { .. } => None,
        })
        .collect();
    check_files_exist(state, project, attached.chain(&pictures)).await?;
    let searched = files_for(messages, AttachmentTool::FileSearch);
    check_searchable(state, project, &searched).await?;
    check_pictures(state, project, &pictures).await
}
