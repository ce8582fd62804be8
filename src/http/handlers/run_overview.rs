//! `/runs`, an extension: runs over all threads.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::RunId;
use crate::domain::run::RunStatus;
use crate::domain::run_overview::RunFilter;
use crate::http::request::auth::Caller;
use crate::http::request::extract::{InPath, Query};
use crate::http::response::error::ApiError;
use crate::wire::List;
use crate::wire::refusal::invalid_value;
use crate::wire::run::RunObject;
use crate::wire::run_overview::{RunCountsObject, RunExecutionObject};

/// `GET /runs`: the runs that meet a filter
pub async fn list(Caller(project): Caller, query: Query) -> Result<Response, ApiError> {
    let filter = parse_filter(&query)?;
    let page = project.list_all_runs(&filter, &query.page()?).await?;
    let list = List::of(&page, |item| item.id.to_string(), RunObject::from);
    Ok(Json(list).into_response())
}

/// `GET /runs/counts`: numbers of the newest runs that meet a filter, by status
pub async fn count(Caller(project): Caller, query: Query) -> Result<Response, ApiError> {
    let counts = project.count_runs(&parse_filter(&query)?).await?;
    Ok(Json(RunCountsObject::from(&counts)).into_response())
}

/// `GET /runs/{run_id}/execution`: attempts, lease, and times in milliseconds
pub async fn execution(
    Caller(project): Caller,
    InPath((id,)): InPath<(RunId,)>,
) -> Result<Response, ApiError> {
    let execution = project.run_execution(&id).await?;
    Ok(Json(RunExecutionObject::from(&execution)).into_response())
}

fn parse_filter(query: &Query) -> Result<RunFilter, ApiError> {
    let names = query.list("status").flat_map(|names| names.split(','));
    let statuses = names.filter(|name| !name.is_empty()).map(parse_status);
    Ok(RunFilter {
        statuses: statuses.collect::<Result<_, _>>()?,
        assistant: query.id("assistant_id")?,
        model: query.get("model").map(str::to_owned),
        created_after: query.time("created_after")?,
        created_before: query.time("created_before")?,
        metadata: query.metadata(),
    })
}

fn parse_status(name: &str) -> Result<RunStatus, ApiError> {
    let mut known = RunStatus::ALL.into_iter();
    known
        .find(|status| status.as_str() == name)
        .ok_or_else(|| invalid_value("status", name, &RunStatus::ALL.map(RunStatus::as_str)).into())
}
