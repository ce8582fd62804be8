//! A receiver of webhooks, which takes what it is sent when a test tells it to.

use std::collections::HashMap;

use assistd::domain::audit::Actor;
use assistd::domain::ids::{EndpointId, ProjectId};
use assistd::domain::webhook::{EventType, SigningSecret};
use assistd::store::webhook_endpoints;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::soon;
use assistd::store::Pool;

/// What a server must be told so that it posts to this machine.
pub const ALLOWED: (&str, &str) = ("ASSISTD_WEBHOOK_ALLOW_PRIVATE", "true");

/// A receiver. Posts wait until the test takes and answers them.
pub struct Receiver {
    /// Where it takes posts.
    pub url: String,
    posts: Mutex<mpsc::UnboundedReceiver<Post>>,
}

/// A post that waits for its answer. Dropped, it gets none that says success.
pub struct Post {
    /// Its headers.
    pub headers: HashMap<String, String>,
    /// Its body, as it came.
    pub body: Vec<u8>,
    /// Its body.
    pub event: Value,
    answer: oneshot::Sender<(StatusCode, HeaderMap)>,
}

impl Receiver {
    /// Starts one.
    pub async fn start() -> Self {
        let (sender, posts) = mpsc::unbounded_channel();
        let router = Router::new().route("/hook", post(take)).with_state(sender);
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("there are free ports");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url: format!("http://{address}/hook"),
            posts: Mutex::new(posts),
        }
    }

    /// Tells it of all events of a project, or of these.
    pub async fn listens(
        &self,
        pool: &Pool,
        project: &ProjectId,
        events: &[&str],
    ) -> (EndpointId, SigningSecret) {
        let secret = SigningSecret::generate().expect("the system has randomness");
        let events: Vec<EventType> = events
            .iter()
            .map(|event| event.parse().expect("the type is known"))
            .collect();
        let events = (!events.is_empty()).then_some(&*events);
        let id =
            webhook_endpoints::insert(pool, &Actor::Settings, project, &self.url, events, &secret)
                .await;
        (id.expect("an endpoint can be made"), secret)
    }

    /// The next post.
    pub async fn next(&self) -> Post {
        let post = async { self.posts.lock().await.recv().await };
        soon("a webhook", post).await.expect("it serves")
    }

    /// The next post, which must be of this type; it is taken.
    pub async fn takes(&self, kind: &str) -> Value {
        let post = self.next().await;
        assert_eq!(post.event["type"], kind, "{}", post.event);
        let event = post.event.clone();
        post.answer(204);
        event
    }

    /// Whether nothing waits to be taken.
    pub async fn is_idle(&self) -> bool {
        self.posts.lock().await.is_empty()
    }
}

async fn take(
    State(posts): State<mpsc::UnboundedSender<Post>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (answer, given) = oneshot::channel();
    let headers = headers.iter().map(|(name, value)| {
        let value = value.to_str().expect("our headers are text");
        (name.as_str().to_owned(), value.to_owned())
    });
    let _ = posts.send(Post {
        headers: headers.collect(),
        event: serde_json::from_slice(&body).expect("events are JSON"),
        body: body.to_vec(),
        answer,
    });
    match given.await {
        Ok((status, headers)) => (status, headers).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

impl Post {
    /// Answers with a status.
    pub fn answer(self, status: u16) {
        self.answer_with(status, HeaderMap::new());
    }

    /// Sends the caller elsewhere.
    pub fn redirect(self, to: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("location", to.parse().expect("a URL fits into a header"));
        self.answer_with(307, headers);
    }

    fn answer_with(self, status: u16, headers: HeaderMap) {
        let status = StatusCode::from_u16(status).expect("tests use known statuses");
        // A caller that has gone away needs no answer.
        let _ = self.answer.send((status, headers));
    }

    /// What identifies the event.
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// How many of its signatures are by this secret, computed without the code that made them.
    pub fn signatures_by(&self, secret: &SigningSecret) -> usize {
        let secret = secret.reveal();
        let key = secret.strip_prefix("whsec_").expect("it is in that form");
        let key = STANDARD.decode(key).expect("it is base 64");
        let signed = format!("{}.{}.", self.id(), self.headers["webhook-timestamp"]);
        let expected = hmac(&key, &[signed.as_bytes(), &self.body].concat());
        let expected = format!("v1,{}", STANDARD.encode(expected));
        let signatures = self.headers["webhook-signature"].split(' ');
        signatures
            .filter(|signature| *signature == expected)
            .count()
    }
}

/// HMAC-SHA-256, by its definition (RFC 2104), for keys of up to 64 bytes.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::digest([&block.map(|byte| byte ^ 0x36), message].concat());
    Sha256::digest([&block.map(|byte| byte ^ 0x5c), &inner[..]].concat()).to_vec()
}
