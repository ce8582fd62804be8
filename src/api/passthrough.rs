//! `/chat/completions` and `/embeddings`: handed to the routed upstream and back, so that an
//! application needs one base URL only.

use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::api::auth::Spender;
use crate::api::error::ApiError;
use crate::api::extract::{Body, NameInPath};
use crate::api::state::ApiState;
use crate::api::validate::{Object, missing};
use crate::upstream::{Passthrough, UpstreamError};

/// `POST /chat/completions`
pub async fn chat(
    State(state): State<ApiState>,
    spender: Spender,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let body = checked(body, "messages")?;
    spender.may_use_tokens(&state).await?;
    answer(state.upstreams.chat(body).await)
}

/// `POST /embeddings`
pub async fn embeddings(
    State(state): State<ApiState>,
    spender: Spender,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let body = checked(body, "input")?;
    spender.may_use_tokens(&state).await?;
    answer(state.upstreams.embeddings(body).await)
}

/// `POST /deployments/{model}/chat/completions`, Azure's way to name the model.
pub async fn deployed_chat(
    State(state): State<ApiState>,
    spender: Spender,
    NameInPath(model): NameInPath,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let body = checked(named(body, model), "messages")?;
    spender.may_use_tokens(&state).await?;
    answer(state.upstreams.chat(body).await)
}

/// `POST /deployments/{model}/embeddings`, likewise.
pub async fn deployed_embeddings(
    State(state): State<ApiState>,
    spender: Spender,
    NameInPath(model): NameInPath,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let body = checked(named(body, model), "input")?;
    spender.may_use_tokens(&state).await?;
    answer(state.upstreams.embeddings(body).await)
}

fn named(body: Object, model: String) -> Object {
    let mut fields = body.rest();
    fields.insert("model".into(), Value::String(model));
    Object::body(fields)
}

/// Only what the route needs is looked at; the upstream judges the rest.
fn checked(body: Object, content: &str) -> Result<Value, ApiError> {
    let fields = body.rest();
    if !fields.get("model").is_some_and(Value::is_string) {
        return Err(missing("model"));
    }
    if !fields.contains_key(content) {
        return Err(missing(content));
    }
    Ok(Value::Object(fields))
}

fn answer(answered: Result<Passthrough, UpstreamError>) -> Result<Response, ApiError> {
    let Passthrough {
        status,
        content_type,
        retry_after,
        body,
    } = answered.map_err(refused)?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, HttpBody::from_stream(body)).into_response();
    let headers = [
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

fn refused(error: UpstreamError) -> ApiError {
    let message = error.message();
    match error {
        UpstreamError::RateLimited { .. } => {
            ApiError::upstream(StatusCode::TOO_MANY_REQUESTS, "requests", message)
                .code("rate_limit_exceeded")
        }
        UpstreamError::ContextLength { .. } => ApiError::invalid(message)
            .param("messages")
            .code("context_length_exceeded"),
        UpstreamError::InvalidRequest { .. } => ApiError::invalid(message),
        UpstreamError::Auth { .. }
        | UpstreamError::Unavailable { .. }
        | UpstreamError::Broken { .. } => {
            ApiError::upstream(StatusCode::BAD_GATEWAY, "server_error", message)
        }
    }
}
