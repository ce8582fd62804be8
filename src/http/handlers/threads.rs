//! `/threads`. Listing them is an extension: the hosted API never could.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, json};
use sqlx::PgConnection;

use crate::domain::Metadata;
use crate::domain::assistant::{FileSearchResources, ToolResources};
use crate::domain::ids::{ProjectId, ThreadId};
use crate::domain::message::NewMessage;
use crate::domain::thread::Thread;
use crate::domain::vector_store::NewVectorStore;
use crate::events::notifications::Notification;
use crate::http::handlers::messages::check_files;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::service::attachments::Attached;
use crate::service::references::{check_files_exist, check_tool_resources};
use crate::store;
use crate::wire::assistant::{NewToolResources, parse_new_tool_resources, parse_tool_resources};
use crate::wire::message::parse_all;
use crate::wire::object::Object;
use crate::wire::thread::ThreadObject;
use crate::wire::{Deleted, List};

/// What a client asks for when it creates a thread.
#[derive(Debug)]
pub struct NewThread {
    messages: Vec<NewMessage>,
    tool_resources: NewToolResources,
    metadata: Metadata,
}

impl NewThread {
    /// Takes a body apart.
    pub fn parse(mut body: Object) -> Result<Self, ApiError> {
        let new = Self {
            messages: parse_all(&mut body, "messages")?,
            tool_resources: parse_new_tool_resources(&mut body)?,
            metadata: body.metadata()?.unwrap_or_default(),
        };
        body.finish()?;
        Ok(new)
    }

    /// Refuses files and vector stores that do not exist.
    pub async fn check(&self, state: &ApiState, project: &ProjectId) -> Result<(), ApiError> {
        let NewToolResources {
            named,
            vector_store,
        } = &self.tool_resources;
        check_tool_resources(state, project, named).await?;
        let indexed = vector_store.iter().flat_map(|new| &new.files);
        check_files_exist(state, project, indexed.map(|new| &new.file)).await?;
        check_files(state, project, &self.messages).await
    }

    /// Adds the tool resources that a request gives beside the thread. Those of one tool can be given
    /// in one of the two places only.
    pub fn add_tool_resources(&mut self, beside: ToolResources) -> Result<(), ApiError> {
        let ToolResources {
            code_interpreter,
            file_search,
        } = beside;
        let named = &mut self.tool_resources.named;
        give(
            &mut named.code_interpreter,
            code_interpreter,
            "code_interpreter",
        )?;
        give(&mut named.file_search, file_search, "file_search")
    }

    /// Whether files will wait to be indexed once it is stored.
    pub fn indexes(&self) -> bool {
        self.tool_resources.vector_store.is_some() || Attached::by(&self.messages).are_indexed()
    }

    /// Stores the thread, its messages, and the vector store that it needs.
    pub async fn insert(
        self,
        connection: &mut PgConnection,
        state: &ApiState,
        project: &ProjectId,
    ) -> Result<Thread, ApiError> {
        let Self {
            messages,
            tool_resources:
                NewToolResources {
                    named: mut resources,
                    vector_store,
                },
            metadata,
        } = self;
        if let Some(new) = vector_store {
            let new = NewVectorStore {
                expires_after_days: state.limits.thread_store_days,
                ..new
            };
            let made = store::vector_stores::insert(&mut *connection, project, &new).await?;
            resources.file_search = Some(FileSearchResources {
                vector_store_ids: vec![made],
            });
        }
        let attached = Attached::by(&messages);
        attached
            .add_to(&mut *connection, state, project, &mut resources)
            .await?;
        let thread =
            store::threads::insert(&mut *connection, project, &metadata, &resources).await?;
        if !messages.is_empty() {
            store::messages::insert_all(connection, project, &thread.id, &messages).await?;
        }
        Ok(thread)
    }
}

