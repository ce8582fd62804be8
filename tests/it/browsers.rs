//! Cross-origin requests: listed origins are allowed on servers with API keys, hardly any without.
//! `tests/sdk/browser` repeats the important cases in a real browser.

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::client::{Client, Reply, send_request};
use crate::cluster::Db;
use crate::process;
use crate::server::Server;

const PAGE: &str = "https://app.example";
const KEY: &str = "sk-of-alpha";

async fn send(request: RequestBuilder, origin: &str) -> Reply {
    let request = request.header("origin", origin);
    send_request(request).await.expect("the server answers")
}

fn preflight(client: &Client, path: &str) -> RequestBuilder {
    client
        .request(Method::OPTIONS, path)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,openai-beta,x-stainless-retry-count",
        )
}

#[track_caller]
fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    let value = reply.headers.get(name).map(|value| value.to_str());
    value.and_then(Result::ok).unwrap_or_default()
}

async fn keyed(origins: &str) -> (Db, Server, Client) {
    let db = Db::new().await;
    let settings = [
        ("ASSISTD_API_KEYS", "alpha:sk-of-alpha"),
        ("ASSISTD_ADMIN_KEY", "key-of-the-operator"),
        ("ASSISTD_CORS_ORIGINS", origins),
    ];
    let server = Server::start(&db, &settings).await;
    let client = server.client_with_key(KEY);
    (db, server, client)
}

