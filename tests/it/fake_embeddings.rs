//! An embeddings endpoint without a model: each word adds to one dimension, chosen by its hash, so
//! that texts with common words have similar vectors. A test can hold requests or let them fail.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::eventually;

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Status(u16),
    OneMissing,
    /// One vector has fewer dimensions than the others.
    OneShorter,
    InvalidJson,
}

#[derive(Clone)]
pub struct FakeEmbeddings(Arc<Inner>);

struct Inner {
    requests: Mutex<Vec<Value>>,
    faults: Mutex<VecDeque<Option<Fault>>>,
    /// Requests with this substring in an input wait.
    held_substring: watch::Sender<Option<String>>,
    held_requests: watch::Sender<usize>,
}

impl FakeEmbeddings {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            requests: Mutex::default(),
            faults: Mutex::default(),
            held_substring: watch::Sender::new(None),
            held_requests: watch::Sender::new(0),
        }))
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/embeddings", post(answer))
            .with_state(self.clone())
    }

    /// Sets what happens to the next requests; later ones are answered.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.0.faults.lock().extend(faults);
    }

    /// Holds requests from now on that have the substring in one of their inputs.
    pub fn hold(&self, substring: &str) {
        self.0
            .held_substring
            .send_replace(Some(substring.to_owned()));
    }

    /// Answers the held requests, and later ones at once.
    pub fn release(&self) {
        self.0.held_substring.send_replace(None);
    }

    pub async fn wait_for_held_request(&self) {
        eventually("a held embeddings request", || async {
            (*self.0.held_requests.borrow() > 0).then_some(())
        })
        .await;
    }

    /// Takes the requests received since the last call.
    pub fn take_requests(&self) -> Vec<Value> {
        std::mem::take(&mut *self.0.requests.lock())
    }

    /// Takes the model and the number of inputs of each request since the last call.
    pub fn take_batches(&self) -> Vec<(String, usize)> {
        let batches = self.take_requests().into_iter().map(|request| {
            let model = request["model"].as_str().unwrap_or_default().to_owned();
            (model, inputs(&request).count())
        });
        batches.collect()
    }
}

/// Counts a request as held until this is dropped.
struct HeldGuard<'a>(&'a watch::Sender<usize>);

impl<'a> HeldGuard<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for HeldGuard<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn answer(State(this): State<FakeEmbeddings>, Json(request): Json<Value>) -> Response {
    let inner = &this.0;
    inner.requests.lock().push(request.clone());
    let is_released = |held: &Option<String>| match held {
        Some(substring) => !inputs(&request).any(|text| text.contains(substring.as_str())),
        None => true,
    };
    let mut held = inner.held_substring.subscribe();
    if !is_released(&held.borrow_and_update()) {
        let guard = HeldGuard::new(&inner.held_requests);
        let _ = held.wait_for(is_released).await;
        drop(guard);
    }
    let fault = inner.faults.lock().pop_front().flatten();
    let dimensions = match request["model"].as_str() {
        Some("embed-small") => 32,
        _ => 64,
    };
    let vectors = inputs(&request).map(|text| vector(text, dimensions));
    let mut vectors: Vec<Vec<f32>> = vectors.collect();
    match fault {
        None => {}
        Some(Fault::Status(status)) => {
            let status = StatusCode::from_u16(status).expect("tests use known statuses");
            let error = json!({"error": {"message": "The vectors are out.", "type": "error"}});
            return (status, Json(error)).into_response();
        }
        Some(Fault::InvalidJson) => return "once upon a time".into_response(),
        Some(Fault::OneMissing) => drop(vectors.pop()),
        Some(Fault::OneShorter) => {
            let last = vectors.last_mut().expect("a request has inputs");
            last.truncate(5);
        }
    }
    // Reversed, as the API does not promise an order.
    let data = vectors.iter().enumerate().rev();
    let data = data.map(|(index, vector)| json!({"index": index, "embedding": vector}));
    let usage = json!({"prompt_tokens": 1, "total_tokens": 1});
    Json(json!({"object": "list", "data": data.collect::<Value>(), "usage": usage})).into_response()
}

fn inputs(request: &Value) -> impl Iterator<Item = &str> {
    let input = request["input"].as_array().expect("`input` is a list");
    input
        .iter()
        .map(|text| text.as_str().expect("inputs are strings"))
}

fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    // A text without words must not get the zero vector.
    let mut vector = vec![0.01; dimensions];
    for word in text
        .to_lowercase()
        .split(|char: char| !char.is_alphanumeric())
    {
        let mut hasher = DefaultHasher::new();
        word.hash(&mut hasher);
        let dimension = hasher.finish() % u64::try_from(dimensions).expect("the number is small");
        vector[usize::try_from(dimension).expect("the number is small")] += 1.0;
    }
    vector
}
