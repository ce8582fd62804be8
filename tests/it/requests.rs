//! Every field of a request takes effect or is refused, and memory is bounded by the request's size.

use std::fmt::Write as _;

use futures::StreamExt as _;
use futures::future::join_all;
use reqwest::{Body, Method, RequestBuilder};
use serde_json::{Map, Value, json};

use crate::client::{Client, Reply, id, send_request};
use crate::cluster::Db;
use crate::server::Server;
use crate::{eventually, with_timeout};

async fn server() -> (Db, Server, Client) {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let client = server.client();
    (db, server, client)
}

async fn post(client: &Client, path: &str, body: &Value) -> Reply {
    let sent = client.send(Method::POST, path, Some(body)).await;
    sent.expect("the server answers")
}

/// A request for a JSON body that the test serializes itself.
fn json_request(client: &Client, path: &str) -> RequestBuilder {
    let request = client.request(Method::POST, path);
    request.header("content-type", "application/json")
}

/// The object reduced to these fields.
fn part(object: &Value, fields: &[&str]) -> Value {
    let field = |name: &&str| ((*name).to_owned(), object[*name].clone());
    fields.iter().map(field).collect::<Map<_, _>>().into()
}

fn with_null(mut body: Value, field: &str) -> Value {
    body[field] = Value::Null;
    body
}

/// An assistant whose settings all differ from their defaults.
fn elaborate() -> Value {
    json!({
        "model": "scripted/hello",
        "name": "Ada",
        "description": "Greets.",
        "instructions": "Say hello.",
        "tools": [{"type": "function", "function": {"name": "wave"}}],
        "temperature": 0.5,
        "top_p": 0.25,
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
        "metadata": {"team": "blue"},
        "tool_resources": {"code_interpreter": {"file_ids": []}},
    })
}

#[tokio::test]
async fn a_null_in_a_run_keeps_what_the_assistant_says() {
    const SETTINGS: [&str; 14] = [
        "model",
        "instructions",
        "tools",
        "temperature",
        "top_p",
        "reasoning_effort",
        "response_format",
        "tool_choice",
        "parallel_tool_calls",
        "truncation_strategy",
        "max_prompt_tokens",
        "max_completion_tokens",
        "metadata",
        "stream",
    ];
    let (_db, _server, client) = server().await;
    let assistant = client.create_assistant_with(elaborate()).await;
    let own = json!({"assistant_id": assistant});
    let thread = json!({"messages": [{"role": "user", "content": "Hello?"}]});
    let with_thread = json!({"assistant_id": assistant, "thread": thread});
    let expected = client.post("/threads/runs", with_thread.clone()).await;
    assert_eq!(expected["response_format"], json!({"type": "json_object"}));
    assert_eq!(expected["tools"][0]["function"]["name"], "wave");

    let own_fields = ["additional_instructions", "additional_messages"];
    for field in SETTINGS.into_iter().chain(own_fields) {
        let thread = client.create_thread("Hello?").await;
        let path = format!("/threads/{thread}/runs");
        let run = client.post(&path, with_null(own.clone(), field)).await;
        let shown = |run| part(run, &SETTINGS);
        assert_eq!(shown(&run), shown(&expected), "{field} of {path}");
    }
    let own_fields = ["tool_resources"];
    for field in SETTINGS.into_iter().chain(own_fields) {
        let body = with_null(with_thread.clone(), field);
        let run = client.post("/threads/runs", body).await;
        let shown = |run| part(run, &SETTINGS);
        assert_eq!(shown(&run), shown(&expected), "{field} of /threads/runs");
    }
}