fn give<T: PartialEq>(own: &mut Option<T>, beside: Option<T>, tool: &str) -> Result<(), ApiError> {
    match (&*own, beside) {
        (_, None) => Ok(()),
        (Some(own), Some(beside)) if *own != beside => {
            let path = format!("tool_resources.{tool}");
            Err(ApiError::invalid(format!(
                "Invalid '{path}': 'thread.{path}' gives resources for the same tool."
            ))
            .param(path)
            .code("invalid_value"))
        }
        (_, beside) => {
            *own = beside;
            Ok(())
        }
    }
}

/// `POST /threads`
pub async fn create(
    State(state): State<ApiState>,
    Caller(project): Caller,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let new = NewThread::parse(body)?;
    new.check(&state, &project).await?;
    let indexes = new.indexes();
    let thread = if new.messages.is_empty() && new.tool_resources.vector_store.is_none() {
        // One statement needs no transaction around it.
        let (metadata, resources) = (&new.metadata, &new.tool_resources.named);
        store::threads::insert(&state.pool, &project, metadata, resources).await?
    } else {
        let mut transaction = state.pool.begin().await?;
        let thread = new.insert(&mut transaction, &state, &project).await?;
        transaction.commit().await?;
        if indexes {
            state.indexing.notify_one();
        }
        thread
    };
    Ok(Json(ThreadObject::from(&thread)).into_response())
}

/// `GET /threads`, an extension; `metadata[key]=value` keeps only threads with this pair.
pub async fn list(
    State(state): State<ApiState>,
    Caller(project): Caller,
    query: Query,
) -> Result<Response, ApiError> {
    let page =
        store::threads::list(&state.pool, &project, &query.metadata(), &query.page()?).await?;
    let list = List::of(&page, |item| item.id.to_string(), ThreadObject::from);
    Ok(Json(list).into_response())
}

/// `GET /threads/{thread_id}`
pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(ThreadId,)>,
) -> Result<Response, ApiError> {
    let thread = store::threads::find(&state.pool, &project, &id)
        .await?
        .ok_or_else(|| ApiError::no_such("thread", &id))?;
    Ok(Json(ThreadObject::from(&thread)).into_response())
}

/// `POST /threads/{thread_id}`
pub async fn modify(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(ThreadId,)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let resources = parse_tool_resources(&mut body)?;
    let metadata = body.metadata()?;
    body.finish()?;
    check_tool_resources(&state, &project, &resources).await?;
    let mut changes = Map::new();
    if let Some(files) = &resources.code_interpreter {
        changes.insert("code_interpreter".into(), json!(files));
    }
    if let Some(stores) = &resources.file_search {
        changes.insert("file_search".into(), json!(stores));
    }
    let thread = store::threads::update(&state.pool, &project, &id, metadata.as_ref(), &changes)
        .await?
        .ok_or_else(|| ApiError::no_such("thread", &id))?;
    Ok(Json(ThreadObject::from(&thread)).into_response())
}

/// `DELETE /threads/{thread_id}`
pub async fn delete(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((id,)): InPath<(ThreadId,)>,
) -> Result<Response, ApiError> {
    let active = store::runs::active_on(&state.pool, &project, &id).await?;
    if !store::threads::delete(&state.pool, &project, &id).await? {
        return Err(ApiError::no_such("thread", &id));
    }
    // Its driver finds out that there is nothing left to write, and its readers hear of it.
    if let Some(run) = active {
        state.notifier.notify(Notification::Cancel(run));
    }
    Ok(Json(Deleted::new(&id, "thread.deleted")).into_response())
}

/// Refuses a thread that does not exist.
pub async fn check(
    state: &ApiState,
    project: &ProjectId,
    thread: &ThreadId,
) -> Result<(), ApiError> {
    if store::threads::exists(&state.pool, project, thread).await? {
        Ok(())
    } else {
        Err(ApiError::no_such("thread", thread))
    }
}

/// How often a request is tried again that found a thread busy with a run which had ended by the
/// time it was looked up.
pub const TRIES_WHEN_BUSY: u8 = 5;

/// Runs came and went on this thread at every try.
pub fn restless() -> ApiError {
    ApiError::unavailable("Other runs on this thread got ahead. Please retry your request.")
}