#[tokio::test]
async fn pages_of_listed_origins_may_call_every_path_and_read_every_answer() {
    let (_db, server, client) = keyed("http://localhost:3000,https://app.example").await;
    for path in [
        "/assistants",
        "/chat/completions",
        "/responses",
        "//openai/threads",
        "/none",
    ] {
        let reply = send(preflight(&client, path), PAGE).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert_eq!(
            header(&reply, "access-control-allow-origin"),
            PAGE,
            "{path}"
        );
        let methods = header(&reply, "access-control-allow-methods");
        assert_eq!(methods, "GET,POST,DELETE", "{path}");
        let headers = header(&reply, "access-control-allow-headers");
        assert!(headers.contains("x-stainless-retry-count"), "{headers}");
        assert!(
            !reply
                .headers
                .contains_key("access-control-allow-credentials")
        );
    }
    let stranger = server.client_with_key("sk-of-nobody");
    for (client, path, status) in [
        (&client, "/assistants", 200),
        (&client, "/assistants/asst_none", 404),
        (&client, "/nothing", 404),
        (&stranger, "/assistants", 401),
    ] {
        let read = send(client.request(Method::GET, path), PAGE).await;
        assert_eq!(read.status, status, "{path}");
        assert_eq!(header(&read, "access-control-allow-origin"), PAGE, "{path}");
        assert_eq!(
            header(&read, "access-control-expose-headers"),
            "*",
            "{path}"
        );
        assert!(header(&read, "vary").contains("origin"), "{path}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_read_nothing() {
    let (_db, _server, client) = keyed(PAGE).await;
    for origin in ["https://evil.example", "http://app.example", "null"] {
        let reply = send(preflight(&client, "/assistants"), origin).await;
        assert!(
            !reply.headers.contains_key("access-control-allow-origin"),
            "{origin}"
        );
        let read = send(client.request(Method::GET, "/assistants"), origin).await;
        assert!(
            !read.headers.contains_key("access-control-allow-origin"),
            "{origin}"
        );
    }
}

#[tokio::test]
async fn no_page_may_call_the_admin_api() {
    let (_db, _server, client) = keyed("*").await;
    let reply = send(preflight(&client, "/assistants"), PAGE).await;
    assert_eq!(header(&reply, "access-control-allow-origin"), PAGE);
    let reply = send(preflight(&client, "//admin/projects"), PAGE).await;
    assert!(!reply.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn without_the_setting_no_page_of_another_origin_may_call() {
    let (_db, _server, client) = keyed("").await;
    let reply = send(preflight(&client, "/assistants"), PAGE).await;
    assert_eq!(reply.status, 405);
    assert!(!reply.headers.contains_key("access-control-allow-origin"));
}

#[test]
fn what_is_no_origin_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    for origin in [
        "https://app.example/",
        "app.example",
        "https://*.app.example",
        "null",
    ] {
        let output =
            process::output(process::assistd(folder.path()).env("ASSISTD_CORS_ORIGINS", origin));
        assert!(!output.status.success(), "{origin}");
        let printed = process::text(&output);
        assert!(printed.contains("is not an origin"), "{origin}: {printed}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_creates_nothing_on_a_server_without_keys() {
    let db = Db::new().await;
    let server = Server::start(&db, &[("ASSISTD_CORS_ORIGINS", PAGE)]).await;
    let client = server.client();
    let assistant = json!({"model": "scripted/hello"}).to_string();
    let post = |media_type: &str| {
        client
            .request(Method::POST, "/assistants")
            .header("content-type", media_type)
            .body(assistant.clone())
    };
    for origin in [
        "http://203.0.113.7",
        "http://[2001:db8::7]",
        "http://intranet",
        "http://printer.local",
        "http://service.internal",
        "http://app.test",
        "https://evil.example",
        "file://",
        "null",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    ] {
        for media_type in ["text/plain", "application/json"] {
            let refused = send(post(media_type), origin).await;
            assert_eq!(refused.status, 403, "{origin}: {refused:?}");
        }
    }
    for site in ["cross-site", "same-site"] {
        let embedded = post("application/json").header("sec-fetch-site", site);
        let refused = send_request(embedded).await.expect("the server answers");
        assert_eq!(refused.status, 403, "{site}");
    }
    let renamed = post("application/json").header("host", "evil.example:8000");
    let refused = send_request(renamed).await.expect("the server answers");
    assert_eq!(refused.status, 403, "{refused:?}");
    for media_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let refused = send_request(post(media_type))
            .await
            .expect("the server answers");
        assert_eq!(refused.status, 415, "{refused:?}");
    }
    assert_eq!(client.list("/assistants").await, [json!(null); 0]);

    // Local pages, pages of listed origins, and clients that send no origin.
    for origin in ["http://localhost:3000", "http://[::1]:3000", PAGE] {
        let made = send(post("application/json"), origin).await;
        assert_eq!(made.status, 200, "{origin}: {made:?}");
    }
    client.create_assistant("hello").await;
    // A request without a body needs no media type.
    let thread = client.create_thread("Hello?").await;
    let deleted = client.request(Method::DELETE, &format!("/threads/{thread}"));
    let deleted = send_request(deleted).await.expect("the server answers");
    assert_eq!(deleted.status, 200);
}

#[tokio::test]
async fn with_keys_json_is_taken_under_any_media_type() {
    let (_db, _server, client) = keyed("").await;
    let post = client.request(Method::POST, "/assistants");
    let post = post.body(json!({"model": "scripted/hello"}).to_string());
    let made = send_request(post).await.expect("the server answers");
    assert_eq!(made.status, 200, "{made:?}");
}

#[tokio::test]
async fn without_a_console_a_browser_at_the_root_gets_a_page_and_a_program_the_404_of_any_path() {
    let db = Db::new().await;
    let server = Server::start(&db, &[("ASSISTD_CONSOLE", "false")]).await;
    let client = server.client();
    let get = |path: &str| client.request(Method::GET, path);
    let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
    let page = get("//").header("accept", browser).send().await;
    let page = page.expect("the server answers");
    assert_eq!(page.status(), 200);
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let policy = page.headers()["content-security-policy"].to_str();
    let policy = policy.expect("the value is a string").to_owned();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    let text = page.text().await.expect("the value is a string");
    assert!(text.contains(&format!("{}/v1", server.origin)), "{text}");
    assert!(text.contains("/openapi.json"), "{text}");

    let forged = get("//").header("accept", browser).header("host", "a\"b");
    let forged = forged
        .send()
        .await
        .expect("the server answers")
        .text()
        .await;
    assert!(!forged.expect("the value is a string").contains("a\"b"));
    for (path, accept) in [
        ("//", "*/*"),
        ("//", "application/json"),
        ("//nothing", browser),
        ("//console", browser),
    ] {
        let read = send_request(get(path).header("accept", accept)).await;
        let read = read.expect("the server answers");
        assert_eq!(read.status, 404, "{path} {accept}");
        assert!(read.body["error"]["message"].is_string(), "{path} {accept}");
    }
}

#[tokio::test]
async fn clients_of_foundry_find_the_api_under_their_projects_path() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let client = server.client();
    let call = async |method: Method, path: &str, body: Option<serde_json::Value>| {
        let path = format!("//api/projects/demo{path}?api-version=v1");
        let request = client.request(method, &path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let reply = send_request(request).await.expect("the server answers");
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.body
    };
    let assistant = json!({"model": "scripted/hello"});
    let assistant = call(Method::POST, "/assistants", Some(assistant)).await;
    let messages = json!({"messages": [{"role": "user", "content": "Hello?"}]});
    let thread = call(Method::POST, "/threads", Some(messages)).await;
    let thread = thread["id"].as_str().expect("a thread has an id");
    let run = json!({"assistant_id": assistant["id"]});
    let run = call(Method::POST, &format!("/threads/{thread}/runs"), Some(run)).await;
    let run = run["id"].as_str().expect("a run has an id");
    client.wait_for_status(thread, run, &["completed"]).await;
    call(
        Method::GET,
        &format!("/threads/{thread}/runs/{run}/steps"),
        None,
    )
    .await;
    call(Method::GET, "/models/scripted/hello", None).await;
    call(Method::GET, "/files", None).await;
}