#[tokio::test]
async fn a_null_in_a_change_resets_what_can_be_null_and_keeps_the_rest() {
    let (_db, _server, client) = server().await;
    let assistant = client.post("/assistants", elaborate()).await;
    let thread = json!({
        "metadata": {"a": "b"},
        "tool_resources": {"code_interpreter": {"file_ids": []}},
        "messages": [{"role": "user", "content": "?", "metadata": {"a": "b"}}],
    });
    let thread = client.post("/threads", thread).await;
    let messages = format!("/threads/{}/messages", id(&thread));
    let message = client.list(&messages).await.remove(0);
    let store = json!({
        "name": "Books",
        "metadata": {"a": "b"},
        "expires_after": {"anchor": "last_active_at", "days": 3},
    });
    let store = client.post("/vector_stores", store).await;
    let assistants = format!("/assistants/{}", id(&assistant));
    let threads = format!("/threads/{}", id(&thread));
    let messages = format!("{messages}/{}", id(&message));
    let stores = format!("/vector_stores/{}", id(&store));
    let kept = |object: &Value, field: &str| object[field].clone();
    let cases = [
        (&assistants, "model", kept(&assistant, "model")),
        (&assistants, "name", Value::Null),
        (&assistants, "description", Value::Null),
        (&assistants, "instructions", Value::Null),
        (&assistants, "tools", kept(&assistant, "tools")),
        (&assistants, "temperature", json!(1.0)),
        (&assistants, "top_p", json!(1.0)),
        (&assistants, "reasoning_effort", Value::Null),
        (&assistants, "response_format", json!("auto")),
        (&assistants, "metadata", kept(&assistant, "metadata")),
        (
            &assistants,
            "tool_resources",
            kept(&assistant, "tool_resources"),
        ),
        (&threads, "metadata", kept(&thread, "metadata")),
        (&threads, "tool_resources", kept(&thread, "tool_resources")),
        (&messages, "metadata", kept(&message, "metadata")),
        (&stores, "name", Value::Null),
        (&stores, "metadata", kept(&store, "metadata")),
        (&stores, "expires_after", Value::Null),
    ];
    for (path, field, expected) in cases {
        let changed = client.post(path, json!({field: null})).await;
        assert_eq!(changed[field], expected, "{field} of {path}");
        assert_eq!(client.get(path).await[field], expected, "{field} of {path}");
    }
}

#[tokio::test]
async fn a_null_in_a_creation_is_what_leaving_out_is() {
    let (_db, _server, client) = server().await;
    let thread = client.create_thread("Hello?").await;
    let file = client.upload("a.txt", "one").await;
    let messages = format!("/threads/{thread}/messages");
    let assistant = [
        "name",
        "description",
        "instructions",
        "tools",
        "temperature",
        "top_p",
        "reasoning_effort",
        "response_format",
        "metadata",
        "tool_resources",
    ];
    let store = [
        "name",
        "description",
        "file_ids",
        "metadata",
        "expires_after",
        "chunking_strategy",
    ];
    let new_upload = json!({"filename": "a.txt", "purpose": "assistants", "bytes": 3,
                            "mime_type": "text/plain"});
    let cases: [(&str, Value, &[&str]); 5] = [
        ("/assistants", json!({"model": "m"}), &assistant),
        (
            "/threads",
            json!({}),
            &["messages", "metadata", "tool_resources"],
        ),
        (
            &messages,
            json!({"role": "user", "content": "?"}),
            &["attachments", "metadata"],
        ),
        ("/vector_stores", json!({}), &store),
        ("/uploads", new_upload, &["expires_after"]),
    ];
    for (path, body, fields) in cases {
        let plain = client.post(path, body.clone()).await;
        for field in fields {
            let made = client.post(path, with_null(body.clone(), field)).await;
            // Ids and creation times differ.
            let shown = |object: &Value| {
                let fields = object.as_object().expect("the value is an object").iter();
                let fields = fields.filter(|(name, _)| *name != "id" && !name.ends_with("_at"));
                fields
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect::<Map<_, _>>()
            };
            assert_eq!(shown(&made), shown(&plain), "{field} of {path}");
        }
    }
    let store = id(&client.post("/vector_stores", json!({})).await);
    let files = format!("/vector_stores/{store}/files");
    for field in ["attributes", "chunking_strategy"] {
        let body = with_null(json!({"file_id": file["id"]}), field);
        let added = client.post(&files, body).await;
        assert_eq!(added["attributes"], json!({}));
    }
}

