//! Cross-origin requests (CORS).

use std::time::Duration;

use axum::Router;
use axum::http::Method;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use crate::http::state::CorsOrigins;

const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Allows web pages of these origins to call the routes, except for the admin API.
///
/// Pages authenticate with a key in a header, never with cookies, so credentials are not allowed.
/// Requested headers are mirrored, because SDKs send an open set of `x-stainless-…` headers and `*`
/// does not include `authorization`.
pub fn with_cors<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    origins: CorsOrigins,
) -> Router<S> {
    if origins.is_empty() {
        return router;
    }
    let allowed = AllowOrigin::predicate(move |origin, request| {
        origins.allows(origin) && !is_admin(request.uri.path())
    });
    router.layer(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(Any)
            .max_age(PREFLIGHT_MAX_AGE),
    )
}

fn is_admin(path: &str) -> bool {
    path.strip_prefix("/admin")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
