//! What every request goes through: a request id, headers that clients read, metrics, a trace span,
//! and a net for panics.

use std::any::Any;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::api::error::ApiError;
use crate::api::rates::Told;
use crate::domain::ids;

/// Wraps all routes.
pub fn around<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(observe))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panic");
    ApiError::internal(&format!("a handler panicked: {text}")).into_response()
}

async fn observe(mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = format!("req_{}", ids::hex32());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route
        .as_ref()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let told = Told::default();
    request.extensions_mut().insert(told.clone());
    let span = tracing::info_span!(
        "request",
        request.id = %id,
        http.method = %method,
        http.route = %route,
    );
    let mut response = async {
        let response = next.run(request).await;
        let status = response.status();
        if status.is_server_error() {
            tracing::warn!(
                http.status = status.as_u16(),
                "{method} {route} failed with {status}"
            );
        } else {
            tracing::debug!(http.status = status.as_u16(), "{method} {route}: {status}");
        }
        response
    }
    .instrument(span)
    .await;

    let status = response.status();
    let elapsed = begun.elapsed();
    let labels = [
        ("route", route),
        ("method", method.to_string()),
        ("status", status.as_str().to_owned()),
    ];
    metrics::counter!("assistd_requests_total", &labels).increment(1);
    metrics::histogram!("assistd_request_seconds", &labels[..2]).record(elapsed.as_secs_f64());

    let headers = response.headers_mut();
    headers.insert("openai-version", HeaderValue::from_static("2020-10-01"));
    headers.insert(
        "openai-processing-ms",
        HeaderValue::from(elapsed.as_millis() as u64),
    );
    told.write(headers);
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    if status == StatusCode::TOO_MANY_REQUESTS && !headers.contains_key("retry-after") {
        headers.insert("retry-after", HeaderValue::from_static("1"));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn broken() -> Response {
        panic!("the cause")
    }

    #[tokio::test]
    async fn a_panic_is_an_error_like_any_other_and_its_cause_stays_here() {
        let router = around(Router::new().route("/broken", get(broken)));
        let request = Request::get("/broken").body(Body::empty());
        let response = router.oneshot(request.expect("it is well formed")).await;
        let response = response.expect("routers do not fail");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key("x-request-id"));
        let body = axum::body::to_bytes(response.into_body(), 10_000).await;
        let text = String::from_utf8(body.expect("it is short").into()).expect("it is text");
        assert!(text.contains("\"type\":\"server_error\""), "{text}");
        assert!(!text.contains("the cause"), "{text}");
    }
}