#[tokio::test]
async fn what_cannot_be_done_together_is_refused_rather_than_dropped() {
    let (_db, _server, client) = server().await;
    let assistant = client.create_assistant("hello").await;
    let file = client.upload("a.txt", "one").await;
    let files = json!({"code_interpreter": {"file_ids": [file["id"]]}});
    let none = json!({"code_interpreter": {"file_ids": []}});
    let messages = json!([{"role": "user", "content": "Hello?"}]);
    let thread = |resources: &Value| json!({"messages": messages, "tool_resources": resources});
    let cases = [
        (
            json!({"truncation_strategy": {"type": "auto", "last_messages": 5}}),
            "truncation_strategy.last_messages",
        ),
        (
            json!({"thread": thread(&files), "tool_resources": none}),
            "tool_resources.code_interpreter",
        ),
    ];
    for (mut body, param) in cases {
        body["assistant_id"] = json!(assistant);
        let refused = post(&client, "/threads/runs", &body).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
        assert_eq!(refused.body["error"]["param"], param);
    }
    let store = id(&client.post("/vector_stores", json!({})).await);
    let beside = json!({"file_search": {"vector_store_ids": [store]}});
    let body =
        json!({"assistant_id": assistant, "thread": thread(&files), "tool_resources": beside});
    let run = client.post("/threads/runs", body).await;
    let thread = run["thread_id"].as_str().expect("a run has a thread");
    let thread = client.get(&format!("/threads/{thread}")).await;
    let both = json!({"code_interpreter": {"file_ids": [file["id"]]},
                      "file_search": {"vector_store_ids": [store]}});
    assert_eq!(thread["tool_resources"], both);
}

#[tokio::test]
async fn a_run_with_nothing_to_do_is_refused_when_it_is_created() {
    const TEXT: &str =
        "Run creation requires a Thread with a user message or an assistant with instructions.";
    let (_db, _server, client) = server().await;
    let silent = client.create_assistant("hello").await;
    let body = json!({"model": "scripted/hello", "instructions": "Say hello."});
    let instructed = client.create_assistant_with(body).await;
    let message = json!({"role": "user", "content": "Hello?"});
    let cases = [
        (json!({"assistant_id": silent}), 400),
        (json!({"assistant_id": silent, "instructions": ""}), 400),
        (json!({"assistant_id": instructed, "instructions": ""}), 400),
        (
            json!({"assistant_id": silent, "additional_messages": []}),
            400,
        ),
        (json!({"assistant_id": instructed}), 200),
        (
            json!({"assistant_id": silent, "instructions": "Say hello."}),
            200,
        ),
        (
            json!({"assistant_id": silent, "additional_instructions": "Say hello."}),
            200,
        ),
        (
            json!({"assistant_id": silent, "additional_messages": [message]}),
            200,
        ),
    ];
    let check = |reply: &Reply, status: u16, what: &str| {
        assert_eq!(reply.status, status, "{what}: {}", reply.body);
        if status == 400 {
            let error = json!({"message": TEXT, "type": "invalid_request_error", "param": null,
                               "code": "invalid_thread"});
            assert_eq!(reply.body["error"], error, "{what}");
        }
    };
    for (body, status) in cases {
        let thread = id(&client.post("/threads", json!({})).await);
        let made = post(&client, &format!("/threads/{thread}/runs"), &body).await;
        check(&made, status, &body.to_string());
    }
    let threads = client.list("/threads").await.len();
    let cases = [
        (json!({"assistant_id": silent}), 400),
        (
            json!({"assistant_id": silent, "thread": {"messages": []}}),
            400,
        ),
        (json!({"assistant_id": instructed}), 200),
        (
            json!({"assistant_id": silent, "thread": {"messages": [message]}}),
            200,
        ),
    ];
    for (body, status) in cases {
        let made = post(&client, "/threads/runs", &body).await;
        check(&made, status, &body.to_string());
    }
    let made = client.list("/threads").await.len() - threads;
    assert_eq!(made, 2, "a refused run leaves no thread");
    let gone = post(
        &client,
        "/threads/thread_none/runs",
        &json!({"assistant_id": silent}),
    )
    .await;
    assert_eq!(gone.status, 404, "{}", gone.body);
}

