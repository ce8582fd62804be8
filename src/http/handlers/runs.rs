//! `/threads/{thread_id}/runs` and `/threads/runs`.
//!
//! A handler stores the run, lets a worker know, and answers with what is stored or follows the
//! feed. It never waits for a model.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use sqlx::PgConnection;

use crate::domain::event::Seq;
use crate::domain::ids::{ProjectId, RunId, ThreadId};
use crate::domain::project::{Account, ProjectLimits};
use crate::domain::run::{Run, RunConfig, RunStatus};
use crate::domain::tool::Tool;
use crate::events::dispatch::Slot;
use crate::events::notifications::Notification;
use crate::http::handlers::messages::check_files;
use crate::http::handlers::threads::{self, NewThread};
use crate::http::request::auth::{Caller, Spender};
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::response::sse::{self, Start};
use crate::http::state::ApiState;
use crate::service::attachments::Attached;
use crate::store;
use crate::store::StoreError;
use crate::store::lease::{Claimant, Lease};
use crate::store::run_queue::{Claimed, Origin};
use crate::store::runs::{NewRun, SubmitError};
use crate::wire::List;
use crate::wire::assistant::parse_tool_resources;
use crate::wire::object::Object;
use crate::wire::run::{CreateRun, RunObject, parse_outputs};

/// `POST /threads/{thread_id}/runs`
pub async fn create(
    State(state): State<ApiState>,
    spender: Spender,
    InPath((thread,)): InPath<(ThreadId,)>,
    query: Query,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let passages = query.includes_passages()?;
    let request = CreateRun::parse(&mut body)?;
    body.finish()?;
    let Account { project, limits } = &*spender.account;
    check_files(&state, project, &request.additional_messages).await?;
    let config = config_of(&state, project, &request).await?;
    spender.may_use_tokens(&state).await?;

    let new = new_run(&state, &thread, &request, config);
    let slot = state.dispatcher.reserve(&new.id);
    let mut tries = 0..threads::TRIES_WHEN_BUSY;
    let (run, lease) = loop {
        match insert(&state, project, limits, &new, &request, slot.as_ref()).await {
            Ok(Some(stored)) => break stored,
            Ok(None) => {
                threads::check(&state, project, &thread).await?;
                return Err(nothing_to_do());
            }
            Err(StoreError::Constraint(name)) if name == "runs_one_active_per_thread" => {
                match store::runs::active_on(&state.pool, project, &thread).await? {
                    Some(run) => return Err(busy(&thread, &run)),
                    None if tries.next().is_some() => {}
                    None => return Err(threads::restless()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    };
    let run = start(&state, slot, run, lease, Origin::Created);
    if request.stream {
        return Ok(sse::follow(
            &state,
            run,
            Start {
                passages,
                ..Start::default()
            },
        ));
    }
    Ok(object(&state, &queued(run)))
}

/// `POST /threads/runs`
pub async fn create_with_thread(
    State(state): State<ApiState>,
    spender: Spender,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let Account { project, limits } = &*spender.account;
    let mut thread = match body.object("thread")? {
        Some(thread) => NewThread::parse(thread)?,
        None => NewThread::parse(Object::body(Default::default()))?,
    };
    thread.add_tool_resources(parse_tool_resources(&mut body)?)?;
    let request = CreateRun::parse_without_messages(&mut body)?;
    body.finish()?;
    thread.check(&state, project).await?;
    let indexes = thread.indexes();
    let config = config_of(&state, project, &request).await?;
    spender.may_use_tokens(&state).await?;

    let mut transaction = state.pool.begin().await?;
    let thread = thread.insert(&mut transaction, &state, project).await?;
    let new = new_run(&state, &thread.id, &request, config);
    let slot = state.dispatcher.reserve(&new.id);
    let claimant = slot.as_ref().map(Slot::claimant);
    let stored = insert_run(&mut transaction, project, limits, &new, claimant).await?;
    let (run, lease) = stored.ok_or_else(nothing_to_do)?;
    transaction.commit().await?;
    if indexes {
        state.indexing.notify_one();
    }
    let run = start(&state, slot, run, lease, Origin::Created);
    if request.stream {
        return Ok(sse::follow(
            &state,
            run,
            Start {
                thread: Some(thread),
                ..Start::default()
            },
        ));
    }
    Ok(object(&state, &queued(run)))
}

/// `GET /threads/{thread_id}/runs`
pub async fn list(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread,)): InPath<(ThreadId,)>,
    query: Query,
) -> Result<Response, ApiError> {
    let page = store::runs::list(&state.pool, &project, &thread, &query.page()?).await?;
    if page.data.is_empty() {
        threads::check(&state, &project, &thread).await?;
    }
    let list = List::of(&page, |item| item.id.to_string(), RunObject::from);
    Ok(Json(list).into_response())
}

/// `GET /threads/{thread_id}/runs/{run_id}`
pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, RunId)>,
) -> Result<Response, ApiError> {
    let run = find(&state, &project, &thread, &id).await?;
    Ok((state.limits.poll_headers(), object(&state, &run)).into_response())
}

