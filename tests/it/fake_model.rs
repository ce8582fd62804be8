//! A Chat Completions server whose requests wait until the test answers them.

use std::io;
use std::sync::Arc;

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
use crate::with_timeout;

pub struct FakeModel {
    pub base_url: String,
    /// The embeddings endpoint, which answers without the test.
    pub embeddings: FakeEmbeddings,
    calls: Mutex<mpsc::UnboundedReceiver<ModelCall>>,
    /// The socket and the routes until [`FakeModel::serve`] is called.
    unstarted: Mutex<Option<(TcpSocket, Router)>>,
}

/// A request that waits for its response. Dropping it breaks the connection.
pub struct ModelCall {
    pub request: Value,
    answer: oneshot::Sender<Response<Body>>,
}

/// A streamed response under way. Dropping it unfinished breaks the connection, as the death of a
/// server does.
pub struct AnswerStream(Option<mpsc::Sender<io::Result<Bytes>>>);

impl FakeModel {
    pub async fn start() -> Self {
        let model = Self::unstarted();
        model.serve().await;
        model
    }

    /// A server with an address that refuses connections until [`FakeModel::serve`].
    pub fn unstarted() -> Self {
        #[expect(clippy::disallowed_methods, reason = "holds the calls of one test")]
        let (sender, calls) = mpsc::unbounded_channel();
        let embeddings = FakeEmbeddings::new();
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/rerank", post(rerank))
            .with_state(sender)
            .merge(embeddings.router());
        let socket = TcpSocket::new_v4().expect("the system has sockets");
        let any = "127.0.0.1:0".parse().expect("the literal is an address");
        socket.bind(any).expect("a port is free");
        let address = socket.local_addr().expect("the socket is bound");
        Self {
            base_url: format!("http://{address}/v1"),
            embeddings,
            calls: Mutex::new(calls),
            unstarted: Mutex::new(Some((socket, router))),
        }
    }

