//! Cross-origin requests: which web pages may call this server, by the operator's setting.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

/// How long a browser may reuse the answer to a preflight request.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// The origins whose pages may read this server's answers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CorsOrigins {
    any: bool,
    listed: Arc<[String]>,
}

impl CorsOrigins {
    /// The origins of the setting, as browsers write them; `*` stands for all.
    pub fn new(origins: impl IntoIterator<Item = String>) -> Self {
        let (wildcards, listed): (Vec<_>, Vec<_>) =
            origins.into_iter().partition(|origin| origin == "*");
        Self {
            any: !wildcards.is_empty(),
            listed: listed.into(),
        }
    }

    /// Whether the setting names this origin. `*` names none.
    pub fn lists(&self, origin: &str) -> bool {
        self.listed.iter().any(|listed| listed == origin)
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.any || origin.to_str().is_ok_and(|origin| self.lists(origin))
    }
}

/// Lets pages of these origins call the routes. Without origins, the routes stay as they are.
///
/// Pages authenticate with a key in a header, never with cookies, so credentials are not allowed.
/// Requested headers are mirrored because SDKs send an open set of `x-stainless-…` headers and `*`
/// does not stand for `authorization`. The admin API is for operators' programs, not for pages.
pub fn layer<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    origins: CorsOrigins,
) -> Router<S> {
    if !origins.any && origins.listed.is_empty() {
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
            .max_age(PREFLIGHT_AGE),
    )
}

fn is_admin(path: &str) -> bool {
    path.strip_prefix("/admin")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