/// `POST /threads/{thread_id}/runs/{run_id}`
pub async fn modify(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, RunId)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let metadata = body.metadata()?;
    body.finish()?;
    let metadata = metadata.as_ref();
    match store::runs::update(&state.pool, &project, &thread, &id, metadata).await? {
        Some(run) => Ok(Json(RunObject::from(&run)).into_response()),
        None => {
            let run = find(&state, &project, &thread, &id).await?;
            let status = run.state.status.as_str();
            Err(ApiError::invalid(format!(
                "Cannot update run with status '{status}'."
            )))
        }
    }
}

/// `POST /threads/{thread_id}/runs/{run_id}/cancel`
pub async fn cancel(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, RunId)>,
) -> Result<Response, ApiError> {
    match store::runs::cancel(&state.pool, &project, &thread, &id).await? {
        Some(run) => {
            state.dispatcher.notify_due();
            state.notifier.notify(Notification::Cancel(id));
            Ok(Json(RunObject::from(&run)).into_response())
        }
        None => {
            let run = find(&state, &project, &thread, &id).await?;
            let status = run.state.status.as_str();
            Err(ApiError::invalid(format!(
                "Cannot cancel run with status '{status}'."
            )))
        }
    }
}

/// `POST /threads/{thread_id}/runs/{run_id}/submit_tool_outputs`
pub async fn submit_tool_outputs(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, RunId)>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let (outputs, stream) = parse_outputs(body)?;
    let slot = state.dispatcher.reserve(&id);
    let mut transaction = state.pool.begin().await?;
    let claimant = slot.as_ref().map(Slot::claimant);
    let submitted =
        store::runs::submit(&mut transaction, &project, &thread, &id, &outputs, claimant).await;
    let submitted = match submitted {
        Ok(submitted) => submitted,
        Err(error) => {
            drop(transaction);
            return Err(refused(&state, &project, &thread, &id, &outputs, error).await?);
        }
    };
    transaction.commit().await?;
    let origin = Origin::Submitted {
        started_at: submitted.started_at,
    };
    let run = start(&state, slot, submitted.run, submitted.lease, origin);
    if stream {
        return Ok(sse::follow(
            &state,
            run,
            Start {
                after: submitted.after,
                ..Start::default()
            },
        ));
    }
    let mut run = queued(run);
    run.state.started_at = submitted.started_at;
    Ok(object(&state, &run))
}

/// `GET /threads/{thread_id}/runs/{run_id}/stream`, an extension: follows a run from its
/// beginning, or from behind the event that `Last-Event-ID` names.
pub async fn stream(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, id)): InPath<(ThreadId, RunId)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = match headers.get("last-event-id") {
        None => Seq::START,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            Seq(text.trim().parse().map_err(|_| {
                ApiError::invalid(
                    "Invalid 'Last-Event-ID': expected the id of an event of this run.",
                )
            })?)
        }
    };
    let run = find(&state, &project, &thread, &id).await?;
    Ok(sse::follow(
        &state,
        run,
        Start {
            after,
            ids: true,
            ..Start::default()
        },
    ))
}

/// The run, or the documented 404 of what is missing.
pub async fn find(
    state: &ApiState,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
) -> Result<Run, ApiError> {
    if let Some(run) = store::runs::find(&state.pool, project, thread, id).await? {
        return Ok(run);
    }
    threads::check(state, project, thread).await?;
    Err(ApiError::no_such("run", id))
}

async fn config_of(
    state: &ApiState,
    project: &ProjectId,
    request: &CreateRun,
) -> Result<RunConfig, ApiError> {
    let assistant = store::assistants::find(&state.pool, project, &request.assistant)
        .await?
        .ok_or_else(|| ApiError::no_such("assistant", &request.assistant))?;
    let config = request.config(assistant.config)?;
    if config.tools.contains(&Tool::CodeInterpreter)
        && let Some(reason) = (state.code_interpreter_off)()
    {
        return Err(ApiError::invalid(format!(
            "The tool 'code_interpreter' is not available on this server: {reason}. Pass other \
             `tools` to this run, or take it off the assistant."
        ))
        .param("tools")
        .code("unsupported_tool"));
    }
    Ok(config)
}

