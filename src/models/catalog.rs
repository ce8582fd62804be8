//! The models that a server itself says it has, asked for now and then.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::Mutex;

use super::error::Detail;
use super::error::UpstreamError;
use super::http::HttpUpstream;
use super::read_body;
use super::routes::Model;
use crate::domain::json_escapes;

/// How long a list is good, and how long a server that gave none is left alone.
const FRESH: Duration = Duration::from_secs(60);
/// How long to wait for a server's list.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest list that is read, in bytes.
const LIST_LIMIT: usize = 8 << 20;

/// The last list of one server.
#[derive(Default)]
pub(super) struct Catalog {
    last: Mutex<Option<(Instant, Vec<Model>)>>,
}

impl Catalog {
    /// The server's models. Those of the last time when it does not answer.
    pub(super) async fn models(&self, server: &HttpUpstream) -> Vec<Model> {
        // Held while asking, so that many callers ask once.
        let mut last = self.last.lock().await;
        if let Some((asked, models)) = last.as_ref()
            && asked.elapsed() < FRESH
        {
            return models.clone();
        }
        let models = match list(server).await {
            Ok(models) => models,
            Err(error) => {
                tracing::warn!(
                    upstream.name = server.name(),
                    upstream.error = error.kind(),
                    "upstream {} did not list its models",
                    server.name()
                );
                last.take().map(|(_, models)| models).unwrap_or_default()
            }
        };
        *last = Some((Instant::now(), models.clone()));
        models
    }
}

/// Asks a server for its models.
///
/// # Errors
/// When it does not answer in time, or refuses.
pub(super) async fn list(server: &HttpUpstream) -> Result<Vec<Model>, UpstreamError> {
    let ask = async {
        let answer = server.list_models().await?;
        let text = read_body(answer.body, LIST_LIMIT).await;
        if !answer.status.is_success() {
            let error = Detail::from_body(&text).into_error(server.name(), answer.status, None);
            return Err(server.for_clients(error));
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
    let late = UpstreamError::Unavailable {
        message: format!("No answer in {} seconds.", PATIENCE.as_secs()),
        retry_after: None,
        passing: true,
    };
    tokio::time::timeout(PATIENCE, ask)
        .await
        .unwrap_or(Err(late))
}
