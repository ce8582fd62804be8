//! The `assistd webhooks` commands.

use std::process::Command;

use assistd::domain::webhook::SigningSecret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cluster::Db;
use crate::process::{assistd, output, text};
use crate::server::Server;
use crate::webhook_receiver::{ALLOW_PRIVATE_ADDRESSES, WebhookReceiver};

/// Runs the command on a database; whether it succeeded, its standard output, and all its output.
async fn webhooks(db: &Db, arguments: &[&str]) -> (bool, String, String) {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let mut command: Command = assistd(folder.path());
    command
        .env("DATABASE_URL", &db.url)
        .arg("webhooks")
        .args(arguments);
    let run = tokio::task::spawn_blocking(move || output(&mut command));
    let output = run.await.expect("the command does not panic");
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success(), answer, text(&output))
}

/// Parses the secret in a command's output.
fn secret(answer: &str) -> SigningSecret {
    let key = answer
        .strip_prefix("whsec_")
        .expect("a secret alone is printed");
    let key = STANDARD.decode(key).expect("the value is Base64");
    assert_eq!(key.len(), 32);
    SigningSecret::from_bytes(key)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_added_tried_given_another_secret_and_removed() {
    let db = Db::new().await;
    let _server = Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await;
    let receiver = WebhookReceiver::start().await;
    let add = ["add", "--project", "acme", "--url", &receiver.url];
    let events = ["--events", "thread.run.completed,thread.run.failed"];
    let (done, answer, printed) = webhooks(&db, &[&add[..], &events].concat()).await;
    assert!(done, "{printed}");
    let old = secret(&answer);

    let (done, listed, printed) = webhooks(&db, &["list", "--project", "acme"]).await;
    assert!(done, "{printed}");
    let row = listed.lines().nth(1).expect("there is one endpoint");
    for cell in [
        "acme",
        &receiver.url,
        "thread.run.completed,thread.run.failed",
        "on",
    ] {
        assert!(row.contains(cell), "{listed}");
    }
    assert!(!printed.contains(&answer), "secrets are shown once");
    let (done, others, _) = webhooks(&db, &["list", "--project", "other"]).await;
    assert!(done && others.is_empty(), "{others}");
    let endpoint = row
        .split_whitespace()
        .next()
        .expect("the first column is the id");

    let (done, answer, printed) = webhooks(&db, &["rotate", endpoint]).await;
    assert!(done, "{printed}");
    let new = secret(&answer);

    let trial = async { webhooks(&db, &["test", endpoint]).await };
    let taken = async {
        let post = receiver.next_delivery().await;
        assert_eq!(post.event["type"], "webhook.test");
        assert_eq!(post.event["data"]["id"], endpoint);
        assert_eq!((post.signatures_by(&old), post.signatures_by(&new)), (1, 1));
        post.answer(204);
    };
    let ((done, _, printed), ()) = tokio::join!(trial, taken);
    assert!(
        done && printed.contains("accepted the test event"),
        "{printed}"
    );
    let refused = async { receiver.next_delivery().await.answer(500) };
    let trial = async { webhooks(&db, &["test", endpoint]).await };
    let ((done, _, printed), ()) = tokio::join!(trial, refused);
    assert!(!done && printed.contains("it answered 500"), "{printed}");

    let (done, _, printed) = webhooks(&db, &["remove", endpoint]).await;
    assert!(done, "{printed}");
    let (done, _, printed) = webhooks(&db, &["remove", endpoint]).await;
    assert!(!done && printed.contains("not found"), "{printed}");
    let (done, listed, _) = webhooks(&db, &["list"]).await;
    assert!(done && listed.is_empty(), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_posted_to_or_told_is_refused_with_a_reason() {
    let db = Db::new().await;
    for (url, events, reason) in [
        ("https://169.254.169.254/latest", None, "metadata service"),
        ("https://me:secret@example.com/", None, "a user or password"),
        ("ftp://example.com/", None, "expected an https:// URL"),
        (
            "https://example.com/",
            Some("run.completed"),
            "thread.run.completed",
        ),
    ] {
        let mut arguments = vec!["add", "--project", "acme", "--url", url];
        arguments.extend(events.into_iter().flat_map(|events| ["--events", events]));
        let (done, answer, printed) = webhooks(&db, &arguments).await;
        assert!(!done && answer.is_empty(), "{url}: {answer}");
        assert!(
            printed.contains(reason) && !printed.contains("me:secret"),
            "{printed}"
        );
    }
    let (done, _, printed) = webhooks(&db, &["list"]).await;
    assert!(
        done && printed.contains("There are no endpoints"),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_events_may_go_is_what_the_running_server_says() {
    let db = Db::new().await;
    let add = [
        "add",
        "--project",
        "acme",
        "--url",
        "http://127.0.0.1:9/hook",
    ];
    let (done, _, printed) = webhooks(&db, &add).await;
    assert!(done, "the server's setting is not known here: {printed}");
    let warning = "only if ASSISTD_WEBHOOK_ALLOW_PRIVATE=true is set for the server itself";
    assert!(printed.contains(warning), "{printed}");
    let (_, listed, _) = webhooks(&db, &["list"]).await;
    let row = listed.lines().nth(1).expect("there is one endpoint");
    let endpoint = row
        .split_whitespace()
        .next()
        .expect("the first column is the id");

    let (done, _, printed) = webhooks(&db, &["test", endpoint]).await;
    assert!(
        !done && printed.contains("no server claimed the test event"),
        "{printed}"
    );

    let server = Server::start(&db, &[]).await;
    let (done, _, printed) = webhooks(&db, &["test", endpoint]).await;
    assert!(!done, "{printed}");
    let reason =
        "the server did not deliver the test event: plain http:// is for private networks only";
    assert!(printed.contains(reason), "{printed}");
    let log = server.log();
    let warned = log
        .lines()
        .any(|line| line.contains("WARN") && line.contains("plain http://"));
    assert!(warned, "{log}");

    let (done, _, printed) = webhooks(
        &db,
        &["add", "--project", "acme", "--url", "https://example.com/"],
    )
    .await;
    assert!(done && !printed.contains(warning), "{printed}");
}
