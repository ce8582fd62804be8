//! `/admin/projects`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::ProjectId;
use crate::domain::project::{LimitChanges, ProjectLimits};
use crate::http::handlers::admin::Admin;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::store;
use crate::store::StoreError;
use crate::wire::List;
use crate::wire::object::{Object, missing};
use crate::wire::project::ProjectObject;

/// Longest name of a project or key, in characters.
const MAX_NAME: usize = 200;

/// `GET /admin/projects`
pub async fn list(
    State(state): State<ApiState>,
    _: Admin,
    query: Query,
) -> Result<Response, ApiError> {
    let page = store::projects::list(&state.pool, &query.page()?).await?;
    let list = List::of(&page, |project| project.id.to_string(), ProjectObject::from);
    Ok(Json(list).into_response())
}

/// `POST /admin/projects`
pub async fn create(
    State(state): State<ApiState>,
    Admin(actor): Admin,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let name = name(&mut body)?.ok_or_else(|| missing("name"))?;
    let limits = limits(&mut body)?.onto(ProjectLimits::default());
    body.finish()?;
    let project = store::projects::create(&state.pool, &actor, &name, &limits).await;
    let project = project.map_err(|error| taken(error, &name))?;
    Ok(Json(ProjectObject::from(&project)).into_response())
}

/// `GET /admin/projects/{project_id}`
pub async fn retrieve(
    State(state): State<ApiState>,
    _: Admin,
    InPath((id,)): InPath<(ProjectId,)>,
) -> Result<Response, ApiError> {
    let project = store::projects::find(&state.pool, &id)
        .await?
        .ok_or_else(|| ApiError::no_such("project", &id))?;
    Ok(Json(ProjectObject::from(&project)).into_response())
}

/// `POST /admin/projects/{project_id}`
pub async fn modify(
    State(state): State<ApiState>,
    Admin(actor): Admin,
    InPath((id,)): InPath<(ProjectId,)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let name = name(&mut body)?;
    let changes = limits(&mut body)?;
    body.finish()?;
    let project = store::projects::update(&state.pool, &actor, &id, name.as_deref(), &changes)
        .await
        .map_err(|error| taken(error, name.as_deref().unwrap_or_default()))?
        .ok_or_else(|| ApiError::no_such("project", &id))?;
    Ok(Json(ProjectObject::from(&project)).into_response())
}

/// Takes a name for people: not empty, one line.
pub(super) fn name(body: &mut Object) -> Result<Option<String>, ApiError> {
    let name = body.string("name", MAX_NAME)?;
    if name
        .as_deref()
        .is_some_and(|name| name.trim().is_empty() || name.chars().any(char::is_control))
    {
        return Err(
            ApiError::invalid("Invalid 'name': expected some text on one line.")
                .param("name")
                .code("invalid_value"),
        );
    }
    Ok(name)
}

/// Takes `limits`: what is absent stays, null lifts a limit.
fn limits(body: &mut Object) -> Result<LimitChanges, ApiError> {
    let Some(mut limits) = body.object("limits")? else {
        return Ok(LimitChanges::default());
    };
    let [runs, requests, tokens, bytes] = ProjectLimits::MAX;
    let small =
        |number: Option<i64>| number.map(|number| i32::try_from(number).unwrap_or(i32::MAX));
    let mut take = |name, max| -> Result<Option<Option<i64>>, ApiError> {
        let is_given = limits.has(name);
        let number = limits.integer(name, 1, max)?;
        Ok(is_given.then_some(number))
    };
    let changes = LimitChanges {
        max_concurrent_runs: take("max_concurrent_runs", runs)?.map(small),
        requests_per_minute: take("requests_per_minute", requests)?.map(small),
        tokens_per_minute: take("tokens_per_minute", tokens)?,
        storage_bytes: take("storage_bytes", bytes)?,
    };
    limits.finish()?;
    Ok(changes)
}

fn taken(error: StoreError, name: &str) -> ApiError {
    match error {
        StoreError::Constraint(constraint) if constraint == store::projects::NAME_UNIQUE => {
            ApiError::invalid(format!("There is a project of the name '{name}' already."))
                .param("name")
                .code("name_taken")
        }
        error => error.into(),
    }
}
