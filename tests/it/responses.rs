//! The Responses API, forwarded to upstreams.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::{Client, Reply, send_request};
use crate::cluster::Db;
use crate::server::Server;

/// An upstream that stores one response.
struct FakeUpstream {
    base_url: String,
    /// Method, path with query, and body of every request.
    requests: Arc<Mutex<Vec<(String, String, Value)>>>,
}

#[derive(Clone)]
struct UpstreamState {
    id: &'static str,
    requests: Arc<Mutex<Vec<(String, String, Value)>>>,
}

impl FakeUpstream {
    async fn keeping(id: &'static str) -> Self {
        let requests: Arc<Mutex<Vec<_>>> = Arc::default();
        let state = UpstreamState {
            id,
            requests: requests.clone(),
        };
        let router = Router::new().fallback(answer).with_state(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the listener is bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            base_url: format!("http://{address}/v1"),
            requests,
        }
    }

    fn requests(&self) -> Vec<(String, String, Value)> {
        std::mem::take(&mut self.requests.lock())
    }
}

async fn answer(State(state): State<UpstreamState>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await;
    let body = serde_json::from_slice(&body.expect("it comes whole")).unwrap_or(Value::Null);
    let uri = parts.uri.path_and_query().map_or("", |it| it.as_str());
    let seen = (parts.method.to_string(), uri.to_owned(), body.clone());
    state.requests.lock().push(seen);
    let (status, kind, text) = if parts
        .uri
        .path()
        .starts_with(&format!("/v1/responses/{}", state.id))
    {
        (
            200,
            "application/json",
            json!({"id": state.id, "of": uri}).to_string(),
        )
    } else if parts.uri.path() != "/v1/responses" {
        let error =
            json!({"error": {"message": "No such response", "type": "invalid_request_error"}});
        (404, "application/json", error.to_string())
    } else if body["stream"] == true {
        let event = json!({"type": "response.created"});
        (
            200,
            "text/event-stream",
            format!("event: response.created\ndata: {event}\n\n"),
        )
    } else {
        (
            200,
            "application/json",
            json!({"id": state.id, "model": body["model"]}).to_string(),
        )
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", kind);
    response
        .body(Body::from(text))
        .expect("tests use valid headers")
}

/// A server with two upstreams; the first one serves model names that no route matches.
async fn two_upstreams() -> (Db, Server, FakeUpstream, FakeUpstream) {
    let db = Db::new().await;
    let first = FakeUpstream::keeping("resp_1").await;
    let second = FakeUpstream::keeping("resp_2").await;
    let folder = crate::cluster::cluster().folder();
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let file = folder.join("assistd.toml");
    let text = format!(
        "[[upstream]]\nname = \"second\"\nbase_url = \"{}\"\n\
         [[route]]\nmatch = \"gpt-5*\"\nupstream = \"second\"\nmodel = \"real\"\n",
        second.base_url
    );
    std::fs::write(&file, text).expect("the temporary folder is writable");
    let file = file.to_str().expect("temporary paths are UTF-8").to_owned();
    let settings = [
        ("OPENAI_BASE_URL", &*first.base_url),
        ("OPENAI_API_KEY", "sk-model"),
        ("ASSISTD_CONFIG", &*file),
    ];
    let server = Server::start(&db, &settings).await;
    (db, server, first, second)
}

async fn call(client: &Client, method: Method, path: &str) -> Reply {
    let request = client.request(method, path);
    send_request(request).await.expect("the server answers")
}

#[tokio::test]
async fn a_response_is_made_by_the_routed_upstream_streamed_or_not() {
    let (_db, server, first, second) = two_upstreams().await;
    let client = server.client();
    let input = json!({"model": "gpt-5-mini", "input": "Hi", "reasoning": {"effort": "low"}});
    let made = client.send(Method::POST, "/responses", Some(&input)).await;
    let made = made.expect("the server answers");
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(made.body, json!({"id": "resp_2", "model": "real"}));
    assert_eq!(made.headers["x-assistd-model"], "real");
    let mut sent = input;
    sent["model"] = json!("real");
    let expected = ("POST".to_owned(), "/v1/responses".to_owned(), sent);
    assert_eq!(second.requests(), [expected]);

    let streamed = json!({"model": "other", "input": "Hi", "stream": true});
    let mut events = client.stream("/responses", &streamed).await;
    assert_eq!(events.next().await.name, "response.created");
    assert_eq!(first.requests().len(), 1);

    let nameless = json!({"input": "Hi"});
    let refused = client
        .send(Method::POST, "/responses", Some(&nameless))
        .await;
    assert_eq!(refused.expect("the server answers").status, 400);
}

#[tokio::test]
async fn a_stored_response_is_found_at_whichever_upstream_keeps_it() {
    let (_db, server, first, second) = two_upstreams().await;
    let client = server.client();
    for (method, path, there) in [
        (
            Method::GET,
            "/responses/resp_2?include%5B%5D=a&api-version=x",
            "/v1/responses/resp_2?include%5B%5D=a",
        ),
        (Method::DELETE, "/responses/resp_2", "/v1/responses/resp_2"),
        (
            Method::POST,
            "/responses/resp_2/cancel",
            "/v1/responses/resp_2/cancel",
        ),
        (
            Method::GET,
            "/responses/resp_2/input_items?limit=1",
            "/v1/responses/resp_2/input_items?limit=1",
        ),
    ] {
        let found = call(&client, method.clone(), path).await;
        assert_eq!(found.status, 200, "{found:?}");
        assert_eq!(found.body, json!({"id": "resp_2", "of": there}));
        let expected = [(method.to_string(), there.to_owned(), Value::Null)];
        assert_eq!(first.requests(), expected);
        assert_eq!(second.requests(), expected);
    }
    let found = call(&client, Method::GET, "/responses/resp_1").await;
    assert_eq!(found.body["id"], "resp_1");
    assert_eq!(second.requests(), []);

    let nowhere = call(&client, Method::GET, "/responses/resp_none").await;
    assert_eq!(nowhere.status, 404);
    assert_eq!(nowhere.body["error"]["message"], "No such response");
    let hostile = call(&client, Method::GET, "/responses/..%2Fmodels").await;
    assert_eq!(hostile.status, 404);
    let paths: Vec<_> = first
        .requests()
        .into_iter()
        .map(|(_, path, _)| path)
        .collect();
    assert_eq!(paths, ["/v1/responses/resp_1", "/v1/responses/resp_none"]);
}

#[tokio::test]
async fn the_scripted_model_says_that_it_serves_no_responses() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let client = server.client();
    let input = json!({"model": "gpt-5-mini", "input": "Hi"});
    let made = client.send(Method::POST, "/responses", Some(&input)).await;
    let read = call(&client, Method::GET, "/responses/resp_1").await;
    for refused in [made.expect("the server answers"), read] {
        assert_eq!(refused.status, 404);
        let message = refused.body["error"]["message"].as_str();
        assert!(
            message.is_some_and(|message| message.contains("scripted model")),
            "{refused:?}"
        );
    }
}
