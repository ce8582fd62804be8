//! `/threads/{thread_id}/runs` and `/threads/runs`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use crate::domain::event::Seq;
use crate::domain::ids::{RunId, ThreadId};
use crate::domain::run::Run;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::response::sse::{self, Start};
use crate::http::state::ApiState;
use crate::service::StartedRun;
use crate::wire::List;
use crate::wire::object::Object;
use crate::wire::run::RunObject;
use crate::wire::run_request::{CreateRun, SubmitToolOutputs};
use crate::wire::thread::NewThread;
use crate::wire::tool_resources::parse_tool_resources;

pub async fn create(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread,)): InPath<(ThreadId,)>,
    query: Query,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let includes_result_content = query.includes_result_content()?;
    let request = CreateRun::parse(&mut body)?;
    body.finish()?;
    let started = project.create_run(&thread, &request).await?;
    Ok(respond(
        &state,
        started,
        request.stream,
        includes_result_content,
    ))
}

pub async fn create_with_thread(
    State(state): State<ApiState>,
    Caller(project): Caller,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let mut thread = match body.object("thread")? {
        Some(thread) => NewThread::parse(thread)?,
        None => NewThread::parse(Object::from_fields(Default::default()))?,
    };
    thread.add_tool_resources(parse_tool_resources(&mut body)?)?;
    let request = CreateRun::parse_without_messages(&mut body)?;
    body.finish()?;
    let started = project.create_thread_and_run(thread, &request).await?;
    Ok(respond(&state, started, request.stream, false))
}

pub async fn list(
    Caller(project): Caller,
    InPath((thread,)): InPath<(ThreadId,)>,
    query: Query,
) -> Result<Response, ApiError> {
    let page = project.list_runs(&thread, &query.page()?).await?;
    let list = List::of(&page, |item| item.id.to_string(), RunObject::from);
    Ok(Json(list).into_response())
}

pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, RunId)>,
) -> Result<Response, ApiError> {
    let run = project.run(&thread, &id).await?;
    Ok((state.limits.poll_headers(), run_object(&state, &run)).into_response())
}

pub async fn modify(
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, RunId)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let metadata = body.metadata()?;
    body.finish()?;
    let run = project.update_run(&thread, &id, metadata.as_ref()).await?;
    Ok(Json(RunObject::from(&run)).into_response())
}

pub async fn cancel(
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, RunId)>,
) -> Result<Response, ApiError> {
    let run = project.cancel_run(&thread, &id).await?;
    Ok(Json(RunObject::from(&run)).into_response())
}

pub async fn submit_tool_outputs(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, RunId)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let SubmitToolOutputs { outputs, stream } = SubmitToolOutputs::parse(body)?;
    let started = project.submit_tool_outputs(&thread, &id, &outputs).await?;
    Ok(respond(&state, started, stream, false))
}

/// `GET /threads/{thread_id}/runs/{run_id}/stream`, an extension: streams the events of a run from the
/// first one, or from the one after `Last-Event-ID`
pub async fn stream(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, RunId)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = last_event_id(&headers)?;
    let run = project.run(&thread, &id).await?;
    let start = Start {
        after,
        has_ids: true,
        ..Start::default()
    };
    Ok(sse::follow(&state, run, start))
}

fn last_event_id(headers: &HeaderMap) -> Result<Seq, ApiError> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(Seq::START);
    };
    let text = value.to_str().unwrap_or_default();
    text.trim().parse().map(Seq).map_err(|_| {
        ApiError::invalid("Invalid 'Last-Event-ID': expected the id of an event of this run.")
    })
}

fn respond(
    state: &ApiState,
    started: StartedRun,
    is_stream: bool,
    includes_result_content: bool,
) -> Response {
    let StartedRun { run, after, thread } = started;
    if !is_stream {
        return run_object(state, &run);
    }
    let start = Start {
        after,
        thread,
        has_ids: false,
        includes_result_content,
    };
    sse::follow(state, run, start)
}

fn run_object(state: &ApiState, run: &Run) -> Response {
    let header = state.model_header(&run.config.model);
    (header, Json(RunObject::from(run))).into_response()
}
