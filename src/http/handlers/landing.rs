//! Leads browsers at `/` to the console, or shows a page if there is none. Other clients get the 404 of
//! a path without a route.

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use base64::Engine as _;
use sha2::{Digest, Sha256};

use crate::http::handlers::{console, operations};
use crate::http::state::ApiState;

const PAGE: &str = include_str!("landing.html");
const STYLE: &str = include_str!("landing.css");

pub async fn page_or_not_found(
    State(state): State<ApiState>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET || uri.path() != "/" || !accepts_html(&headers) {
        return operations::route_not_found(method, uri)
            .await
            .into_response();
    }
    if state.limits.has_console {
        let vary = [(header::VARY, HeaderValue::from_static("accept"))];
        return (vary, Redirect::to(console::PATH)).into_response();
    }
    let page = PAGE
        .replace("{{style}}", STYLE)
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{base_url}}", &base_url(&headers, state.limits.has_tls));
    let policy = [
        (header::CONTENT_SECURITY_POLICY, policy()),
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    (policy, Html(page)).into_response()
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

/// The base URL for SDKs, with the host name that the browser used.
fn base_url(headers: &HeaderMap, has_tls: bool) -> String {
    // The host name is inserted into HTML, so no other characters are allowed.
    let is_safe = |text: &&str| {
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        !text.is_empty() && text.bytes().all(is_safe)
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = header("host").filter(is_safe).unwrap_or("127.0.0.1:8000");
    let scheme = match header("x-forwarded-proto") {
        Some("https") => "https",
        Some(_) | None if has_tls => "https",
        Some(_) | None => "http",
    };
    format!("{scheme}://{host}/v1")
}

/// Forbids everything except the page's own style, which is allowed by its hash.
fn policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; frame-ancestors 'none'; sandbox"
        );
        policy.parse().expect("Base64 is visible ASCII")
    });
    POLICY.clone()
}
