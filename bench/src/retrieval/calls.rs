//! API calls for vector stores.

use crate::api::Api;
use crate::api::id;
use crate::http::CallError;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// Interval between polls of a batch.
const POLL: Duration = Duration::from_millis(100);

/// A file to upload.
#[derive(Clone)]
pub(super) struct File {
    /// The extension decides the file type.
    pub(super) name: String,
    pub(super) contents: Bytes,
}

#[derive(Clone)]
pub(super) struct Query {
    pub(super) text: String,
    /// Attribute filter.
    pub(super) filter: Option<Value>,
    /// Weights of semantic and lexical search; the server's default if `None`.
    pub(super) weights: Option<Weights>,
    /// Maximum number of results.
    pub(super) results: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weights {
    MeaningAlone,
    WordsAlone,
}

#[derive(Deserialize)]
pub(super) struct Hit {
    pub(super) filename: String,
    content: Vec<Content>,
}

#[derive(Deserialize)]
struct Content {
    text: String,
}

impl Hit {
    /// The text of the hit.
    pub(super) fn text(&self) -> &str {
        self.content.first().map_or("", |content| &content.text)
    }
}

impl Api {
    /// Uploads a file; its id.
    pub(super) async fn upload(&self, file: &File) -> Result<String, CallError> {
        const BOUNDARY: &str = "----bench-boundary-1b0d5e";
        let mut form = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n\
             --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            file.name
        )
        .into_bytes();
        form.extend_from_slice(&file.contents);
        form.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        id(&self.http.post_form("/v1/files", &kind, form).await?)
    }

    /// Creates an empty vector store; its id.
    pub(super) async fn create_store(&self) -> Result<String, CallError> {
        id(&self.http.post("/v1/vector_stores", "{}").await?)
    }

    /// Adds files to a vector store; the id of the batch.
    pub(super) async fn create_batch(
        &self,
        store: &str,
        files: &[String],
    ) -> Result<String, CallError> {
        let path = format!("/v1/vector_stores/{store}/file_batches");
        let body = json!({ "file_ids": files }).to_string();
        id(&self.http.post(&path, body).await?)
    }

    /// Waits until every file of a batch is indexed.
    pub(super) async fn wait_for_batch(&self, store: &str, batch: &str) -> Result<(), CallError> {
        let path = format!("/v1/vector_stores/{store}/file_batches/{batch}");
        loop {
            let body = self.http.get(&path).await?;
            let found: Value = parse(&body)?;
            let counts = &found["file_counts"];
            match found["status"].as_str() {
                Some("in_progress") => sleep(POLL).await,
                Some("completed") if counts["completed"] == counts["total"] => return Ok(()),
                _ => {
                    let text = format!("batch {batch} ended otherwise: {found}");
                    return Err(CallError::Protocol(text));
                }
            }
        }
    }

    /// Searches without parsing the response.
    pub(super) async fn search(&self, store: &str, query: &Query) -> Result<Bytes, CallError> {
        let mut body = json!({ "query": query.text, "max_num_results": query.results });
        if let Some(filter) = &query.filter {
            body["filters"] = filter.clone();
        }
        if let Some(weights) = query.weights {
            let [embedding, text] = match weights {
                Weights::MeaningAlone => [1, 0],
                Weights::WordsAlone => [0, 1],
            };
            body["ranking_options"]["hybrid_search"] =
                json!({ "embedding_weight": embedding, "text_weight": text });
        }
        let path = format!("/v1/vector_stores/{store}/search");
        self.http.post(&path, body.to_string()).await
    }
}

/// Parses the response of a search.
pub(super) fn hits(answer: &[u8]) -> Result<Vec<Hit>, CallError> {
    #[derive(Deserialize)]
    struct Page {
        data: Vec<Hit>,
    }
    Ok(parse::<Page>(answer)?.data)
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|error| {
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]);
        CallError::Protocol(format!("{error} in: {shown}"))
    })
}
