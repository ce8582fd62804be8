//! A model server that says what a test tells it to, when the test tells it to.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::fake_embeddings::FakeEmbeddings;
use crate::soon;

/// A model server. Calls wait until the test takes them.
pub struct FakeModel {
    /// For `OPENAI_BASE_URL`.
    pub base_url: String,
    /// Its vectors, which it makes by itself.
    pub embeddings: FakeEmbeddings,
    calls: Mutex<mpsc::UnboundedReceiver<Call>>,
    /// What begins to serve when it is not served yet.
    asleep: Mutex<Option<(TcpSocket, Router)>>,
}

/// A call that waits for its answer. Dropped, it gets none.
pub struct Call {
    /// What was asked.
    pub request: Value,
    answer: oneshot::Sender<Response<Body>>,
}

/// An answer that is being given, piece by piece. Dropped before it is finished, it ends the way
/// it does when a server dies.
pub struct Speech(Option<mpsc::Sender<io::Result<Bytes>>>);

impl FakeModel {
    /// Starts one.
    pub async fn start() -> Self {
        let model = Self::asleep();
        model.wake().await;
        model
    }

    /// One that nobody can connect to before it is woken.
    pub fn asleep() -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let embeddings = FakeEmbeddings::new();
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/rerank", post(rerank))
            .with_state(sender)
            .merge(embeddings.router());
        let socket = TcpSocket::new_v4().expect("there are sockets");
        let any = "127.0.0.1:0".parse().expect("it is an address");
        socket.bind(any).expect("there are free ports");
        let address = socket.local_addr().expect("it is bound");
        Self {
            base_url: format!("http://{address}/v1"),
            embeddings,
            calls: Mutex::new(calls),
            asleep: Mutex::new(Some((socket, router))),
        }
    }

    /// Begins to serve.
    pub async fn wake(&self) {
        let asleep = self.asleep.lock().await.take();
        let (socket, router) = asleep.expect("it sleeps");
        let listener = socket.listen(1024).expect("the port is ours");
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// The settings of a server that asks this model.
    pub fn settings(&self) -> [(&str, &str); 2] {
        [
            ("OPENAI_BASE_URL", &self.base_url),
            ("OPENAI_API_KEY", "sk-model"),
        ]
    }

    /// The next call.
    pub async fn call(&self) -> Call {
        let call = async { self.calls.lock().await.recv().await };
        soon("a call of the model", call)
            .await
            .expect("the model serves")
    }

    /// Whether no call waits to be taken.
    pub async fn is_idle(&self) -> bool {
        self.calls.lock().await.is_empty()
    }
}

/// Prefers passages about nothing, and fails when it is asked about a fault.
async fn rerank(Json(request): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let query = request["query"].as_str().expect("a query is text");
    if query.contains("fault") {
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let score = |passage: &Value| match passage.as_str() {
        Some(text) if text.contains("nothing") => 0.9,
        _ => 0.1,
    };
    let passages = request["documents"].as_array();
    let passages = passages.expect("passages are a list").iter().enumerate();
    let results = passages.map(|(n, text)| json!({"index": n, "relevance_score": score(text)}));
    Ok(Json(json!({"results": results.collect::<Value>()})))
}

async fn complete(
    State(calls): State<mpsc::UnboundedSender<Call>>,
    Json(request): Json<Value>,
) -> Response<Body> {
    let (answer, given) = oneshot::channel();
    let _ = calls.send(Call { request, answer });
    given.await.unwrap_or_else(|_| {
        let broken = tokio_stream::iter([Err::<Bytes, _>(broken())]);
        Response::new(Body::from_stream(broken))
    })
}

fn broken() -> io::Error {
    io::Error::other("the model server dies")
}

impl Call {
    /// Answers with a status and a body.
    pub fn answer(self, status: u16, headers: &[(&str, &str)], body: impl Into<Body>) {
        let mut response = Response::builder()
            .status(StatusCode::from_u16(status).expect("tests use known statuses"))
            .header("content-type", "application/json");
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        // A caller that has gone away needs no answer.
        let _ = self
            .answer
            .send(response.body(body.into()).expect("it is well formed"));
    }

    /// Answers with an error as OpenAI writes it.
    pub fn refuse(self, status: u16, code: &str, message: &str) {
        let error = json!({"error": {"message": message, "type": "error", "code": code}});
        self.answer(status, &[], error.to_string());
    }

    /// Begins a streamed answer.
    pub fn speak(self) -> Speech {
        let (sender, pieces) = mpsc::channel(1);
        let response = Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(ReceiverStream::new(pieces)));
        let _ = self.answer.send(response.expect("it is well formed"));
        Speech(Some(sender))
    }

    /// Calls code_interpreter.
    pub async fn code(self, code: &str) {
        let mut speech = self.speak();
        let arguments = json!({"code": code}).to_string();
        speech.call(0, "code_interpreter", &[&arguments]).await;
        speech.finish().await;
    }

    /// Calls file_search.
    pub async fn search(self, queries: &[&str]) {
        let mut speech = self.speak();
        let arguments = json!({"queries": queries}).to_string();
        speech.call(0, "file_search", &[&arguments]).await;
        speech.finish().await;
    }

    /// Says all of it.
    pub async fn say(self, text: &str) {
        let mut speech = self.speak();
        speech.say(text).await;
        speech.finish().await;
    }
}

impl Speech {
    /// Sends bytes as they are. A caller that has gone away hears nothing.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(Ok(bytes.into())).await;
        }
    }

    /// Sends a chunk.
    pub async fn chunk(&mut self, choices: Value, usage: Value) {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake",
            "choices": choices, "usage": usage,
        });
        self.send(format!("data: {chunk}\n\n")).await;
    }

    /// Says something.
    pub async fn say(&mut self, text: &str) {
        let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": null});
        self.chunk(json!([choice]), Value::Null).await;
    }

    /// Calls a function: the call's position in the turn, its name, and its arguments in pieces.
    pub async fn call(&mut self, index: usize, name: &str, arguments: &[&str]) {
        let id = format!("call_{index}");
        let began = json!({"index": index, "id": id, "type": "function",
                           "function": {"name": name, "arguments": ""}});
        let pieces = arguments
            .iter()
            .map(|piece| json!({"index": index, "function": {"arguments": piece}}));
        for call in std::iter::once(began).chain(pieces) {
            let delta = json!({"tool_calls": [call]});
            let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
            self.chunk(json!([choice]), Value::Null).await;
        }
    }

    /// Ends the answer, and says that it cost 10 and 5 tokens.
    pub async fn finish(mut self) {
        self.stop().await;
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
        self.chunk(json!([]), usage).await;
        self.end().await;
    }

    /// Says that the answer is complete.
    pub async fn stop(&mut self) {
        let choice = json!({"index": 0, "delta": {}, "finish_reason": "stop"});
        self.chunk(json!([choice]), Value::Null).await;
    }

    /// Ends the stream in good order.
    pub async fn end(mut self) {
        self.send("data: [DONE]\n\n").await;
        self.0 = None;
    }

    /// Waits until the caller has hung up.
    pub async fn closed(&self) {
        if let Some(sender) = &self.0 {
            soon("the end of a call", sender.closed()).await;
        }
    }
}

impl Drop for Speech {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            // There is room, or pieces that nobody takes; then nobody minds the end either.
            let _ = sender.try_send(Err(broken()));
        }
    }
}
