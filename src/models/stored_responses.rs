//! Stored responses of the Responses API: read, deleted and cancelled where they are kept.
//!
//! Only the call that creates a response names a model. An id does not tell which upstream has made
//! it, so the upstreams are asked in the order of the configuration until one knows it.

use std::time::Instant;

use reqwest::Method;

use super::error::{Detail, UpstreamError};
use super::{Answer, Passthrough, Upstreams, is_about_our_key, record};

/// What is done with a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredResponseCall {
    /// `GET /responses/{id}`
    Read,
    /// `DELETE /responses/{id}`
    Delete,
    /// `POST /responses/{id}/cancel`
    Cancel,
    /// `GET /responses/{id}/input_items`
    ListInput,
}

impl StoredResponseCall {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Read | Self::ListInput => Method::GET,
            Self::Delete => Method::DELETE,
            Self::Cancel => Method::POST,
        }
    }

    /// What follows the id in the path.
    pub(super) fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Read | Self::Delete => None,
            Self::Cancel => Some("cancel"),
            Self::ListInput => Some("input_items"),
        }
    }
}

impl Upstreams {
    /// Passes a call about a stored response on to the first upstream that knows its id.
    ///
    /// # Errors
    /// When no upstream knows it, and one of them could not be asked or refused this server's key.
    pub async fn stored_response(
        &self,
        call: StoredResponseCall,
        id: &str,
        query: &[(String, String)],
    ) -> Result<Passthrough, UpstreamError> {
        let mut failure = None;
        let mut unknown = None;
        // Nothing else may become part of a path.
        let is_id = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let servers = match id.bytes().all(is_id) {
            true => &self.inner.servers[..],
            false => &[],
        };
        for server in servers {
            let started = Instant::now();
            let outcome = server.stored_response(call, id, query).await;
            record(server.name(), started, outcome.as_ref().err());
            match outcome {
                Ok(answer) if is_about_our_key(answer.status) => {
                    let refusal = Detail::default();
                    let refusal = refusal.into_error(server.name(), answer.status, None);
                    failure.get_or_insert(refusal);
                }
                // 405 is the answer of a server that has no such route.
                Ok(answer) if matches!(answer.status.as_u16(), 404 | 405 | 501) => {
                    unknown.get_or_insert(answer);
                }
                Ok(answer) => return Ok(passed(answer)),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        match (failure, unknown) {
            (Some(failure), _) => Err(failure),
            (None, Some(answer)) => Ok(passed(answer)),
            (None, None) => Err(UpstreamError::InvalidRequest {
                status: 404,
                code: None,
                param: None,
                message: format!(
                    "Response with id '{id}' not found. Responses are kept by the upstreams of this \
                     server; the built-in scripted model keeps none."
                ),
            }),
        }
    }
}

fn passed(answer: Answer) -> Passthrough {
    answer.into_passthrough(None)
}
