//! OpenAI's error envelope, and the mapping of all errors to HTTP responses.

mod files;
mod service;

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::http::state::OutOfBodyMemory;
use crate::wire::ParseError;

#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    error_type: &'static str,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    headers: Vec<(&'static str, HeaderValue)>,
}

impl ApiError {
    pub fn new(status: StatusCode, error_type: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            error_type,
            message: message.into(),
            param: None,
            code: None,
            headers: Vec::new(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    pub fn object_not_found(object: &str, id: impl std::fmt::Display) -> Self {
        Self::not_found(format!("No {object} found with id '{id}'."))
    }

    /// 404 of files, as the hosted API words it.
    pub fn file_not_found(id: impl std::fmt::Display) -> Self {
        Self::not_found(format!("No such File object: {id}")).param("id")
    }

    pub fn model_not_found(message: impl Into<String>) -> Self {
        Self::not_found(message)
            .param("model")
            .code("model_not_found")
    }

    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message)
    }

    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            message,
        )
    }

    pub fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            "The request body arrived too slowly. Please try again.",
        )
        .header("connection", HeaderValue::from_static("close"))
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            message,
        )
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            message,
        )
    }

    /// 503 with a `Retry-After` of one second.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
            .header("retry-after", HeaderValue::from_static("1"))
    }

    /// 507 for a full disk of the server. SDKs retry it like a 503, but load balancers do not take the
    /// server out of service. The cause goes to the log.
    pub fn storage_full(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error.cause = %cause, "a request failed: {cause}");
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "server_error",
            "The storage of this server is full, so nothing can be stored. Please retry your request \
             later; the operator of this server must free some space.",
        )
        .code("storage_full")
    }

    /// 429. `limit` is the exceeded limit: `requests` or `tokens`.
    pub fn rate_limited(
        limit: &'static str,
        message: impl Into<String>,
        retry_after: Duration,
    ) -> Self {
        let milliseconds = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        Self::new(StatusCode::TOO_MANY_REQUESTS, limit, message)
            .code("rate_limit_exceeded")
            // Whole seconds, rounded up, are for clients without support for `retry-after-ms`.
            .header("retry-after", milliseconds.div_ceil(1000).max(1).into())
            .header("retry-after-ms", milliseconds.max(1).into())
    }

    /// 500. The cause goes to the log, never to the client.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error.cause = %cause, "a request failed: {cause}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "The server had an error processing your request. Sorry about that! You can retry \
             your request; if the error persists, give the operator of this server the request \
             ID from the x-request-id header.",
        )
    }

    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The response body, which is also the data of an `error` event in a stream.
    pub fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.error_type,
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl From<OutOfBodyMemory> for ApiError {
    fn from(_: OutOfBodyMemory) -> Self {
        Self::unavailable(
            "The server has too many large requests at the moment. Please retry your request in a \
             moment.",
        )
    }
}

impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        Self {
            param: error.param,
            code: error.code,
            ..Self::invalid(error.message)
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        for (name, value) in self.headers {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
        response
    }
}
