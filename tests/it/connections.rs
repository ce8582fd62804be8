//! Slow clients, connection limits, TLS and security headers.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::client::{Client, Events, send_request};
use crate::cluster::Db;
use crate::process::{assistd, output, text};
use crate::server::Server;
use crate::{eventually, with_timeout};

/// A timeout that tests wait for.
const SHORT: &str = "400ms";
/// A timeout that no test reaches.
const LONG: &str = "10m";

/// Opens a connection and sends raw bytes on it.
async fn send_raw(server: &Server, text: &str) -> TcpStream {
    let address = server.origin.split_once("://");
    let (_, address) = address.expect("an origin has a scheme");
    let socket = TcpSocket::new_v4().expect("the system has sockets");
    // The default receive buffer would hold tens of megabytes for a client that does not read.
    let held = socket.set_recv_buffer_size(64 << 10);
    held.expect("buffers may be small");
    let address = address.parse().expect("the address is valid");
    let stream = socket.connect(address).await;
    let mut stream = stream.expect("the server accepts");
    stream
        .write_all(text.as_bytes())
        .await
        .expect("the server is listening");
    stream
}

/// Reads until the server closes the connection.
async fn read_until_closed(mut stream: TcpStream) -> String {
    let mut received = Vec::new();
    // A reset closes the connection as well.
    let _ = with_timeout(
        "the end of the connection",
        stream.read_to_end(&mut received),
    )
    .await;
    String::from_utf8_lossy(&received).into_owned()
}

/// Sends a byte every 20 ms until the server closes the connection; everything received.
async fn send_slowly(mut stream: TcpStream) -> String {
    let mut received = Vec::new();
    let started = Instant::now();
    loop {
        assert!(
            started.elapsed() < crate::TIMEOUT,
            "the server never closes the connection"
        );
        let mut piece = [0; 4096];
        let wait = Duration::from_millis(20);
        match tokio::time::timeout(wait, stream.read(&mut piece)).await {
            Err(_) => drop(stream.write_all(b"x").await),
            Ok(Ok(0) | Err(_)) => return String::from_utf8_lossy(&received).into_owned(),
            Ok(Ok(bytes)) => received.extend_from_slice(&piece[..bytes]),
        }
    }
}

async fn open_connections(client: &Client) -> usize {
    let request = client.request(Method::GET, "//metrics");
    let metrics = request.send().await.expect("the server answers").text();
    let metrics = metrics.await.expect("metrics are UTF-8");
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("assistd_connections "));
    let number = line.expect("the server exports the metric").parse();
    number.expect("a gauge is a number")
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection_and_so_does_silence() {
    let db = Db::new().await;
    let server = Server::start(&db, &[("ASSISTD_IDLE_TIMEOUT", SHORT)]).await;
    let silent = send_raw(&server, "").await;
    let slow = send_raw(
        &server,
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ",
    )
    .await;
    let idle = send_raw(&server, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let (silent, slow, idle) = tokio::join!(
        read_until_closed(silent),
        send_slowly(slow),
        read_until_closed(idle)
    );
    assert_eq!(silent, "");
    assert!(!slow.contains("200 OK"), "{slow}");
    assert_eq!(idle.matches("200 OK").count(), 1, "{idle}");

    let large = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}",
        "x".repeat(100_000)
    );
    let large = read_until_closed(send_raw(&server, &large).await).await;
    assert!(
        large.is_empty() || large.starts_with("HTTP/1.1 431"),
        "{large}"
    );
}

