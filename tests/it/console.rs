//! The files of the console. `tests/sdk/console` drives its pages in a browser.

use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};

use crate::cluster::Db;
use crate::server::Server;

const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    let http = reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::none());
    let http = http
        .build()
        .expect("the default TLS configuration is valid");
    let mut request = http.get(format!("{}{path}", server.origin));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("the server answers")
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name).map(|value| value.to_str());
    value.and_then(Result::ok).unwrap_or_default()
}

#[tokio::test]
async fn a_browser_at_the_root_is_led_to_the_console_without_a_key() {
    let db = Db::new().await;
    let server = Server::start(&db, &[("ASSISTD_API_KEYS", "alpha:sk-of-alpha")]).await;
    let root = get(&server, "/", &[("accept", BROWSER)]).await;
    assert_eq!(root.status(), StatusCode::SEE_OTHER);
    assert_eq!(header(&root, "location"), "/console");
    assert_eq!(header(&root, "vary"), "accept");
    let program = get(&server, "/", &[("accept", "application/json")]).await;
    assert_eq!(program.status(), StatusCode::NOT_FOUND);
    // Every view has an address, which opens the same page.
    for path in [
        "/console",
        "/console/runs/run_1",
        "/console/threads?metadata=a%3Db",
    ] {
        let page = get(&server, path, &[("accept", BROWSER)]).await;
        assert_eq!(page.status(), StatusCode::OK, "{path}");
        assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
        let text = page.text().await.expect("the page is text");
        assert!(text.contains("/console/app.js"), "{path}: {text}");
    }
}

#[tokio::test]
async fn the_pages_may_run_nothing_but_their_own_scripts() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    for path in ["/console", "/console/app.js", "/console/style.css"] {
        let file = get(&server, path, &[]).await;
        assert_eq!(file.status(), StatusCode::OK, "{path}");
        let policy = header(&file, "content-security-policy");
        for rule in [
            "default-src 'none'",
            "script-src 'self';",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ] {
            assert!(policy.contains(rule), "{path}: {rule} is not in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header(&file, "x-content-type-options"), "nosniff");
        assert_eq!(header(&file, "referrer-policy"), "no-referrer");
    }
    let script = get(&server, "/console/vendor/preact.js", &[]).await;
    assert_eq!(
        header(&script, "content-type"),
        "text/javascript; charset=utf-8"
    );
}

#[tokio::test]
async fn a_file_that_the_browser_has_is_not_sent_again() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let first = get(&server, "/console/app.js", &[]).await;
    assert_eq!(header(&first, "cache-control"), "no-cache");
    let tag = header(&first, "etag").to_owned();
    assert!(tag.len() > 10, "{tag}");
    let again = get(&server, "/console/app.js", &[("if-none-match", &tag)]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(again.text().await.expect("no body"), "");
    let other = get(&server, "/console/style.css", &[("if-none-match", &tag)]).await;
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test]
async fn nothing_but_files_of_the_console_is_served() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    for path in [
        "/console/none.js",
        "/console/../Cargo.toml",
        "/console/%2e%2e/Cargo.toml",
        "/console/..%2fCargo.toml",
        "/console/%2e%2e%2fCargo.toml",
        "/console//etc/passwd.txt",
        "/consoles",
    ] {
        let reply = get(&server, path, &[]).await;
        assert_eq!(reply.status(), StatusCode::NOT_FOUND, "{path}");
    }
}
