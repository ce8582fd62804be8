//! Reranking by a model behind the `/rerank` endpoint that Cohere, Jina, vLLM, llama.cpp and LiteLLM
//! have in common.

use std::time::Duration;

use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::json;

use crate::models::{UpstreamError, Upstreams};

/// Time limit, after which a search keeps its own order.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Largest response that is read. Some servers return the texts, too.
const RESPONSE_BYTES: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum RerankError {
    #[error("{}", .0.message())]
    Upstream(#[from] UpstreamError),
    #[error("its answer {0}")]
    InvalidResponse(String),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

#[derive(Clone)]
pub struct Reranker {
    model: String,
    upstreams: Upstreams,
}

impl Reranker {
    /// `model` is routed like a chat model.
    pub fn new(model: String, upstreams: Upstreams) -> Self {
        Self { model, upstreams }
    }

    pub fn model(&self) -> &str {
        &self.model
    }

    /// The relevance of each text for the query, 0 to 1, in the order of the texts.
    pub async fn scores(&self, query: &str, texts: &[&str]) -> Result<Vec<f64>, RerankError> {
        tokio::time::timeout(TIMEOUT, self.request(query, texts))
            .await
            .unwrap_or(Err(RerankError::Timeout))
    }

    async fn request(&self, query: &str, texts: &[&str]) -> Result<Vec<f64>, RerankError> {
        let body = json!({
            "model": self.model,
            "query": query,
            "documents": texts,
            "top_n": texts.len(),
            "return_documents": false,
        });
        let mut response = self.upstreams.rerank(body).await?;
        let mut bytes = Vec::new();
        while let Some(received) = response.body.try_next().await? {
            bytes.extend_from_slice(&received);
            if bytes.len() > RESPONSE_BYTES {
                return Err(RerankError::InvalidResponse("is too large".into()));
            }
        }
        parse_scores(&bytes, texts.len())
    }
}

fn parse_scores(response: &[u8], texts: usize) -> Result<Vec<f64>, RerankError> {
    let response: RerankResponse = serde_json::from_slice(response)
        .map_err(|error| RerankError::InvalidResponse(format!("cannot be read: {error}")))?;
    let mut scores = vec![None; texts];
    for item in response.results {
        if let Some(score) = scores.get_mut(item.index) {
            *score = Some(item.relevance_score);
        }
    }
    let scores: Option<Vec<f64>> = scores.into_iter().collect();
    let scores = scores.filter(|scores| scores.iter().all(|score| score.is_finite()));
    let scores = scores.ok_or_else(|| {
        RerankError::InvalidResponse("does not have a score for each text".into())
    })?;
    // Some servers return logits; the logistic function maps them to 0 to 1.
    let are_logits = scores.iter().any(|score| !(0.0..=1.0).contains(score));
    Ok(match are_logits {
        true => scores
            .into_iter()
            .map(|score| 1.0 / (1.0 + (-score).exp()))
            .collect(),
        false => scores,
    })
}

#[derive(Deserialize)]
struct RerankResponse {
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
    fn scores_are_between_0_and_1_in_the_order_of_the_texts() {
        let answer = br#"{"results": [{"index": 1, "relevance_score": 0.9},
                                      {"index": 0, "relevance_score": 0.1, "document": "x"}]}"#;
        assert_eq!(
            parse_scores(answer, 2).expect("a complete response"),
            [0.1, 0.9]
        );
        let logits = br#"{"results": [{"index": 0, "relevance_score": 0.0},
                                    {"index": 1, "relevance_score": -9.5}]}"#;
        let scores = parse_scores(logits, 2).expect("a complete response");
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
            assert!(parse_scores(answer, 2).is_err());
        }
    }
}