#[tokio::test]
async fn files_that_their_tool_cannot_read_are_refused_with_the_message() {
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01";
    let (_db, _server, client) = server().await;
    let assistant = client.create_assistant("hello").await;
    let thread = client.create_thread("Hello?").await;
    let runs = format!("/threads/{thread}/runs");
    let zip = [b"PK\x03\x04".as_slice(), &[0; 22], b"notes.txt"].concat();
    let docx = [b"PK\x03\x04".as_slice(), &[0; 22], b"word/document.xml"].concat();
    let cases: [(&str, &[u8], &str, Option<&str>); 9] = [
        (
            "a.png",
            PNG,
            "file_search",
            Some("[.png] are not supported for retrieval."),
        ),
        (
            "a.zip",
            &zip,
            "file_search",
            Some("[.zip] are not supported for retrieval."),
        ),
        (
            "a.txt",
            PNG,
            "file_search",
            Some("[.txt] are not supported for retrieval."),
        ),
        ("a.docx", &docx, "file_search", None),
        ("a.csv", b"a,b\n1,2\n", "file_search", None),
        ("a.unknown", b"plain text", "file_search", None),
        ("a", b"plain text", "file_search", None),
        ("a.png", PNG, "code_interpreter", None),
        ("a.txt", b"", "file_search", None),
    ];
    for (name, content, tool, refusal) in cases {
        let file = client.upload(name, content).await;
        let attachments = json!([{"file_id": file["id"], "tools": [{"type": tool}]}]);
        let message = json!({"role": "user", "content": "?", "attachments": attachments});
        check_message(
            &client,
            &assistant,
            &runs,
            message,
            refusal.map(|text| (text, "file_ids")),
        )
        .await;
    }
    let picture = [
        (
            "a.txt",
            b"plain text".as_slice(),
            Some("[.txt] are not supported for image_file."),
        ),
        (
            "a.png",
            b"",
            Some("[.png] are not supported for image_file."),
        ),
        ("a.png", PNG, None),
        ("a", b"RIFF\x01\0\0\0WEBPVP8 ", None),
    ];
    for (name, content, refusal) in picture {
        let file = client.upload(name, content).await;
        let part = json!({"type": "image_file", "image_file": {"file_id": file["id"]}});
        let message = json!({"role": "user", "content": [part]});
        check_message(
            &client,
            &assistant,
            &runs,
            message,
            refusal.map(|text| (text, "content")),
        )
        .await;
    }
}

/// Sends a message through every endpoint that accepts messages, and checks that all agree.
async fn check_message(
    client: &Client,
    assistant: &str,
    runs: &str,
    message: Value,
    refusal: Option<(&str, &str)>,
) {
    let thread = json!({"messages": [message]});
    let messages = format!("/threads/{}/messages", client.create_thread("Hello?").await);
    let requests = [
        (messages.as_str(), message.clone()),
        ("/threads", thread.clone()),
        (
            "/threads/runs",
            json!({"assistant_id": assistant, "thread": thread}),
        ),
        (
            runs,
            json!({"assistant_id": assistant, "additional_messages": [message]}),
        ),
    ];
    for (path, body) in requests {
        let answer = post(client, path, &body).await;
        match refusal {
            None => assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body),
            Some((text, param)) => {
                assert_eq!(answer.status, 400, "{path} {body}: {}", answer.body);
                let error = &answer.body["error"];
                let message = error["message"].as_str().unwrap_or_default();
                assert!(message.contains(text), "{path} {body}: {error}");
                assert_eq!(
                    (&error["param"], &error["code"]),
                    (&json!(param), &json!("unsupported_file"))
                );
            }
        }
        if path == runs && answer.status == 200 {
            let thread = answer.body["thread_id"]
                .as_str()
                .expect("a run has a thread");
            client
                .wait_for_status(thread, &id(&answer.body), &["completed", "failed"])
                .await;
        }
    }
}

async fn metric(client: &Client, name: &str) -> f64 {
    let sent = client.request(Method::GET, "//metrics").send().await;
    let text = sent.expect("the server answers").text().await;
    let text = text.expect("metrics are UTF-8");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |number| number.parse().expect("the value is a number"))
}

