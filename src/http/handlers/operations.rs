//! Health, readiness, metrics and the OpenAPI document; and the errors for unknown routes.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::http::openapi;
use crate::http::response::error::ApiError;
use crate::http::state::ApiState;

pub async fn healthz() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// `GET /readyz`: unlike `/healthz`, it needs the database.
pub async fn readyz(State(state): State<ApiState>) -> Result<Response, ApiError> {
    state.service.check_database().await?;
    Ok(Json(json!({"status": "ready"})).into_response())
}

pub async fn metrics(State(state): State<ApiState>) -> Response {
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (content_type, (state.metrics)()).into_response()
}

pub async fn openapi() -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, openapi::json()).into_response()
}

pub async fn route_not_found(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(format!("Invalid URL ({method} {})", uri.path()))
}

pub async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(format!("Not allowed to {method} on {}", uri.path()))
        .code("method_not_supported")
}
