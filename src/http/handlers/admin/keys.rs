//! `/admin/projects/{project_id}/keys`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::ids::{ApiKeyId, ProjectId};
use crate::http::request::auth::AdminCaller;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::wire::api_key::ApiKeyObject;
use crate::wire::project::parse_name;
use crate::wire::{Deleted, List};

pub async fn list(
    State(state): State<ApiState>,
    _: AdminCaller,
    InPath((project,)): InPath<(ProjectId,)>,
    query: Query,
) -> Result<Response, ApiError> {
    let page = state
        .service
        .list_api_keys(&project, &query.page()?)
        .await?;
    let list = List::of(&page, |key| key.id.to_string(), ApiKeyObject::from);
    Ok(Json(list).into_response())
}

pub async fn create(
    State(state): State<ApiState>,
    AdminCaller(actor): AdminCaller,
    InPath((project,)): InPath<(ProjectId,)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let name = parse_name(&mut body)?.unwrap_or_else(|| "default".to_owned());
    body.finish()?;
    let (key, value) = state
        .service
        .create_api_key(&actor, &project, &name)
        .await?;
    Ok(Json(ApiKeyObject::with_value(&key, &value)).into_response())
}

/// `DELETE /admin/projects/{project_id}/keys/{key_id}`: revokes the key, which remains in the list
pub async fn revoke(
    State(state): State<ApiState>,
    AdminCaller(actor): AdminCaller,
    InPath((project, id)): InPath<(ProjectId, ApiKeyId)>,
) -> Result<Response, ApiError> {
    state.service.revoke_api_key(&actor, &project, &id).await?;
    Ok(Json(Deleted::new(&id, "project.api_key.deleted")).into_response())
}
