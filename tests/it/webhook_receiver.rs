//! A webhook endpoint whose deliveries wait until the test answers them.

use std::collections::HashMap;

use assistd::domain::audit::Actor;
use assistd::domain::ids::{EndpointId, ProjectId};
use assistd::domain::webhook::{EventType, SigningSecret};
use assistd::store::{Pool, webhook_endpoints};
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

use crate::with_timeout;

/// The setting that lets a server post to the loopback address.
pub const ALLOW_PRIVATE_ADDRESSES: (&str, &str) = ("ASSISTD_WEBHOOK_ALLOW_PRIVATE", "true");

pub struct WebhookReceiver {
    pub url: String,
    deliveries: Mutex<mpsc::UnboundedReceiver<Delivery>>,
}

/// A request that waits for its response. Dropping it answers 503.
pub struct Delivery {
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// The body as JSON.
    pub event: Value,
    answer: oneshot::Sender<(StatusCode, HeaderMap)>,
}

impl WebhookReceiver {
    pub async fn start() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "holds the deliveries of one test"
        )]
        let (sender, deliveries) = mpsc::unbounded_channel();
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(sender);
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("the listener is bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url: format!("http://{address}/hook"),
            deliveries: Mutex::new(deliveries),
        }
    }

    /// Creates an endpoint for these event types of a project, or for all if the list is empty.
    pub async fn subscribe(
        &self,
        pool: &Pool,
        project: &ProjectId,
        events: &[&str],
    ) -> (EndpointId, SigningSecret) {
        let secret = SigningSecret::generate().expect("the system's random source works");
        let events: Vec<EventType> = events
            .iter()
            .map(|event| event.parse().expect("tests name existing event types"))
            .collect();
        let events = (!events.is_empty()).then_some(&*events);
        let id =
            webhook_endpoints::insert(pool, &Actor::Settings, project, &self.url, events, &secret)
                .await;
        (id.expect("the project exists"), secret)
    }

    pub async fn next_delivery(&self) -> Delivery {
        let delivery = async { self.deliveries.lock().await.recv().await };
        let delivery = with_timeout("a webhook delivery", delivery).await;
        delivery.expect("the server task holds a sender")
    }

    /// Accepts the next delivery, whose event must have this type; the event.
    pub async fn accept(&self, kind: &str) -> Value {
        let delivery = self.next_delivery().await;
        assert_eq!(delivery.event["type"], kind, "{}", delivery.event);
        let event = delivery.event.clone();
        delivery.answer(204);
        event
    }

    /// Whether no delivery waits.
    pub async fn is_idle(&self) -> bool {
        self.deliveries.lock().await.is_empty()
    }
}

async fn receive(
    State(deliveries): State<mpsc::UnboundedSender<Delivery>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (answer, response) = oneshot::channel();
    let headers = headers.iter().map(|(name, value)| {
        let value = value.to_str().expect("assistd sends ASCII headers");
        (name.as_str().to_owned(), value.to_owned())
    });
    let _ = deliveries.send(Delivery {
        headers: headers.collect(),
        event: serde_json::from_slice(&body).expect("events are JSON"),
        body: body.to_vec(),
        answer,
    });
    match response.await {
        Ok((status, headers)) => (status, headers).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

impl Delivery {
    pub fn answer(self, status: u16) {
        self.answer_with(status, HeaderMap::new());
    }

    /// Redirects the caller with a 307.
    pub fn redirect(self, to: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(
            "location",
            to.parse().expect("a URL is a valid header value"),
        );
        self.answer_with(307, headers);
    }

    fn answer_with(self, status: u16, headers: HeaderMap) {
        let status = StatusCode::from_u16(status).expect("tests use known statuses");
        // The caller may have closed the connection.
        let _ = self.answer.send((status, headers));
    }

    /// The event's id.
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// Counts the signatures made with this secret, independently of the code under test.
    pub fn signatures_by(&self, secret: &SigningSecret) -> usize {
        let secret = secret.reveal();
        let key = secret
            .strip_prefix("whsec_")
            .expect("secrets start with whsec_");
        let key = STANDARD.decode(key).expect("secrets are Base64");
        let signed = format!("{}.{}.", self.id(), self.headers["webhook-timestamp"]);
        let expected = hmac(&key, &[signed.as_bytes(), &self.body].concat());
        let expected = format!("v1,{}", STANDARD.encode(expected));
        let signatures = self.headers["webhook-signature"].split(' ');
        signatures
            .filter(|signature| *signature == expected)
            .count()
    }
}

/// HMAC-SHA-256 as defined in RFC 2104, for keys of at most 64 bytes.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::digest([&block.map(|byte| byte ^ 0x36), message].concat());
    Sha256::digest([&block.map(|byte| byte ^ 0x5c), &inner[..]].concat()).to_vec()
}
