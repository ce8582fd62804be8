//! Middleware of all requests: request ids, response headers, metrics, a trace span, the bound on
//! stalled bodies, the memory of bodies, and panics.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::domain::ids;
use crate::http::request::body_timeout::limit_stall;
use crate::http::response::error::ApiError;
use crate::http::response::rate_limits;
use crate::http::state::Share;
use crate::service::Budgets;

pub fn with_middleware<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    body_timeout: Duration,
) -> Router<S> {
    router
        .layer(CatchPanicLayer::custom(panic_response))
        .layer(from_fn(hold_body_memory))
        .layer(from_fn_with_state(body_timeout, limit_body_stall))
        .layer(from_fn(observe))
}

/// Runs each handler to its end as a task of `handlers`, so that a client that disconnects never
/// stops it between two of its steps.
pub fn to_completion<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    handlers: TaskTracker,
) -> Router<S> {
    router.route_layer(from_fn_with_state(handlers, spawn_handler))
}

/// As [`to_completion`], but responds with 503 if the response does not start within `timeout`. The
/// handler continues.
pub fn with_timeout<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    handlers: TaskTracker,
    timeout: Duration,
) -> Router<S> {
    to_completion(router, handlers).route_layer(from_fn_with_state(timeout, limit_time))
}

async fn spawn_handler(
    State(handlers): State<TaskTracker>,
    request: Request,
    next: Next,
) -> Response {
    // The task may outlive the connection, so it holds the memory of the body itself.
    let handler = handlers.spawn(hold_body_memory(request, next).in_current_span());
    handler.await.unwrap_or_else(|error| {
        match error.try_into_panic() {
            // The outer layer catches it.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => ApiError::unavailable("The server is stopping. Please retry your request.")
                .into_response(),
        }
    })
}

async fn limit_time(State(timeout): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unavailable(
            "The server took too long to answer. Please retry your request in a moment.",
        )
        .into_response(),
    }
}

async fn limit_body_stall(
    State(timeout): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    next.run(request.map(|body| limit_stall(body, timeout)))
        .await
}

async fn hold_body_memory(mut request: Request, next: Next) -> Response {
    let share = Share::default();
    request.extensions_mut().insert(share.clone());
    let response = next.run(request).await;
    share.release();
    response
}

/// Responses are data for programs: browsers must not render, execute, embed or cache them, and
/// proxies must not cache them.
fn add_security_headers(headers: &mut HeaderMap) {
    const ALWAYS: [(header::HeaderName, &str); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; sandbox",
        ),
    ];
    for (name, value) in ALWAYS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

fn panic_response(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panic");
    ApiError::internal(&format!("a handler panicked: {text}")).into_response()
}

async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = format!("req_{}", ids::hex32());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route
        .as_ref()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let budgets = Budgets::default();
    request.extensions_mut().insert(budgets.clone());
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
    let elapsed = started.elapsed();
    let labels = [
        ("route", route),
        ("method", method.to_string()),
        ("status", status.as_str().to_owned()),
    ];
    metrics::counter!("assistd_requests_total", &labels).increment(1);
    metrics::histogram!("assistd_request_seconds", &labels[..2]).record(elapsed.as_secs_f64());

    let headers = response.headers_mut();
    add_security_headers(headers);
    headers.insert("openai-version", HeaderValue::from_static("2020-10-01"));
    headers.insert(
        "openai-processing-ms",
        HeaderValue::from(elapsed.as_millis() as u64),
    );
    rate_limits::write_headers(&budgets, headers);
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
    use std::sync::Arc;

    use axum::body::Body;
    use axum::routing::get;
    use futures::FutureExt as _;
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;

    async fn panicking() -> Response {
        panic!("the cause")
    }

    #[tokio::test]
    async fn a_panic_is_an_error_like_any_other_and_hides_its_cause() {
        let router = Router::new().route("/panic", get(panicking));
        let router = with_middleware(router, Duration::from_secs(1));
        let request = Request::get("/panic").body(Body::empty());
        let response = router
            .oneshot(request.expect("the path is a valid URI"))
            .await;
        let response = response.expect("routers do not fail");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key("x-request-id"));
        let body = axum::body::to_bytes(response.into_body(), 10_000).await;
        let text =
            String::from_utf8(body.expect("the body is short").into()).expect("the body is JSON");
        assert!(text.contains("\"type\":\"server_error\""), "{text}");
        assert!(!text.contains("the cause"), "{text}");
    }

    fn slow(go: &Arc<Notify>, done: &Arc<Notify>) -> Router {
        let (go, done) = (go.clone(), done.clone());
        let handler = get(async move || {
            go.notified().await;
            done.notify_one();
        });
        Router::new().route("/slow", handler)
    }

    fn request(path: &str) -> Request {
        let request = Request::get(path).body(Body::empty());
        request.expect("the path is a valid URI")
    }

    #[tokio::test]
    async fn a_handler_that_takes_too_long_continues_after_the_503() {
        let (go, done, handlers) = (Arc::default(), Arc::default(), TaskTracker::new());
        let timeout = Duration::from_millis(10);
        let router = with_timeout(slow(&go, &done), handlers.clone(), timeout);
        let response = router.oneshot(request("/slow")).await;
        let response = response.expect("routers do not fail");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(handlers.len(), 1);
        go.notify_one();
        done.notified().await;
        handlers.close();
        handlers.wait().await;
    }

    #[tokio::test]
    async fn a_client_that_goes_away_does_not_stop_its_handler() {
        let (go, done, handlers) = (Arc::default(), Arc::default(), TaskTracker::new());
        let router = to_completion(slow(&go, &done), handlers.clone());
        let mut response = Box::pin(router.oneshot(request("/slow")));
        assert!(response.as_mut().now_or_never().is_none());
        drop(response);
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn a_panic_in_a_handlers_task_is_an_error_like_any_other() {
        let router = Router::new().route("/panic", get(panicking));
        let router = with_middleware(
            to_completion(router, TaskTracker::new()),
            Duration::from_secs(1),
        );
        let response = router.oneshot(request("/panic")).await;
        let response = response.expect("routers do not fail");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