#[tokio::test]
async fn a_body_that_only_drips_is_refused_in_the_envelope() {
    let db = Db::new().await;
    let server = Server::start(&db, &[("ASSISTD_BODY_TIMEOUT", SHORT)]).await;
    let head = |path: &str, kind: &str| {
        format!(
            "POST /v1/{path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer any-key\r\n\
             content-type: {kind}\r\ncontent-length: 100000\r\n\r\n"
        )
    };
    let form = "multipart/form-data; boundary=edge";
    let field = "--edge\r\ncontent-disposition: form-data; name=";
    let requests = [
        ("JSON", head("threads", "application/json") + "{"),
        (
            "a field of a form",
            head("files", form) + field + "\"purpose\"\r\n\r\n",
        ),
        (
            "a file",
            head("files", form) + field + "\"file\"; filename=\"a.txt\"\r\n\r\n",
        ),
    ];
    for (what, request) in requests {
        let answer = send_slowly(send_raw(&server, &request).await).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{what}: {answer}");
        assert!(
            answer.contains("\"type\":\"invalid_request_error\""),
            "{what}: {answer}"
        );
        assert!(answer.contains("arrived too slowly"), "{what}: {answer}");
    }
    let files = server.client().list("/files").await;
    assert!(files.is_empty(), "{files:?}");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_left() {
    let db = Db::new().await;
    let server = Server::start(&db, &[("ASSISTD_READER_TIMEOUT", SHORT)]).await;
    let client = server.client();
    // More than the socket buffers hold.
    let size = 32 << 20;
    let file = client.upload("large.bin", vec![b'x'; size]).await;
    let path = file["id"].as_str().expect("an id is a string");
    let request = format!(
        "GET /v1/files/{path}/content HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer any-key\r\n\r\n"
    );
    let lazy = send_raw(&server, &request).await;
    // The server has accepted the connection and started its response.
    let answered = with_timeout("the beginning of the answer", lazy.readable()).await;
    answered.expect("the connection is open");
    eventually("only our own connection is left", || async {
        (open_connections(&client).await == 1).then_some(())
    })
    .await;
    let received = read_until_closed(lazy).await;
    assert!(received.starts_with("HTTP/1.1 200"), "{received:.100}");
    assert!(
        received.len() < size,
        "received all {} bytes",
        received.len()
    );
}

#[tokio::test]
async fn more_connections_than_there_may_be_wait_for_their_turn() {
    let db = Db::new().await;
    let settings = [
        ("ASSISTD_MAX_CONNECTIONS", "20"),
        ("ASSISTD_IDLE_TIMEOUT", LONG),
    ];
    let server = Server::start(&db, &settings).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(send_raw(&server, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n").await);
    }
    let waiting = send_raw(&server, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let waiting = tokio::spawn(read_until_closed(waiting));
    let mut first = open.remove(0);
    first
        .write_all(b"\r\n")
        .await
        .expect("the connection is open");
    let mut piece = [0; 4096];
    let read = with_timeout("an answer", first.read(&mut piece)).await;
    assert!(read.is_ok_and(|bytes| bytes > 0));
    assert!(!waiting.is_finished(), "the limit was exceeded");
    drop(first);
    // At the limit, connections are closed after their response.
    let waiting = with_timeout("the turn of the one that waits", waiting).await;
    let waiting = waiting.expect("the task does not panic");
    assert!(waiting.starts_with("HTTP/1.1 200"), "{waiting}");
    assert!(waiting.contains("connection: close"), "{waiting}");
}

#[tokio::test]
async fn a_client_that_ends_its_side_after_the_request_gets_its_answer() {
    let server = Server::start(&Db::new().await, &[]).await;
    let request = "POST /v1/threads HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key\r\n\
                   Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let mut stream = send_raw(&server, request).await;
    stream.shutdown().await.expect("the connection is open");
    let received = read_until_closed(stream).await;
    assert!(received.starts_with("HTTP/1.1 200"), "{received}");
    assert!(received.contains("\"object\":\"thread\""), "{received}");
}

#[tokio::test]
async fn every_answer_keeps_browsers_from_harm() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let client = server.client();
    let page = b"<script>alert(1)</script>";
    let file = client.upload("page.html", page).await;
    let content = format!(
        "/files/{}/content",
        file["id"].as_str().expect("an id is a string")
    );
    let thread = client.create_thread("Hello?").await;
    let assistant = client.create_assistant("default").await;
    let runs = format!("/threads/{thread}/runs");
    let body = json!({"assistant_id": assistant, "stream": true});
    let requests = [
        (
            "JSON",
            client.request(Method::GET, "/assistants"),
            "no-store",
        ),
        ("a 404", client.request(Method::GET, "/nothing"), "no-store"),
        (
            "a 405",
            client.request(Method::PUT, "/assistants"),
            "no-store",
        ),
        (
            "metrics",
            client.request(Method::GET, "//metrics"),
            "no-store",
        ),
        ("a file", client.request(Method::GET, &content), "no-store"),
        (
            "a stream",
            client.request(Method::POST, &runs).json(&body),
            "no-cache",
        ),
    ];
    for (what, request, cache) in requests {
        let response = with_timeout("an answer", request.send())
            .await
            .expect("the server answers");
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map_or("", |value| value.to_str().expect("the value is a string"))
        };
        assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{what}");
        assert_eq!(header("cache-control"), cache, "{what}");
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{what}: {policy}");
        if what == "a file" {
            assert_eq!(header("content-type"), "application/octet-stream");
            assert!(header("content-disposition").starts_with("attachment"));
        }
    }
}

#[tokio::test]
async fn a_web_page_cannot_use_a_server_without_keys() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let get = async |name: &'static str, value: &'static str| {
        let request = server.client().request(Method::GET, "/assistants");
        let reply = send_request(request.header(name, value))
            .await
            .expect("the server answers");
        (reply.status, reply.body["error"]["type"].clone())
    };
    let refused = (403, Value::from("invalid_request_error"));
    assert_eq!(get("host", "evil.example").await, refused);
    assert_eq!(get("origin", "https://evil.example").await, refused);
    assert_eq!(get("host", "localhost:8000").await.0, 200);

    // With API keys, the host does not matter.
    let output = output(assistd(&server.folder).env("DATABASE_URL", &db.url).args([
        "keys",
        "create",
        "--project",
        "acme",
    ]));
    let key = String::from_utf8(output.stdout).expect("a key is UTF-8");
    let client = server.client_with_key(key.trim());
    eventually("the key is known", || async {
        let request = client.request(Method::GET, "/assistants");
        let reply = send_request(request.header("host", "api.example")).await;
        (reply.expect("the server answers").status == 200).then_some(())
    })
    .await;
}