    pub async fn serve(&self) {
        let unstarted = self.unstarted.lock().await.take();
        let (socket, router) = unstarted.expect("serve is called once");
        let listener = socket.listen(1024).expect("the socket is bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// The settings of a server that uses this model.
    pub fn settings(&self) -> [(&str, &str); 2] {
        [
            ("OPENAI_BASE_URL", &self.base_url),
            ("OPENAI_API_KEY", "sk-model"),
        ]
    }

    /// Waits for the next request.
    pub async fn next_call(&self) -> ModelCall {
        let call = async { self.calls.lock().await.recv().await };
        with_timeout("a request to the model", call)
            .await
            .expect("the model holds a sender")
    }

    /// Answers every further request with `respond`, concurrently.
    pub fn answer_calls<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        respond: impl Fn(ModelCall) -> F + Send + 'static,
    ) {
        let model = self.clone();
        tokio::spawn(async move {
            while let Some(call) = model.calls.lock().await.recv().await {
                tokio::spawn(respond(call));
            }
        });
    }

    /// Whether no request waits.
    pub async fn is_idle(&self) -> bool {
        self.calls.lock().await.is_empty()
    }
}

/// Scores documents with the word "nothing" highest; fails for queries with the word "fault".
async fn rerank(Json(request): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let query = request["query"].as_str().expect("a query is a string");
    if query.contains("fault") {
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let score = |document: &Value| match document.as_str() {
        Some(text) if text.contains("nothing") => 0.9,
        _ => 0.1,
    };
    let documents = request["documents"].as_array();
    let documents = documents.expect("documents are a list").iter().enumerate();
    let results = documents.map(|(n, text)| json!({"index": n, "relevance_score": score(text)}));
    Ok(Json(json!({"results": results.collect::<Value>()})))
}

async fn complete(
    State(calls): State<mpsc::UnboundedSender<ModelCall>>,
    Json(request): Json<Value>,
) -> Response<Body> {
    let (answer, response) = oneshot::channel();
    let _ = calls.send(ModelCall { request, answer });
    response.await.unwrap_or_else(|_| {
        let body = tokio_stream::iter([Err::<Bytes, _>(broken_connection())]);
        Response::new(Body::from_stream(body))
    })
}

fn broken_connection() -> io::Error {
    io::Error::other("the model server dies")
}

impl ModelCall {
    pub fn answer(self, status: u16, headers: &[(&str, &str)], body: impl Into<Body>) {
        let mut response = Response::builder()
            .status(StatusCode::from_u16(status).expect("tests use known statuses"))
            .header("content-type", "application/json");
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        // The caller may have closed the connection.
        let _ = self
            .answer
            .send(response.body(body.into()).expect("tests use valid headers"));
    }

    /// Answers with an error object as OpenAI writes it.
    pub fn answer_error(self, status: u16, code: &str, message: &str) {
        let error = json!({"error": {"message": message, "type": "error", "code": code}});
        self.answer(status, &[], error.to_string());
    }

    /// Starts a streamed response.
    pub fn start_answer(self) -> AnswerStream {
        let (sender, pieces) = mpsc::channel(1);
        let response = Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(ReceiverStream::new(pieces)));
        let _ = self.answer.send(response.expect("tests use valid headers"));
        AnswerStream(Some(sender))
    }

    /// Answers with a call to `code_interpreter`.
    pub async fn answer_code(self, code: &str) {
        let mut answer = self.start_answer();
        let arguments = json!({"code": code}).to_string();
        answer
            .send_tool_call(0, "code_interpreter", &[&arguments])
            .await;
        answer.finish().await;
    }

    /// Answers with a call to `file_search`.
    pub async fn answer_search(self, queries: &[&str]) {
        let mut answer = self.start_answer();
        let arguments = json!({"queries": queries}).to_string();
        answer.send_tool_call(0, "file_search", &[&arguments]).await;
        answer.finish().await;
    }

    /// Answers with a text.
    pub async fn answer_text(self, text: &str) {
        let mut answer = self.start_answer();
        answer.send_text(text).await;
        answer.finish().await;
    }
}

impl AnswerStream {
    /// Sends raw bytes, unless the caller has closed the connection.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(Ok(bytes.into())).await;
        }
    }

    pub async fn send_chunk(&mut self, choices: Value, usage: Value) {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake",
            "choices": choices, "usage": usage,
        });
        self.send(format!("data: {chunk}\n\n")).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": null});
        self.send_chunk(json!([choice]), Value::Null).await;
    }

    /// Sends a tool call: its index, the function's name and the arguments in fragments.
    pub async fn send_tool_call(&mut self, index: usize, name: &str, arguments: &[&str]) {
        let id = format!("call_{index}");
        let first = json!({"index": index, "id": id, "type": "function",
                           "function": {"name": name, "arguments": ""}});
        let fragments = arguments
            .iter()
            .map(|fragment| json!({"index": index, "function": {"arguments": fragment}}));
        for call in std::iter::once(first).chain(fragments) {
            let delta = json!({"tool_calls": [call]});
            let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
            self.send_chunk(json!([choice]), Value::Null).await;
        }
    }

    /// Completes the response, with a usage of 10 prompt and 5 completion tokens.
    pub async fn finish(mut self) {
        self.send_stop().await;
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
        self.send_chunk(json!([]), usage).await;
        self.end().await;
    }

    /// Sends the finish reason `stop`.
    pub async fn send_stop(&mut self) {
        let choice = json!({"index": 0, "delta": {}, "finish_reason": "stop"});
        self.send_chunk(json!([choice]), Value::Null).await;
    }

    /// Ends the stream with `[DONE]`.
    pub async fn end(mut self) {
        self.send("data: [DONE]\n\n").await;
        self.0 = None;
    }

    /// Waits until the caller has closed the connection.
    pub async fn wait_until_closed(&self) {
        if let Some(sender) = &self.0 {
            with_timeout("the end of a request", sender.closed()).await;
        }
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            // If the channel is full, the caller reads nothing and will not miss the error.
            let _ = sender.try_send(Err(broken_connection()));
        }
    }
}
