//! `/threads/{thread_id}/runs/{run_id}/steps`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::{RunId, StepId, ThreadId};
use crate::http::handlers::runs;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::store;
use crate::wire::List;
use crate::wire::run_step::StepObject;

/// `GET /threads/{thread_id}/runs/{run_id}/steps`
pub async fn list(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, run)): InPath<(ThreadId, RunId)>,
    query: Query,
) -> Result<Response, ApiError> {
    let passages = query.includes_passages()?;
    let page = store::run_steps::list(&state.pool, &project, &thread, &run, &query.page()?).await?;
    if page.data.is_empty() {
        runs::find(&state, &project, &thread, &run).await?;
    }
    let list = List::of(
        &page,
        |item| item.id.to_string(),
        |step| StepObject::at_rest(step, passages),
    );
    Ok(Json(list).into_response())
}

/// `GET /threads/{thread_id}/runs/{run_id}/steps/{step_id}`
pub async fn retrieve(
    State(state): State<ApiState>,
    Caller(project): Caller,
    InPath((thread, run, id)): InPath<(ThreadId, RunId, StepId)>,
    query: Query,
) -> Result<Response, ApiError> {
    let passages = query.includes_passages()?;
    if let Some(step) = store::run_steps::find(&state.pool, &project, &thread, &run, &id).await? {
        return Ok(Json(StepObject::at_rest(&step, passages)).into_response());
    }
    runs::find(&state, &project, &thread, &run).await?;
    Err(ApiError::no_such("run step", &id))
}
