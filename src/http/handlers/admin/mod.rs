//! The admin API under `/admin`: projects, their keys and limits, usage, and the audit log.
//!
//! It exists only if the operator has set an admin key, which every request must carry.

mod audit_log;
mod keys;
mod projects;
mod usage;

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::routing::{delete, get};

use crate::domain::audit::Actor;
use crate::http::request::auth::key_of;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;

/// All routes, below `/admin`.
pub fn routes() -> Router<ApiState> {
    Router::new()
        .route("/projects", get(projects::list).post(projects::create))
        .route(
            "/projects/{project_id}",
            get(projects::retrieve).post(projects::modify),
        )
        .route(
            "/projects/{project_id}/keys",
            get(keys::list).post(keys::create),
        )
        .route("/projects/{project_id}/keys/{key_id}", delete(keys::revoke))
        .route("/usage", get(usage::sums))
        .route("/audit_log", get(audit_log::list))
}

/// An operator who calls the admin API with its key.
pub struct Admin(Actor);

impl FromRequestParts<ApiState> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = peer.map_or_else(
            || "unknown".to_owned(),
            |ConnectInfo(address)| address.ip().to_canonical().to_string(),
        );
        let key = key_of(&parts.headers).unwrap_or_default();
        if state.service.is_admin_key(&key) {
            return Ok(Self(Actor::AdminApi(address)));
        }
        tracing::warn!("admin API: request from {address} refused, invalid key");
        Err(ApiError::unauthorized("Invalid admin key.").code("invalid_api_key"))
    }
}
