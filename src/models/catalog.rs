//! The models that a server lists.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;

use super::body::read_body;
use super::error::UpstreamError;
use super::error_object::ErrorObject;
use super::http::HttpUpstream;
use super::routes::Model;
use crate::domain::json_escapes;

/// Time until the list is requested again, also after a failure.
const MAX_AGE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a list, in bytes.
const MAX_LIST: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Catalog {
    last: Mutex<Option<(Instant, Vec<Model>)>>,
}

impl Catalog {
    /// The server's models; the previous ones if it does not answer.
    pub(super) async fn models(&self, server: &HttpUpstream) -> Vec<Model> {
        // Locked during the request, so that concurrent callers send one request.
        let mut last = self.last.lock().await;
        if let Some((requested_at, models)) = last.as_ref()
            && requested_at.elapsed() < MAX_AGE
        {
            return models.clone();
        }
        let models = match list(server).await {
            Ok(models) => models,
            Err(error) => {
                tracing::warn!(
                    upstream.name = server.name(),
                    upstream.error = error.kind(),
                    "upstream {} did not list its models: {}; keeping the previous list",
                    server.name(),
                    error.kind()
                );
                last.take().map(|(_, models)| models).unwrap_or_default()
            }
        };
        *last = Some((Instant::now(), models.clone()));
        models
    }
}

pub(super) async fn list(server: &HttpUpstream) -> Result<Vec<Model>, UpstreamError> {
    let request = async {
        let response = server.list_models().await?;
        let status = response.status;
        let text = read_body(response.body, MAX_LIST).await;
        if !status.is_success() {
            let error = ErrorObject::from_body(&text).into_error(server.name(), status, None);
            return Err(server.redacted(error));
        }
        let list = json_escapes::parse(&text).unwrap_or(Value::Null);
        let models = list["data"].as_array().into_iter().flatten();
        Ok(models
            .filter_map(|model| model["id"].as_str())
            .map(|id| Model {
                id: id.to_owned(),
                owned_by: server.name().to_owned(),
            })
            .collect())
    };
    let timeout = UpstreamError::Unavailable {
        message: format!("No answer in {} seconds.", TIMEOUT.as_secs()),
        retry_after: None,
        is_transient: true,
    };
    tokio::time::timeout(TIMEOUT, request)
        .await
        .unwrap_or(Err(timeout))
}
