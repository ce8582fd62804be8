//! `/admin/projects/{project_id}/keys`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::domain::api_key;
use crate::domain::ids::{ApiKeyId, ProjectId};
use crate::http::handlers::admin::Admin;
use crate::http::handlers::admin::projects::name;
use crate::http::request::extract::{Body, InPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;
use crate::store;
use crate::store::StoreError;
use crate::wire::api_key::ApiKeyObject;
use crate::wire::{Deleted, List};

/// `GET /admin/projects/{project_id}/keys`
pub async fn list(
    State(state): State<ApiState>,
    _: Admin,
    InPath((project,)): InPath<(ProjectId,)>,
    query: Query,
) -> Result<Response, ApiError> {
    let page = store::api_keys::of_project(&state.pool, &project, &query.page()?).await?;
    if page.data.is_empty()
        && store::projects::find(&state.pool, &project)
            .await?
            .is_none()
    {
        return Err(ApiError::no_such("project", &project));
    }
    let list = List::of(&page, |key| key.id.to_string(), ApiKeyObject::from);
    Ok(Json(list).into_response())
}

/// `POST /admin/projects/{project_id}/keys`: the only answer that ever holds the key.
pub async fn create(
    State(state): State<ApiState>,
    Admin(actor): Admin,
    InPath((project,)): InPath<(ProjectId,)>,
    Body(mut body): Body,
) -> Result<Response, ApiError> {
    let name = name(&mut body)?.unwrap_or_else(|| "default".to_owned());
    body.finish()?;
    let value = api_key::generate().map_err(|error| ApiError::internal(&error))?;
    let (hash, hint) = (api_key::hash(&value), api_key::hint(&value));
    let pool = &state.pool;
    match store::api_keys::create(pool, &actor, &project, &name, &hash, &hint).await {
        Ok(key) => Ok(Json(ApiKeyObject::with_value(&key, &value)).into_response()),
        Err(StoreError::Constraint(constraint))
            if constraint == store::api_keys::PROJECT_EXISTS =>
        {
            Err(ApiError::no_such("project", &project))
        }
        Err(error) => Err(error.into()),
    }
}

/// `DELETE /admin/projects/{project_id}/keys/{key_id}`: revokes the key, which stays in the list.
pub async fn revoke(
    State(state): State<ApiState>,
    Admin(actor): Admin,
    InPath((project, id)): InPath<(ProjectId, ApiKeyId)>,
) -> Result<Response, ApiError> {
    if !store::api_keys::revoke(&state.pool, &actor, Some(&project), &id).await? {
        return Err(ApiError::no_such("key", &id));
    }
    Ok(Json(Deleted::new(&id, "project.api_key.deleted")).into_response())
}