/// A self-signed certificate for localhost, valid until 2126, and its key.
macro_rules! certificate {
    ($name:literal) => {
        [
            include_str!(concat!("certificates/", $name, ".crt")),
            include_str!(concat!("certificates/", $name, ".key")),
        ]
    };
}

/// A client that trusts this certificate only.
fn trusting(certificate: &str) -> reqwest::Client {
    let certificate = reqwest::Certificate::from_pem(certificate.as_bytes());
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([certificate.expect("the certificate is valid")])
        .build();
    client.expect("the TLS configuration is valid")
}

#[tokio::test]
async fn a_certificate_encrypts_and_is_replaced_without_a_restart() {
    let [first, second] = [certificate!("first"), certificate!("second")];
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let (crt, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let put = |[certificate, private]: [&str; 2]| {
        std::fs::write(&crt, certificate).expect("the temporary folder is writable");
        std::fs::write(&key, private).expect("the temporary folder is writable");
    };
    put(first);
    let db = Db::new().await;
    let path = |path: &std::path::Path| path.to_str().expect("the value is a string").to_owned();
    let (crt_path, key_path) = (path(&crt), path(&key));
    let settings = [
        ("ASSISTD_TLS_CERT", &*crt_path),
        ("ASSISTD_TLS_KEY", &*key_path),
    ];
    let server = Server::start(&db, &settings).await;
    assert!(server.origin.starts_with("https://"), "{}", server.origin);

    let (old, new) = (trusting(first[0]), trusting(second[0]));
    let origin = &server.origin;
    let health = |client: &reqwest::Client| {
        let request = client.get(format!("{origin}/healthz"));
        async {
            with_timeout("an answer", request.send())
                .await
                .map(|answer| answer.status().as_u16())
        }
    };
    assert_eq!(health(&old).await.ok(), Some(200));
    assert!(health(&new).await.is_err(), "another certificate is in use");

    let client = Client::with_http(old.clone(), origin, "any-key");
    let thread = client.create_thread("Hello?").await;
    let assistant = client.create_assistant("default").await;
    let events: Vec<_> = Events::read_to_end(client.stream_run(&thread, &assistant).await).await;
    assert!(
        events
            .iter()
            .any(|event| event.name == "thread.run.completed")
    );

    // First only the new certificate, which does not fit the key, then both.
    std::fs::write(&crt, second[0]).expect("the temporary folder is writable");
    kill(server.pid(), Signal::SIGHUP).expect("the server is running");
    eventually("a remark on the certificate", || async {
        server
            .log()
            .contains("keeping the current certificate")
            .then_some(())
    })
    .await;
    assert_eq!(health(&trusting(first[0])).await.ok(), Some(200));
    put(second);
    kill(server.pid(), Signal::SIGHUP).expect("the server is running");
    eventually("the new certificate", || async { health(&new).await.ok() }).await;
    assert_eq!(
        health(&old).await.ok(),
        Some(200),
        "open connections are kept"
    );
    assert!(health(&trusting(first[0])).await.is_err());

    let address = origin.trim_start_matches("https://");
    let plain: Result<Value, _> = async {
        reqwest::get(format!("http://{address}/healthz"))
            .await?
            .json()
            .await
    }
    .await;
    assert!(plain.is_err(), "plain HTTP is refused");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_the_connection() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let place = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("the temporary folder is writable");
        path.to_str().expect("the value is a string").to_owned()
    };
    let [certificate, private] = certificate!("first");
    let settings = [
        ("ASSISTD_TLS_CERT", &*place("tls.crt", certificate)),
        ("ASSISTD_TLS_KEY", &*place("tls.key", private)),
        ("ASSISTD_IDLE_TIMEOUT", SHORT),
    ];
    let db = Db::new().await;
    let server = Server::start(&db, &settings).await;
    let silent = send_raw(&server, "").await;
    // A TLS handshake that stops after its first bytes.
    let slow = send_raw(&server, "\x16\x03\x01").await;
    let (silent, slow) = tokio::join!(read_until_closed(silent), read_until_closed(slow));
    assert_eq!([silent, slow], ["", ""]);
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let [certificate, _] = certificate!("first");
    let [_, key] = certificate!("second");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("the temporary folder is writable");
        path
    };
    let (crt, other_key) = (write("a.crt", certificate), write("b.key", key));
    let missing = folder.path().join("missing");
    let cases = [
        (&crt, None, "needs both"),
        (&crt, Some(&other_key), "cannot be used with the key"),
        (&crt, Some(&missing), "missing: "),
        (&other_key, Some(&other_key), "no certificate"),
        (&crt, Some(&crt), "no private key"),
    ];
    for (crt, key, expected) in cases {
        let mut command = assistd(&folder.path().join("data"));
        command.env("ASSISTD_TLS_CERT", crt);
        if let Some(key) = key {
            command.env("ASSISTD_TLS_KEY", key);
        }
        let refused = output(command.arg("serve"));
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused).contains(expected), "{}", text(&refused));
    }
}
