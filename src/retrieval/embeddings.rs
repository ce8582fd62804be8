//! Embeddings of texts, by the local model or an upstream.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use embedder::Embedder;
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::models::{Passthrough, UpstreamError, Upstreams};

const BATCH: usize = 64;

const RETRIES: u32 = 4;

/// The niceness of threads that embed chunks, so that searches and requests come first.
const BACKGROUND_NICENESS: i32 = 10;

/// Largest response that is read: a batch of vectors with 4,096 dimensions in JSON.
const RESPONSE_BYTES: usize = 32 << 20;

#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// A later attempt may succeed.
    #[error("the embedding model {model} is not available: {reason}")]
    Unavailable { model: String, reason: String },
    /// The same texts would fail again.
    #[error("the embedding model {model} refused: {reason}")]
    Refused { model: String, reason: String },
}

#[derive(Clone)]
pub struct Embeddings {
    default: Option<String>,
    local: Option<Arc<LocalModel>>,
    upstreams: Upstreams,
}

/// The model in a folder of this machine. It takes about 100 MB, and is loaded when first used.
struct LocalModel {
    folder: PathBuf,
    embedder: OnceLock<Embedder>,
}

impl LocalModel {
    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        let embedder = match self.embedder.get() {
            Some(embedder) => embedder,
            None => {
                let loaded = Embedder::open(&self.folder).map_err(|error| error.to_string())?;
                self.embedder.get_or_init(|| loaded)
            }
        };
        Ok(embedder.embed(texts))
    }
}

impl Embeddings {
    /// `default` is the model of stores that have none yet; without one, their search is lexical.
    /// `local` is the folder of the local model. Stores that have that model use it, whatever the
    /// default is; without the folder, they use the upstream that the model's name is routed to.
    pub fn new(default: Option<String>, local: Option<PathBuf>, upstreams: Upstreams) -> Self {
        let local = local.map(|folder| LocalModel {
            folder,
            embedder: OnceLock::new(),
        });
        Self {
            default,
            local: local.map(Arc::new),
            upstreams,
        }
    }

    pub fn default_model(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// Whether this process embeds with this model, which keeps a processor busy.
    pub fn is_local(&self, model: &str) -> bool {
        self.local.is_some() && model == embedder::MODEL
    }

    pub async fn embed_queries(
        &self,
        model: &str,
        queries: &[&str],
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed(model, queries, Priority::Interactive).await
    }

    /// A vector for each text, in order, all of the same length. Runs at low priority.
    pub async fn embed_chunks(
        &self,
        model: &str,
        texts: &[&str],
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed(model, texts, Priority::Background).await
    }

    async fn embed(
        &self,
        model: &str,
        texts: &[&str],
        priority: Priority,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        if let Some(local) = self.local.clone().filter(|_| self.is_local(model)) {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let embedded = match priority {
                Priority::Interactive => tokio::task::spawn_blocking(move || local.embed(&texts))
                    .await
                    .map_err(|panic| panic.to_string()),
                Priority::Background => in_background(move || local.embed(&texts)).await,
            };
            return embedded.flatten().map_err(|reason| EmbedError::Refused {
                model: model.to_owned(),
                reason,
            });
        }
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            vectors.extend(self.embed_upstream(model, batch).await?);
        }
        let lengths = vectors.first().map_or(0, Vec::len);
        if vectors
            .iter()
            .any(|vector| vector.len() != lengths || lengths == 0)
        {
            return Err(EmbedError::Refused {
                model: model.to_owned(),
                reason: "its vectors differ in length".into(),
            });
        }
        Ok(vectors)
    }

    async fn embed_upstream(
        &self,
        model: &str,
        texts: &[&str],
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut pause = Duration::from_millis(500);
        for tries in 0.. {
            let error = match self.request(model, texts).await {
                Ok(vectors) => return Ok(vectors),
                Err(error) => error,
            };
            if tries >= RETRIES || matches!(error, EmbedError::Refused { .. }) {
                return Err(error);
            }
            sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the loop ends by returning")
    }

    async fn request(&self, model: &str, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let unavailable = |reason: String| EmbedError::Unavailable {
            model: model.to_owned(),
            reason,
        };
        let refused = |reason: String| EmbedError::Refused {
            model: model.to_owned(),
            reason,
        };
        let body = json!({ "model": model, "input": texts, "encoding_format": "float" });
        let response = self.upstreams.own_embeddings(body).await;
        let Passthrough { mut body, .. } = response.map_err(|error| {
            let message = error.message();
            match error {
                UpstreamError::InvalidRequest { .. } | UpstreamError::ContextLength { .. } => {
                    refused(message)
                }
                UpstreamError::RateLimited { .. }
                | UpstreamError::Auth { .. }
                | UpstreamError::Unavailable { .. }
                | UpstreamError::Broken { .. } => unavailable(message),
            }
        })?;
        let mut bytes = Vec::new();
        while let Some(received) = body
            .try_next()
            .await
            .map_err(|error| unavailable(error.to_string()))?
        {
            bytes.extend_from_slice(&received);
            if bytes.len() > RESPONSE_BYTES {
                return Err(refused("its answer is too large".into()));
            }
        }
        let mut response: EmbeddingsResponse = serde_json::from_slice(&bytes)
            .map_err(|error| refused(format!("its answer cannot be read: {error}")))?;
        response.data.sort_by_key(|item| item.index);
        let is_complete = response.data.len() == texts.len()
            && response
                .data
                .iter()
                .enumerate()
                .all(|(n, item)| item.index == n)
            && response
                .data
                .iter()
                .all(|item| item.embedding.iter().all(|n| n.is_finite()));
        if !is_complete {
            return Err(refused(
                "its answer does not have a vector for each text".into(),
            ));
        }
        Ok(response
            .data
            .into_iter()
            .map(|item| item.embedding)
            .collect())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Priority {
    Interactive,
    Background,
}

/// Runs CPU-bound work on a thread of low priority. It is a new thread, since without privileges its
/// priority cannot be raised again.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("embedder".into())
        .spawn(move || {
            // On Linux this applies to the calling thread only. The work can be done without it.
            let _ = rustix::process::nice(BACKGROUND_NICENESS);
            let _ = done.send(work());
        })
        .map_err(|error| error.to_string())?;
    result.await.map_err(|_| "the embedder panicked".to_owned())
}

#[derive(Deserialize)]
struct EmbeddingsResponse {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    index: usize,
    embedding: Vec<f32>,
}