/// The server's peak resident memory in bytes.
fn peak_memory(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("the server is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: usize = kilobytes
        .and_then(|text| text.parse().ok())
        .expect("Linux has /proc/self/status");
    kilobytes << 10
}

/// The size in bytes of the bodies of [`large_bodies`].
const LARGE_BODY: usize = 8 << 20;

/// What a body has, the path that it is sent to, how it is built, and the expected status.
type LargeBody = (&'static str, &'static str, fn() -> String, u16);

fn large_bodies() -> [LargeBody; 14] {
    fn repeat(text: &str, part: &str, end: &str) -> String {
        [text, &part.repeat(LARGE_BODY / part.len()), end].concat()
    }
    fn wide() -> String {
        let mut text = String::from("{\"model\":\"m\"");
        let mut n = 0;
        while text.len() < LARGE_BODY {
            write!(text, ",\"x{n}\":0").expect("writing to a string cannot fail");
            n += 1;
        }
        text + "}"
    }
    fn messages() -> String {
        let message = json!({"role": "user", "content": "x".repeat(200_000)}).to_string();
        let head = format!("{{\"messages\":[{message}");
        repeat(&head, &format!(",{message}"), "]}")
    }
    [
        ("long messages", "/threads", messages, 200),
        (
            "tokens to embed",
            "/embeddings",
            || repeat("{\"model\":\"m\",\"input\":[0", ",0", "]}"),
            400,
        ),
        (
            "an unknown array",
            "/threads",
            || repeat("{\"x\":[0", ",0", "]}"),
            400,
        ),
        (
            "messages",
            "/threads",
            || repeat("{\"messages\":[0", ",0", "]}"),
            400,
        ),
        (
            "empty messages",
            "/threads",
            || repeat("{\"messages\":[{}", ",{}", "]}"),
            400,
        ),
        (
            "metadata",
            "/threads",
            || repeat("{\"metadata\":{\"x\":[0", ",0", "]}}"),
            400,
        ),
        ("unknown fields", "/assistants", wide, 400),
        (
            "tools",
            "/assistants",
            || repeat("{\"model\":\"m\",\"tools\":[0", ",0", "]}"),
            400,
        ),
        (
            "parameters",
            "/assistants",
            || {
                let head = "{\"model\":\"m\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"x\":[0";
                repeat(head, ",0", "]}}}]}")
            },
            400,
        ),
        (
            "a schema",
            "/assistants",
            || {
                let head = "{\"model\":\"m\",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"s\",\"schema\":{\"x\":[0";
                repeat(head, ",0", "]}}}}")
            },
            400,
        ),
        (
            "a long string",
            "/threads",
            || repeat("{\"x\":\"", "long", "\"}"),
            400,
        ),
        (
            "a long name",
            "/assistants",
            || repeat("{\"model\":\"", "\\n\\u00e9", "\"}"),
            400,
        ),
        (
            "nested objects",
            "/threads",
            || repeat("{\"x\":[{}", ",{\"a\":{\"b\":{}}}", "]}"),
            400,
        ),
        (
            "nested arrays",
            "/threads",
            || repeat("{\"x\":", "[", ""),
            400,
        ),
    ]
}

#[tokio::test]
async fn a_body_takes_at_most_four_times_its_size_in_memory() {
    // An allowance for the tree of free-form JSON and for the handling of a request.
    const BESIDES: usize = 48 << 20;
    let (_db, server, client) = server().await;
    client.create_thread("Hello?").await;
    let before = peak_memory(&server);
    for (what, path, body, status) in large_bodies() {
        let request = json_request(&client, path).body(body());
        let answer = send_request(request).await.expect("the server answers");
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        let more = peak_memory(&server) - before;
        assert!(
            more <= 4 * LARGE_BODY + BESIDES,
            "{what}: {} MiB more",
            more >> 20
        );
    }
}

#[tokio::test]
async fn bodies_beyond_the_memory_for_them_wait_and_are_then_refused() {
    let db = Db::new().await;
    let server = Server::start(&db, &[("ASSISTD_MAX_BODY_MEMORY", "4MiB")]).await;
    let client = server.client();
    // An unfinished body that holds more than half of the budget.
    #[expect(clippy::disallowed_methods, reason = "holds the body of one request")]
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<String>();
    let pieces = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let body = Body::wrap_stream(pieces.map(Ok::<_, std::io::Error>));
    let request = json_request(&client, "/threads").body(body);
    let text = "x".repeat(600_000);
    let sent = sender.send(format!("{{\"x\":\"{text}"));
    sent.expect("the body is open");
    let first = tokio::spawn(send_request(request));
    eventually("the share of the first body", || async {
        let held = metric(&client, "assistd_body_memory_bytes").await;
        (held > 2_300_000.0).then_some(())
    })
    .await;
    let refused = post(&client, "/threads", &json!({"x": text})).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    sender.send("\"}".to_owned()).expect("the body is open");
    drop(sender);
    let first = first.await.expect("the task does not panic");
    let first = first.expect("the server answers");
    let code = &first.body["error"]["code"];
    assert_eq!(code, "unknown_parameter", "{}", first.body);

    // The budget is released: more than its total passes, sequentially and concurrently.
    let body = json!({"x": "x".repeat(2_000_000)});
    let many = (0..6).map(|_| post(&client, "/threads", &body));
    for answer in with_timeout("all answers", join_all(many)).await {
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
}
