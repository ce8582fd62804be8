//! A model that reads query and passages together and puts the passages in order, behind the
//! `/rerank` endpoint that Cohere, Jina, vLLM, llama.cpp and LiteLLM have in common.

use std::time::Duration;

use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::json;

use crate::models::{UpstreamError, Upstreams};

/// How long a search waits for it before it does without.
const WITHIN: Duration = Duration::from_secs(10);

/// Largest answer that is read; some send the passages back.
const ANSWER_BYTES: usize = 4 << 20;

/// Why passages could not be reranked.
#[derive(Debug, thiserror::Error)]
pub enum RerankError {
    /// There was no answer, or a refusal.
    #[error("{}", .0.message())]
    Upstream(#[from] UpstreamError),
    /// The answer makes no sense.
    #[error("its answer {0}")]
    Answer(String),
    /// It took too long.
    #[error("no answer within {} s", WITHIN.as_secs())]
    Timeout,
}

/// The reranking model. Cheap to clone.
#[derive(Clone)]
pub struct Reranker {
    model: String,
    upstreams: Upstreams,
}

impl Reranker {
    /// `model` is routed like those that chat.
    pub fn new(model: String, upstreams: Upstreams) -> Self {
        Self { model, upstreams }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// How well each passage answers the query, 0 to 1, in the order of the passages.
    ///
    /// # Errors
    /// If the model does not answer, or not for each passage.
    pub async fn scores(&self, query: &str, passages: &[&str]) -> Result<Vec<f64>, RerankError> {
        tokio::time::timeout(WITHIN, self.ask(query, passages))
            .await
            .unwrap_or(Err(RerankError::Timeout))
    }

    async fn ask(&self, query: &str, passages: &[&str]) -> Result<Vec<f64>, RerankError> {
        let body = json!({
            "model": self.model,
            "query": query,
            "documents": passages,
            "top_n": passages.len(),
            "return_documents": false,
        });
        let mut answer = self.upstreams.rerank(body).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.body.try_next().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > ANSWER_BYTES {
                return Err(RerankError::Answer("is too large".into()));
            }
        }
        read(&bytes, passages.len())
    }
}

/// The scores in an answer, by the passages' places.
fn read(answer: &[u8], passages: usize) -> Result<Vec<f64>, RerankError> {
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| RerankError::Answer(format!("cannot be read: {error}")))?;
    let mut scores = vec![None; passages];
    for item in answer.results {
        if let Some(score) = scores.get_mut(item.index) {
            *score = Some(item.relevance_score);
        }
    }
    let scores: Option<Vec<f64>> = scores.into_iter().collect();
    let scores = scores.filter(|scores| scores.iter().all(|score| score.is_finite()));
    let scores = scores
        .ok_or_else(|| RerankError::Answer("does not have a score for each passage".into()))?;
    // Some servers give the model's bare output; the logistic function makes a share of it.
    let bare = scores.iter().any(|score| !(0.0..=1.0).contains(score));
    Ok(match bare {
        true => scores
            .into_iter()
            .map(|score| 1.0 / (1.0 + (-score).exp()))
            .collect(),
        false => scores,
    })
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    relevance_score: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_shares_in_the_order_of_the_passages() {
        let answer = br#"{"results": [{"index": 1, "relevance_score": 0.9},
                                      {"index": 0, "relevance_score": 0.1, "document": "x"}]}"#;
        assert_eq!(read(answer, 2).expect("it is whole"), [0.1, 0.9]);
        let bare = br#"{"results": [{"index": 0, "relevance_score": 0.0},
                                    {"index": 1, "relevance_score": -9.5}]}"#;
        let scores = read(bare, 2).expect("it is whole");
        assert!(
            scores[0] == 0.5 && scores[1] > 0.0 && scores[1] < 0.001,
            "{scores:?}"
        );
    }

    #[test]
    fn answers_that_lack_a_score_are_refused() {
        for answer in [
            &br#"{"results": [{"index": 0, "relevance_score": 0.9}]}"#[..],
            br#"{"results": [{"index": 0, "relevance_score": 0.9}, {"index": 7, "relevance_score": 1}]}"#,
            b"[]",
            b"",
        ] {
            assert!(read(answer, 2).is_err());
        }
    }
}
