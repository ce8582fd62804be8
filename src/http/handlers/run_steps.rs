//! `/threads/{thread_id}/runs/{run_id}/steps`.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::{RunId, StepId, ThreadId};
use crate::http::request::auth::Caller;
use crate::http::request::extract::{InPath, Query};
use crate::http::response::error::ApiError;
use crate::wire::List;
use crate::wire::run_step::StepObject;

pub async fn list(
    Caller(project): Caller,
    InPath((thread, run)): InPath<(ThreadId, RunId)>,
    query: Query,
) -> Result<Response, ApiError> {
    let includes_result_content = query.includes_result_content()?;
    let page = project
        .list_run_steps(&thread, &run, &query.page()?)
        .await?;
    let list = List::of(
        &page,
        |item| item.id.to_string(),
        |step| StepObject::stored(step, includes_result_content),
    );
    Ok(Json(list).into_response())
}

pub async fn retrieve(
    Caller(project): Caller,
    InPath((thread, run, id)): InPath<(ThreadId, RunId, StepId)>,
    query: Query,
) -> Result<Response, ApiError> {
    let includes_result_content = query.includes_result_content()?;
    let step = project.run_step(&thread, &run, &id).await?;
    Ok(Json(StepObject::stored(&step, includes_result_content)).into_response())
}
