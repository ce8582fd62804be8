//! Vectors without a model: words add to directions of their own, so that texts with words in
//! common are near each other. A test may let requests wait, or fail.

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

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It is answered with this status.
    Status(u16),
    /// One vector is missing.
    OneMissing,
    /// One vector is shorter than the others.
    OneShorter,
    /// The answer is no JSON.
    NoJson,
}

/// The embeddings of a model server.
#[derive(Clone)]
pub struct FakeEmbeddings(Arc<Inner>);

struct Inner {
    requests: Mutex<Vec<Value>>,
    faults: Mutex<VecDeque<Option<Fault>>>,
    /// Requests with this in a text wait.
    held: watch::Sender<Option<String>>,
    waiting: watch::Sender<usize>,
}

impl FakeEmbeddings {
    /// Answers at once.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            requests: Mutex::default(),
            faults: Mutex::default(),
            held: watch::Sender::new(None),
            waiting: watch::Sender::new(0),
        }))
    }

    /// The route.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/embeddings", post(answer))
            .with_state(self.clone())
    }

    /// What happens to the next requests; those after them are answered.
    pub fn next(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.0.faults.lock().extend(faults);
    }

    /// Lets requests wait from now on that have this in one of their texts.
    pub fn hold(&self, what: &str) {
        self.0.held.send_replace(Some(what.to_owned()));
    }

    /// Answers those that wait.
    pub fn let_go(&self) {
        self.0.held.send_replace(None);
    }

    /// Waits until a request waits.
    pub async fn waits(&self) {
        eventually("a request for vectors", || async {
            (*self.0.waiting.borrow() > 0).then_some(())
        })
        .await;
    }

    /// All requests so far, and forgets them.
    pub fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.0.requests.lock())
    }

    /// Model and number of texts of each request so far, which are forgotten.
    pub fn asked(&self) -> Vec<(String, usize)> {
        let asked = self.take().into_iter().map(|request| {
            let model = request["model"].as_str().unwrap_or_default().to_owned();
            (model, texts(&request).count())
        });
        asked.collect()
    }
}

/// Counts a request as waiting as long as it does, however it ends.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn answer(State(this): State<FakeEmbeddings>, Json(request): Json<Value>) -> Response {
    let inner = &this.0;
    inner.requests.lock().push(request.clone());
    let passes = |held: &Option<String>| match held {
        Some(held) => !texts(&request).any(|text| text.contains(held.as_str())),
        None => true,
    };
    let mut held = inner.held.subscribe();
    if !passes(&held.borrow_and_update()) {
        let waiting = Waiting::new(&inner.waiting);
        let _ = held.wait_for(passes).await;
        drop(waiting);
    }
    let fault = inner.faults.lock().pop_front().flatten();
    let length = match request["model"].as_str() {
        Some("embed-small") => 32,
        _ => 64,
    };
    let vectors = texts(&request).map(|text| vector(text, length));
    let mut vectors: Vec<Vec<f32>> = vectors.collect();
    match fault {
        None => {}
        Some(Fault::Status(status)) => {
            let status = StatusCode::from_u16(status).expect("tests use known statuses");
            let error = json!({"error": {"message": "The vectors are out.", "type": "error"}});
            return (status, Json(error)).into_response();
        }
        Some(Fault::NoJson) => return "once upon a time".into_response(),
        Some(Fault::OneMissing) => drop(vectors.pop()),
        Some(Fault::OneShorter) => {
            let last = vectors.last_mut().expect("a request has texts");
            last.truncate(5);
        }
    }
    // Servers do not promise an order.
    let data = vectors.iter().enumerate().rev();
    let data = data.map(|(index, vector)| json!({"index": index, "embedding": vector}));
    let usage = json!({"prompt_tokens": 1, "total_tokens": 1});
    Json(json!({"object": "list", "data": data.collect::<Value>(), "usage": usage})).into_response()
}

fn texts(request: &Value) -> impl Iterator<Item = &str> {
    let input = request["input"].as_array().expect("texts come as a list");
    input
        .iter()
        .map(|text| text.as_str().expect("texts are text"))
}

fn vector(text: &str, length: usize) -> Vec<f32> {
    // Texts without words have a vector too.
    let mut vector = vec![0.01; length];
    for word in text
        .to_lowercase()
        .split(|char: char| !char.is_alphanumeric())
    {
        let mut hasher = DefaultHasher::new();
        word.hash(&mut hasher);
        let direction = hasher.finish() % u64::try_from(length).expect("it is small");
        vector[usize::try_from(direction).expect("it is small")] += 1.0;
    }
    vector
}
