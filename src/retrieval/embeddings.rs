//! Vectors of texts, from the model of this machine or from an upstream.

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

/// Texts that an upstream gets at once.
const BATCH: usize = 64;

/// How often a refused or failed request is made again, with growing pauses.
const RETRIES: u32 = 4;

/// How much indexing gives way to what somebody waits for, as `nice` has it.
const BACKGROUND: i32 = 10;

/// Largest answer that is read: a batch of vectors of 4,096 numbers in JSON.
const ANSWER_BYTES: usize = 32 << 20;

/// Why there are no vectors.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// It may go better later.
    #[error("the embedding model {model} is not available: {reason}")]
    Unavailable {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
    /// It will not go better with the same texts.
    #[error("the embedding model {model} refused: {reason}")]
    Refused {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
}

/// The models that make vectors. Cheap to clone.
#[derive(Clone)]
pub struct Embeddings {
    default: Option<String>,
    local: Option<Arc<Local>>,
    upstreams: Upstreams,
}

/// A model of this machine. It takes some 100 MB, and is read when it is first needed.
struct Local {
    folder: PathBuf,
    embedder: OnceLock<Embedder>,
}

impl Local {
    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        let embedder = match self.embedder.get() {
            Some(embedder) => embedder,
            None => {
                let read = Embedder::open(&self.folder).map_err(|error| error.to_string())?;
                self.embedder.get_or_init(|| read)
            }
        };
        Ok(embedder.embed(texts))
    }
}

impl Embeddings {
    /// `default` is the model of stores that have none yet; without it they are searched by words.
    /// `local` is the folder of a model of this machine: it makes the vectors of stores that have
    /// that model, whatever the default is; without it an upstream is asked for them.
    pub fn new(default: Option<String>, local: Option<PathBuf>, upstreams: Upstreams) -> Self {
        let local = local.map(|folder| Local {
            folder,
            embedder: OnceLock::new(),
        });
        Self {
            default,
            local: local.map(Arc::new),
            upstreams,
        }
    }

    /// The model of stores that have none yet.
    pub fn default_model(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// Whether vectors of this model are made here, which takes a processor for a while.
    pub fn is_local(&self, model: &str) -> bool {
        self.local.is_some() && model == embedder::MODEL
    }

    /// A vector for each query, in order, all of the same length.
    ///
    /// # Errors
    /// If the model does not give them.
    pub async fn embed_queries(
        &self,
        model: &str,
        queries: &[&str],
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed(model, queries, Urgency::Waited).await
    }

    /// A vector for each passage, in order, all of the same length. Gives way to everything else.
    ///
    /// # Errors
    /// If the model does not give them.
    pub async fn embed_passages(
        &self,
        model: &str,
        passages: &[&str],
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed(model, passages, Urgency::Background).await
    }

    async fn embed(
        &self,
        model: &str,
        texts: &[&str],
        urgency: Urgency,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        if let Some(local) = self.local.clone().filter(|_| self.is_local(model)) {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let made = match urgency {
                Urgency::Waited => tokio::task::spawn_blocking(move || local.embed(&texts))
                    .await
                    .map_err(|panic| panic.to_string()),
                Urgency::Background => in_background(move || local.embed(&texts)).await,
            };
            return made.flatten().map_err(|reason| EmbedError::Refused {
                model: model.to_owned(),
                reason,
            });
        }
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            vectors.extend(self.routed(model, batch).await?);
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

    async fn routed(&self, model: &str, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut pause = Duration::from_millis(500);
        for tries in 0.. {
            let error = match self.ask(model, texts).await {
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

    async fn ask(&self, model: &str, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let unavailable = |reason: String| EmbedError::Unavailable {
            model: model.to_owned(),
            reason,
        };
        let refused = |reason: String| EmbedError::Refused {
            model: model.to_owned(),
            reason,
        };
        let body = json!({ "model": model, "input": texts, "encoding_format": "float" });
        let answered = self.upstreams.own_embeddings(body).await;
        let Passthrough { mut body, .. } = answered.map_err(|error| {
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
        while let Some(piece) = body
            .try_next()
            .await
            .map_err(|error| unavailable(error.to_string()))?
        {
            bytes.extend_from_slice(&piece);
            if bytes.len() > ANSWER_BYTES {
                return Err(refused("its answer is too large".into()));
            }
        }
        let mut answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|error| refused(format!("its answer cannot be read: {error}")))?;
        answer.data.sort_by_key(|item| item.index);
        let complete = answer.data.len() == texts.len()
            && answer
                .data
                .iter()
                .enumerate()
                .all(|(place, item)| item.index == place)
            && answer
                .data
                .iter()
                .all(|item| item.embedding.iter().all(|n| n.is_finite()));
        if !complete {
            return Err(refused(
                "its answer does not have a vector for each text".into(),
            ));
        }
        Ok(answer.data.into_iter().map(|item| item.embedding).collect())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// Somebody waits for it.
    Waited,
    /// Nobody does.
    Background,
}

/// Does it on a thread of its own, behind everything else that wants the processor. A thread's
/// priority cannot be raised again, so it ends with its work.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("embedder".into())
        .spawn(move || {
            // On Linux this is the thread's alone. Without it, it is only less polite.
            let _ = rustix::process::nice(BACKGROUND);
            let _ = done.send(work());
        })
        .map_err(|error| error.to_string())?;
    result.await.map_err(|_| "the embedder panicked".to_owned())
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    index: usize,
    embedding: Vec<f32>,
}
