//! Stored responses of the Responses API.
//!
//! Only the call that creates a response names a model. An id does not show which upstream created
//! it, so the upstreams are asked in the order of the configuration until one knows it.

use std::time::Instant;

use super::endpoint::StoredResponseCall;
use super::error::UpstreamError;
use super::error_object::ErrorObject;
use super::passthrough::{Passthrough, is_about_key};
use super::upstreams::Upstreams;

impl Upstreams {
    /// Passes on a call about a stored response to the first upstream that knows its id.
    ///
    /// # Errors
    /// When no upstream knows it and one of them failed or refused this server's key.
    pub async fn stored_response(
        &self,
        call: StoredResponseCall,
        id: &str,
        query: &[(String, String)],
    ) -> Result<Passthrough, UpstreamError> {
        let mut failure = None;
        let mut unknown = None;
        // Other characters could change the path of the request.
        let is_id = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let servers = match id.bytes().all(is_id) {
            true => self.servers(),
            false => &[],
        };
        for server in servers {
            let started = Instant::now();
            let outcome = server.stored_response(call, id, query).await;
            self.record_call(server.name(), started, outcome.as_ref().err());
            match outcome {
                Ok(response) if is_about_key(response.status) => {
                    let error = ErrorObject::default();
                    let error = error.into_error(server.name(), response.status, None);
                    failure.get_or_insert(error);
                }
                // Servers without such a route answer 405.
                Ok(response) if matches!(response.status.as_u16(), 404 | 405 | 501) => {
                    unknown.get_or_insert(response);
                }
                Ok(response) => return Ok(Passthrough::new(response, None)),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        match (failure, unknown) {
            (Some(failure), _) => Err(failure),
            (None, Some(response)) => Ok(Passthrough::new(response, None)),
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