fn new_run<'a>(
    state: &ApiState,
    thread: &'a ThreadId,
    request: &'a CreateRun,
    config: RunConfig,
) -> NewRun<'a> {
    NewRun {
        id: RunId::generate(),
        thread,
        assistant: &request.assistant,
        needs_message: config.instructions.is_empty(),
        config: config.into(),
        metadata: &request.metadata,
        expires_after: state.limits.run_expiry,
    }
}

/// Stores a run, after its additional messages if it has any. `None` when there is no such thread,
/// or nothing on it and in the instructions to run on.
async fn insert(
    state: &ApiState,
    project: &ProjectId,
    limits: &ProjectLimits,
    new: &NewRun<'_>,
    request: &CreateRun,
    slot: Option<&Slot>,
) -> Result<Option<(Run, Option<Lease>)>, StoreError> {
    let claimant = slot.map(Slot::claimant);
    let messages = &request.additional_messages;
    if messages.is_empty() && limits.max_concurrent_runs.is_none() {
        // One statement needs no transaction around it.
        return store::runs::insert(&state.pool, project, new, claimant).await;
    }
    let mut transaction = state.pool.begin().await?;
    let connection: &mut PgConnection = &mut transaction;
    if !messages.is_empty()
        && !store::threads::exists(&mut *connection, project, new.thread).await?
    {
        return Ok(None);
    }
    // The messages first: they are older than what the run will write.
    store::messages::insert_all(&mut *connection, project, new.thread, messages).await?;
    let attached = Attached::by(messages);
    attached
        .add_to_thread(&mut *connection, state, project, new.thread)
        .await?;
    let stored = insert_run(&mut *connection, project, limits, new, claimant).await?;
    transaction.commit().await?;
    if attached.are_indexed() {
        state.indexing.notify_one();
    }
    Ok(stored)
}

/// Stores a run if the project may have one more.
async fn insert_run(
    connection: &mut PgConnection,
    project: &ProjectId,
    limits: &ProjectLimits,
    new: &NewRun<'_>,
    claimant: Option<&Claimant>,
) -> Result<Option<(Run, Option<Lease>)>, StoreError> {
    match limits.max_concurrent_runs {
        None => store::runs::insert(connection, project, new, claimant).await,
        Some(max) => store::runs::insert_within(connection, project, new, claimant, max).await,
    }
}

/// Hands the run to this process's worker if a slot was free, or lets all workers know.
fn start(
    state: &ApiState,
    slot: Option<Slot>,
    run: Run,
    lease: Option<Lease>,
    origin: Origin,
) -> Run {
    match (slot, lease) {
        (Some(slot), Some(lease)) => {
            let publisher = state.feed.open(&lease);
            slot.start(
                Claimed {
                    lease,
                    run: run.clone(),
                    origin,
                },
                publisher,
            );
        }
        (_, _) => {
            state.dispatcher.notify_due();
            state.notifier.notify(Notification::Due);
        }
    }
    run
}

/// The run as JSON, with a header for a model that answers under another name.
fn object(state: &ApiState, run: &Run) -> Response {
    let header = state.model_header(&run.config.model);
    (header, Json(RunObject::from(run))).into_response()
}

/// The run as a client that just queued it sees it.
fn queued(mut run: Run) -> Run {
    run.state.status = RunStatus::Queued;
    run.state.started_at = None;
    run
}

fn nothing_to_do() -> ApiError {
    ApiError::invalid(
        "Run creation requires a Thread with a user message or an assistant with instructions.",
    )
    .code("invalid_thread")
}

fn busy(thread: &ThreadId, run: &RunId) -> ApiError {
    ApiError::invalid(format!("Thread {thread} already has an active run {run}."))
}

async fn refused(
    state: &ApiState,
    project: &ProjectId,
    thread: &ThreadId,
    id: &RunId,
    outputs: &[(String, String)],
    error: SubmitError,
) -> Result<ApiError, ApiError> {
    let list = |ids: &mut dyn Iterator<Item = &str>| {
        ids.map(|id| format!("'{id}'"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Ok(match error {
        SubmitError::NotFound => {
            threads::check(state, project, thread).await?;
            ApiError::no_such("run", id)
        }
        SubmitError::WrongStatus(status) => ApiError::invalid(format!(
            "Runs in status \"{}\" do not accept tool outputs.",
            status.as_str()
        )),
        SubmitError::WrongCalls { expected } => ApiError::invalid(format!(
            "Expected tool outputs for call_ids [{}], got [{}]",
            list(&mut expected.iter().map(String::as_str)),
            list(&mut outputs.iter().map(|(id, _)| id.as_str())),
        )),
        SubmitError::Store(error) => error.into(),
    })
}
