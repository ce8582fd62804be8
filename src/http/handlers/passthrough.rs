//! `/chat/completions`, `/embeddings` and `/responses`, which are passed through to the routed
//! upstream, so that an application needs only one base URL.

use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::http::request::auth::Caller;
use crate::http::request::extract::{Body, NameInPath, Query};
use crate::http::response::error::ApiError;
use crate::http::state::{ApiState, ROUTED_MODEL};
use crate::models::{Passthrough, StoredResponseCall, UpstreamError};
use crate::wire::object::Object;
use crate::wire::refusal::missing;

pub async fn chat(
    State(state): State<ApiState>,
    Caller(project): Caller,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let body = passthrough_body(body, "messages")?;
    project.admit_tokens().await?;
    respond(state.upstreams.chat(body).await)
}

pub async fn embeddings(
    State(state): State<ApiState>,
    Caller(project): Caller,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let body = passthrough_body(body, "input")?;
    project.admit_tokens().await?;
    respond(state.upstreams.embeddings(body).await)
}

pub async fn create_response(
    State(state): State<ApiState>,
    Caller(project): Caller,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let body = passthrough_body(body, "model")?;
    project.admit_tokens().await?;
    respond(state.upstreams.responses(body).await)
}

pub async fn retrieve_response(
    State(state): State<ApiState>,
    caller: Caller,
    id: NameInPath,
    query: Query,
) -> Result<Response, ApiError> {
    stored_response(&state, caller, StoredResponseCall::Read, id, query).await
}

pub async fn delete_response(
    State(state): State<ApiState>,
    caller: Caller,
    id: NameInPath,
    query: Query,
) -> Result<Response, ApiError> {
    stored_response(&state, caller, StoredResponseCall::Delete, id, query).await
}

pub async fn cancel_response(
    State(state): State<ApiState>,
    caller: Caller,
    id: NameInPath,
    query: Query,
) -> Result<Response, ApiError> {
    stored_response(&state, caller, StoredResponseCall::Cancel, id, query).await
}

pub async fn list_response_input(
    State(state): State<ApiState>,
    caller: Caller,
    id: NameInPath,
    query: Query,
) -> Result<Response, ApiError> {
    stored_response(&state, caller, StoredResponseCall::ListInput, id, query).await
}

async fn stored_response(
    state: &ApiState,
    Caller(_): Caller,
    call: StoredResponseCall,
    NameInPath(id): NameInPath,
    query: Query,
) -> Result<Response, ApiError> {
    // `api-version` is for this server's Azure paths; an upstream has a version of its own.
    let mut query = query.pairs().to_vec();
    query.retain(|(name, _)| name != "api-version");
    respond(state.upstreams.stored_response(call, &id, &query).await)
}

/// `POST /deployments/{model}/chat/completions`: Azure's clients name the model in the path.
pub async fn deployed_chat(
    State(state): State<ApiState>,
    Caller(project): Caller,
    NameInPath(model): NameInPath,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let body = passthrough_body(with_model(body, model)?, "messages")?;
    project.admit_tokens().await?;
    respond(state.upstreams.chat(body).await)
}

pub async fn deployed_embeddings(
    State(state): State<ApiState>,
    Caller(project): Caller,
    NameInPath(model): NameInPath,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let body = passthrough_body(with_model(body, model)?, "input")?;
    project.admit_tokens().await?;
    respond(state.upstreams.embeddings(body).await)
}

fn with_model(body: Object, model: String) -> Result<Object, ApiError> {
    let mut fields = body.remaining()?;
    fields.insert("model".into(), Value::String(model));
    Ok(Object::from_fields(fields))
}

/// Checks the parameters that routing needs. The upstream validates the others.
fn passthrough_body(body: Object, required: &str) -> Result<Value, ApiError> {
    let fields = body.remaining()?;
    if !fields.get("model").is_some_and(Value::is_string) {
        return Err(missing("model").into());
    }
    if !fields.contains_key(required) {
        return Err(missing(required).into());
    }
    Ok(Value::Object(fields))
}

fn respond(result: Result<Passthrough, UpstreamError>) -> Result<Response, ApiError> {
    let Passthrough {
        status,
        model,
        content_type,
        retry_after,
        body,
    } = result.map_err(upstream_error)?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, HttpBody::from_stream(body)).into_response();
    let headers = [
        (ROUTED_MODEL, model),
        (header::CONTENT_TYPE, content_type),
        (header::RETRY_AFTER, retry_after),
    ];
    for (name, value) in headers {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn upstream_error(error: UpstreamError) -> ApiError {
    let message = error.message();
    match error {
        UpstreamError::RateLimited { .. } => {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "requests", message)
                .code("rate_limit_exceeded")
        }
        UpstreamError::ContextLength { .. } => ApiError::invalid(message)
            .param("messages")
            .code("context_length_exceeded"),
        UpstreamError::InvalidRequest {
            status: 404, code, ..
        } => match code.as_deref() {
            Some("model_not_found") => ApiError::model_not_found(message),
            Some(_) | None => ApiError::not_found(message),
        },
        UpstreamError::InvalidRequest { .. } => ApiError::invalid(message),
        UpstreamError::Auth { .. }
        | UpstreamError::Unavailable { .. }
        | UpstreamError::Broken { .. } => {
            ApiError::new(StatusCode::BAD_GATEWAY, "server_error", message)
        }
    }
}
