//! `/admin/projects`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::ProjectId;
use crate::domain::project::ProjectLimits;
use crate::http::request::auth::AdminCaller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::List;
use crate::wire::project::{ProjectObject, parse_limits, parse_name};
use crate::wire::refusal::missing;

pub async fn list(
    State(state): State<ApiState>,
    _: AdminCaller,
    query: Query,
) -> Result<Response, ApiError> {
    let page = state.service.list_projects(&query.page()?).await?;
    let list = List::of(&page, |project| project.id.to_string(), ProjectObject::from);
    Ok(Json(list).into_response())
}

pub async fn create(
    State(state): State<ApiState>,
    AdminCaller(actor): AdminCaller,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let name = parse_name(&mut body)?.ok_or_else(|| missing("name"))?;
    let limits = parse_limits(&mut body)?.onto(ProjectLimits::default());
    body.finish()?;
    let project = state.service.create_project(&actor, &name, &limits).await?;
    Ok(Json(ProjectObject::from(&project)).into_response())
}

pub async fn retrieve(
    State(state): State<ApiState>,
    _: AdminCaller,
    InPath((id,)): InPath<(ProjectId,)>,
) -> Result<Response, ApiError> {
    let project = state.service.project(&id).await?;
    Ok(Json(ProjectObject::from(&project)).into_response())
}

pub async fn modify(
    State(state): State<ApiState>,
    AdminCaller(actor): AdminCaller,
    InPath((id,)): InPath<(ProjectId,)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let name = parse_name(&mut body)?;
    let changes = parse_limits(&mut body)?;
    body.finish()?;
    let project = state
        .service
        .update_project(&actor, &id, name.as_deref(), &changes)
        .await?;
    Ok(Json(ProjectObject::from(&project)).into_response())
}
