//! Responses of upstreams.

use futures::{StreamExt, stream};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use super::body::{Body, read_body};
use super::error::UpstreamError;
use super::error_object::ErrorObject;
use super::retry;

/// Maximum size of an error body that is read, in bytes.
const MAX_ERROR_BODY: usize = 64 << 10;

pub(super) struct UpstreamResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl UpstreamResponse {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().ok()?.to_owned())
    }

    /// Reads the body of an error. It stays in place, so that the response can be passed on.
    pub(super) async fn read_error(&mut self) -> String {
        let body = std::mem::replace(&mut self.body, stream::empty().boxed());
        let text = read_body(body, MAX_ERROR_BODY).await;
        self.body = stream::iter([Ok(text.clone().into())]).boxed();
        text
    }

    pub(super) fn error(&self, upstream: &str, body: &str) -> UpstreamError {
        let retry_after = retry::requested_delay(&self.headers);
        ErrorObject::from_body(body).into_error(upstream, self.status, retry_after)
    }

    pub(super) async fn into_error(mut self, upstream: &str) -> UpstreamError {
        let body = self.read_error().await;
        self.error(upstream, &body)
    }
}
