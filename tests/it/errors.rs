//! Every error response has the envelope that clients can parse.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::client::{Client, Reply, id, send_request};
use crate::cluster::Db;
use crate::fake_model::FakeModel;
use crate::proxy::Proxy;
use crate::server::Server;
use crate::{event_stream, eventually};

const LIMIT: usize = 100_000;

/// Checks that the reply is an error as OpenAI writes it, with this status.
#[track_caller]
fn assert_error(reply: &Reply, status: u16, what: &str) {
    assert_eq!(reply.status, status, "{what}: {}", reply.body);
    let error = reply.body["error"].as_object();
    let error = error.unwrap_or_else(|| panic!("{what}: no envelope: {}", reply.body));
    let fields: Vec<&str> = error.keys().map(String::as_str).collect();
    assert_eq!(fields, ["message", "type", "param", "code"], "{what}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "{what}: {error:?}");
    let kind = if status < 500 {
        "invalid_request_error"
    } else {
        "server_error"
    };
    assert_eq!(error["type"], kind, "{what}");
    for header in ["x-request-id", "openai-processing-ms", "openai-version"] {
        assert!(reply.headers.contains_key(header), "{what}: no {header}");
    }
}

fn post(client: &Client, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    let request = client.request(Method::POST, path);
    request
        .header("content-type", "application/json")
        .body(body)
}

async fn limited() -> (Db, Server, Client) {
    let db = Db::new().await;
    let limit = LIMIT.to_string();
    let server = Server::start(&db, &[("ASSISTD_MAX_BODY_BYTES", &limit)]).await;
    let client = server.client();
    (db, server, client)
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_in_the_envelope() {
    let (_db, _server, client) = limited().await;
    let thread = client.create_thread("Hello?").await;
    let long_id = format!("/threads/thread_{}", "x".repeat(10_000));
    let deep = [
        r#"{"metadata":"#,
        &"[".repeat(LIMIT / 2),
        &"]".repeat(LIMIT / 3),
    ]
    .concat();
    let get = |path: &str| client.request(Method::GET, path);
    let call = |method: Method, path: &str| client.request(method, path);
    let json = |path: &str, body: &str| post(&client, path, body.to_owned());
    let requests = [
        ("no route", get("/nothing"), 404),
        ("the root", get("//"), 404),
        ("no method", call(Method::DELETE, "/assistants"), 405),
        (
            "no such method",
            call(Method::PUT, &format!("/threads/{thread}")),
            405,
        ),
        ("broken JSON", json("/threads", "{\"metadata\":"), 400),
        ("two values", json("/threads", "{} {}"), 400),
        ("a list", json("/threads", "[]"), 400),
        ("null", json("/threads", "null"), 400),
        ("nothing at all", json("/assistants", ""), 400),
        (
            "a form",
            client.request(Method::POST, "/threads").body("metadata=1"),
            415,
        ),
        (
            "a file as JSON",
            json("/files", r#"{"purpose": "assistants"}"#),
            400,
        ),
        (
            "no UTF-8 in the body",
            post(
                &client,
                "/threads",
                b"{\"metadata\":{\"a\":\"\xff\"}}".to_vec(),
            ),
            400,
        ),
        ("no UTF-8 in the path", get("/threads/thread_%ff"), 400),
        ("no UTF-8 in the query", get("/threads?order=%ff"), 400),
        (
            "NUL in a value",
            json("/threads", r#"{"metadata":{"a":"\u0000"}}"#),
            400,
        ),
        (
            "NUL in a name",
            json("/threads", r#"{"metadata":{"\u0000":"a"}}"#),
            400,
        ),
        ("NUL in a path", get("/threads/thread_%00"), 400),
        ("NUL in a cursor", get("/threads?after=%00"), 400),
        (
            "a lone surrogate",
            json("/threads", r#"{"metadata":{"a":"\ud800"}}"#),
            400,
        ),
        ("deep JSON", post(&client, "/threads", deep), 400),
        (
            "a number beyond all bounds",
            json("/assistants", r#"{"model": "m", "temperature": 1e999}"#),
            400,
        ),
        (
            "a number too large",
            json(
                "/threads/runs",
                r#"{"assistant_id": "asst_1", "max_prompt_tokens": 100000000000000000000}"#,
            ),
            400,
        ),
        (
            "a limit too large",
            get("/threads?limit=99999999999999999999"),
            400,
        ),
        ("an id without end", get(&long_id), 400),
        ("an id of another kind", get("/threads/asst_1"), 400),
        (
            "no position",
            get(&format!("/threads/{thread}/runs/run_1/stream")).header("last-event-id", "x"),
            400,
        ),
    ];
    for (what, request, status) in requests {
        let reply = send_request(request).await.expect("the server answers");
        assert_error(&reply, status, what);
    }
    assert_eq!(client.list("/threads").await.len(), 1, "none took effect");
}

#[tokio::test]
async fn a_body_too_large_is_refused_whether_its_length_is_told_or_not() {
    let (_db, _server, client) = limited().await;
    let long = json!({"metadata": {"a": "x".repeat(LIMIT)}}).to_string();
    let pieces = long.as_bytes().chunks(1_000).map(<[u8]>::to_vec);
    let pieces: Vec<_> = pieces.map(Ok::<_, std::io::Error>).collect();
    let chunked = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let known = post(&client, "/threads", long);
    for (what, request) in [
        ("content-length", known),
        ("chunked", post(&client, "/threads", chunked)),
    ] {
        let reply = send_request(request).await.expect("the server answers");
        assert_error(&reply, 413, what);
    }
}

#[tokio::test]
async fn without_its_database_the_server_says_so_and_recovers_by_itself() {
    let db = Db::new().await;
    let proxy = Proxy::start(&db).await;
    let server = Server::start_at(&proxy.url, &[]).await;
    let client = server.client();
    let thread = client.create_thread("Hello?").await;
    proxy.disconnect();
    let ask = async |method: Method, path: &str, body: Option<&Value>| {
        let sent = client.send(method, path, body).await;
        sent.expect("the server answers")
    };
    let path = format!("/threads/{thread}");
    let calls = [
        (Method::GET, path.as_str(), None),
        (Method::POST, "/threads", Some(json!({}))),
        (Method::GET, "//readyz", None),
    ];
    let refused = calls
        .iter()
        .map(async |(method, path, body)| (path, ask(method.clone(), path, body.as_ref()).await));
    for (path, reply) in futures::future::join_all(refused).await {
        assert_error(&reply, 503, path);
        assert!(reply.headers.contains_key("retry-after"), "{path}");
    }
    assert_eq!(ask(Method::GET, "//healthz", None).await.status, 200);
    proxy.reconnect();
    eventually("the server's recovery", || async {
        (ask(Method::GET, "//readyz", None).await.status == 200).then_some(())
    })
    .await;
    client.get(&path).await;
}

#[tokio::test]
async fn a_run_outlives_an_outage_of_the_database() {
    let db = Db::new().await;
    let proxy = Proxy::start(&db).await;
    let model = FakeModel::start().await;
    let server = Server::start_at(&proxy.url, &model.settings()).await;
    let client = server.client();
    let assistant = client.create_assistant_with(json!({"model": "fake"})).await;
    let thread = client.create_thread("Hello?").await;
    let mut stream = client.stream_run(&thread, &assistant).await;
    let mut answer = model.next_call().await.start_answer();
    answer.send_text("One").await;
    let mut seen = stream.until("thread.message.delta").await;
    proxy.disconnect();
    answer.send_text(" two").await;
    seen.push(stream.next().await);
    answer.finish().await;
    eventually("a commit that fails", || async {
        let waits = server.log().contains("a commit waits for the database");
        waits.then_some(())
    })
    .await;
    proxy.reconnect();
    seen.extend(stream.read_to_end().await);
    let streamed = event_stream::check(&seen);
    assert_eq!(streamed.run["status"], "completed");
    let run = client
        .get(&format!("/threads/{thread}/runs/{}", id(&streamed.run)))
        .await;
    assert_eq!(run, streamed.run);
    let messages = client.list(&format!("/threads/{thread}/messages")).await;
    assert_eq!(messages.len(), 2);
    assert_eq!(event_stream::text(&messages[1]), "One two");
}
