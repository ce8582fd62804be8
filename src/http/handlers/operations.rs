//! What operators and tools ask for, and answers to what is no route.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::http::response::error::ApiError;
use crate::http::state::ApiState;

/// `GET /healthz`: the process answers.
pub async fn healthz() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// `GET /readyz`: the database answers too, so requests make sense.
pub async fn readyz(State(state): State<ApiState>) -> Result<Response, ApiError> {
    state.service.check_database().await?;
    Ok(Json(json!({"status": "ready"})).into_response())
}

/// `GET /metrics`, in Prometheus' text format.
pub async fn metrics(State(state): State<ApiState>) -> Response {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, (state.metrics)()).into_response()
}

/// `GET /openapi.json`: this server's own description.
pub async fn openapi() -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, crate::http::openapi_json()).into_response()
}

/// 404 for every path that is none of this server's.
pub async fn no_such_route(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(format!("Invalid URL ({method} {})", uri.path()))
}

/// 405 for a method that the path does not have.
pub async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(format!("Not allowed to {method} on {}", uri.path()))
        .code("method_not_supported")
}
