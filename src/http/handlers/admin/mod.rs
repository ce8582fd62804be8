//! The admin API under `/admin`: projects, their keys and limits, usage, the audit log, webhooks, and
//! the state of the server.
//!
//! It exists only if the operator has set an admin key; every request must carry that key.

mod audit_log;
mod health;
mod keys;
mod projects;
mod usage;
mod webhooks;

use axum::Router;
use axum::routing::{delete, get, post};

use crate::http::state::ApiState;

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
        .route("/webhooks", get(webhooks::list))
        .route("/webhooks/{endpoint_id}/enable", post(webhooks::enable))
        .route(
            "/webhooks/{endpoint_id}/deliveries",
            get(webhooks::deliveries),
        )
        .route(
            "/webhooks/{endpoint_id}/redeliver/{delivery_id}",
            post(webhooks::redeliver),
        )
        .route("/health", get(health::retrieve))
}
