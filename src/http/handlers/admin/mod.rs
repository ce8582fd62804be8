//! The admin API under `/admin`: projects, their keys and limits, usage, and the audit log.
//!
//! It is there only if the operator has set a key for it, and opens to nothing else.

mod audit_log;
mod keys;
mod projects;
mod usage;

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::routing::{delete, get};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

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

/// The key of the admin API, of which only the hash is kept.
#[derive(Clone)]
pub struct AdminKey([u8; 32]);

impl AdminKey {
    /// This key.
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Whether a key with this SHA-256 is it. Takes the same time whatever the answer.
    pub fn is(&self, hash: &[u8; 32]) -> bool {
        self.0.ct_eq(hash).into()
    }
}

/// Who calls the admin API, with its key.
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
        let hash = Sha256::digest(key.as_bytes()).into();
        if state.admin_key.as_ref().is_some_and(|key| key.is(&hash)) {
            return Ok(Self(Actor::AdminApi(address)));
        }
        tracing::warn!("{address} was refused at the admin API");
        Err(
            ApiError::unauthorized("The admin API opens to the admin key of this server only.")
                .code("invalid_api_key"),
        )
    }
}
