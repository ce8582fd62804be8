//! The console under `/console`: static files of the folder `console`, which call the public API.
//!
//! The files are in the binary. Debug builds read them from the folder at each request.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::http::handlers::operations;
use crate::http::state::ApiState;

/// Where browsers find the console.
pub const PATH: &str = "/console";

/// What the pages may do: run their own scripts, call this server, and show pictures that they have
/// fetched. Trusted Types forbid every way to turn text into markup.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);

#[derive(RustEmbed)]
#[folder = "console"]
struct Files;

pub fn routes() -> Router<ApiState> {
    Router::new()
        .route("/console", get(file))
        .route("/console/", get(redirect))
        .route("/console/{*path}", get(file))
}

async fn redirect() -> Redirect {
    Redirect::permanent(PATH)
}

/// A file, or the page for the address of a view.
async fn file(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches(PATH).trim_matches('/');
    // Addresses of views consist of names and ids, which have no dots.
    let is_file = path.contains('.');
    let name = if is_file { path } else { "index.html" };
    let Some(file) = Files::get(name) else {
        return operations::route_not_found(method, uri)
            .await
            .into_response();
    };
    let headers_of_file = file_headers(name, &file);
    let is_known = headers.get(header::IF_NONE_MATCH) == Some(&headers_of_file[0].1);
    match is_known {
        true => (axum::http::StatusCode::NOT_MODIFIED, headers_of_file).into_response(),
        false => (headers_of_file, file.data).into_response(),
    }
}

fn file_headers(name: &str, file: &EmbeddedFile) -> [(HeaderName, HeaderValue); 4] {
    let content_type = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    };
    let hash = file.metadata.sha256_hash();
    let tag: String = hash.iter().take(16).map(|it| format!("{it:02x}")).collect();
    let tag = HeaderValue::from_str(&format!("\"{tag}\""));
    [
        (
            header::ETAG,
            tag.expect("hexadecimal digits are visible ASCII"),
        ),
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        // A new version of the server must not run with old files.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ]
}
