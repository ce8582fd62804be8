//! The web origins that may read this server's responses.

use std::sync::Arc;

use axum::http::HeaderValue;

#[derive(Debug, Clone, Default)]
pub struct CorsOrigins {
    any: bool,
    listed: Arc<[String]>,
}

impl CorsOrigins {
    /// Origins are written as browsers send them; `*` allows every origin.
    pub fn new(origins: impl IntoIterator<Item = String>) -> Self {
        let (wildcards, listed): (Vec<_>, Vec<_>) =
            origins.into_iter().partition(|origin| origin == "*");
        Self {
            any: !wildcards.is_empty(),
            listed: listed.into(),
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.any && self.listed.is_empty()
    }

    /// Whether this origin is listed by itself; `*` does not count.
    pub fn lists(&self, origin: &str) -> bool {
        self.listed.iter().any(|listed| listed == origin)
    }

    pub fn allows(&self, origin: &HeaderValue) -> bool {
        self.any || origin.to_str().is_ok_and(|origin| self.lists(origin))
    }
}
