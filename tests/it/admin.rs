//! The admin API and its commands: authorization, effects and audit log.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Reply, id};
use crate::cluster::{Db, cluster};
use crate::eventually;
use crate::process::{assistd, output, text};
use crate::server::Server;
use crate::webhook_receiver::{ALLOW_PRIVATE_ADDRESSES, WebhookReceiver};

const ADMIN_KEY: &str = "sk-admin-0123456789";

async fn start(db: &Db) -> (Server, Client) {
    let server = Server::start(db, &[("ASSISTD_ADMIN_KEY", ADMIN_KEY)]).await;
    let admin = server.client_with_key(ADMIN_KEY);
    (server, admin)
}

async fn send(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Reply {
    let sent = client.send(method, path, body).await;
    sent.expect("the server answers")
}

/// Creates a project; its id.
async fn project(admin: &Client, name: &str) -> String {
    id(&admin.post("//admin/projects", json!({"name": name})).await)
}

#[tokio::test]
async fn the_admin_api_opens_to_its_key_alone_and_this_to_nothing_else() {
    let db = Db::new().await;
    let (server, admin) = start(&db).await;
    // While no API key exists, the API accepts any key except the admin key.
    let anybody = server.client();
    assert_eq!(
        send(&anybody, Method::GET, "/assistants", None)
            .await
            .status,
        200
    );
    let refused = send(&admin, Method::GET, "/assistants", None).await;
    assert_eq!(refused.status, 401, "{refused:?}");

    let acme = project(&admin, "acme").await;
    let key = admin
        .post(&format!("//admin/projects/{acme}/keys"), json!({}))
        .await;
    let key_id = id(&key);
    let member = server.client_with_key(key["value"].as_str().expect("a new key is shown once"));
    let member = [member, server.client_with_key(""), server.client()];
    for (method, path) in [
        (Method::GET, "//admin/projects".to_owned()),
        (Method::POST, "//admin/projects".to_owned()),
        (Method::GET, format!("//admin/projects/{acme}")),
        (Method::POST, format!("//admin/projects/{acme}")),
        (Method::GET, format!("//admin/projects/{acme}/keys")),
        (Method::POST, format!("//admin/projects/{acme}/keys")),
        (
            Method::DELETE,
            format!("//admin/projects/{acme}/keys/{key_id}"),
        ),
        (Method::GET, "//admin/usage".to_owned()),
        (Method::GET, "//admin/audit_log".to_owned()),
        (Method::GET, "//admin/webhooks".to_owned()),
        (Method::POST, "//admin/webhooks/we_1/enable".to_owned()),
        (Method::GET, "//admin/webhooks/we_1/deliveries".to_owned()),
        (Method::POST, "//admin/webhooks/we_1/redeliver/1".to_owned()),
        (Method::GET, "//admin/health".to_owned()),
    ] {
        for member in &member {
            let refused = send(member, method.clone(), &path, Some(&json!({"name": "x"}))).await;
            assert_eq!(refused.status, 401, "{method} {path}: {refused:?}");
            assert_eq!(refused.body["error"]["code"], "invalid_api_key");
        }
    }
    let written: i64 = sqlx::query_scalar("select count(*) from audit_log")
        .fetch_one(&db.pool)
        .await
        .expect("the database answers");
    assert_eq!(written, 2, "the project and its key");

    let closed = Server::start(&db, &[]).await;
    let missing = closed.client_with_key(ADMIN_KEY);
    let missing = send(&missing, Method::GET, "//admin/projects", None).await;
    assert_eq!(missing.status, 404, "{missing:?}");
}

#[tokio::test]
async fn projects_are_made_changed_and_listed() {
    let db = Db::new().await;
    let (_server, admin) = start(&db).await;
    let limits = json!({"max_concurrent_runs": 2, "tokens_per_minute": 5_000_000_000_i64});
    let made = admin
        .post(
            "//admin/projects",
            json!({"name": "acme", "limits": limits}),
        )
        .await;
    let expected = json!({
        "max_concurrent_runs": 2, "requests_per_minute": null,
        "tokens_per_minute": 5_000_000_000_i64, "storage_bytes": null,
    });
    assert_eq!(
        [&made["name"], &made["limits"]],
        [&json!("acme"), &expected]
    );
    assert_eq!(made["object"], "project");

    let path = format!("//admin/projects/{}", id(&made));
    let changes = json!({"max_concurrent_runs": null, "storage_bytes": 9});
    let changed = admin
        .post(&path, json!({"name": "Acme Inc.", "limits": changes}))
        .await;
    let expected = json!({
        "max_concurrent_runs": null, "requests_per_minute": null,
        "tokens_per_minute": 5_000_000_000_i64, "storage_bytes": 9,
    });
    assert_eq!(changed["limits"], expected);
    assert_eq!(admin.get(&path).await, changed);
    // A change without an effect leaves no audit entry.
    assert_eq!(admin.post(&path, json!({})).await, changed);
    let written = admin.list("//admin/audit_log").await;
    assert_eq!(written.len(), 2, "made and changed once: {written:?}");

    // The oldest project is the one of servers without API keys.
    project(&admin, "other").await;
    let first = admin.get("//admin/projects?order=asc&limit=2").await;
    assert_eq!(first["has_more"], true);
    assert_eq!(first["data"][1], changed);
    let after = first["last_id"].as_str().expect("a page has a cursor");
    let rest = admin
        .get(&format!("//admin/projects?order=asc&after={after}"))
        .await;
    assert_eq!(rest["data"].as_array().map(Vec::len), Some(1), "{rest}");
    assert_eq!(rest["data"][0]["name"], "other");
}

#[tokio::test]
async fn requests_about_projects_that_make_no_sense_are_refused() {
    let db = Db::new().await;
    let (_server, admin) = start(&db).await;
    let path = format!("//admin/projects/{}", project(&admin, "acme").await);
    project(&admin, "other").await;
    for (method, path, body, status, param) in [
        (
            "POST",
            "//admin/projects",
            json!({"name": "other"}),
            400,
            "name",
        ),
        ("POST", &path, json!({"name": "other"}), 400, "name"),
        ("POST", "//admin/projects", json!({}), 400, "name"),
        (
            "POST",
            "//admin/projects",
            json!({"name": " "}),
            400,
            "name",
        ),
        (
            "POST",
            "//admin/projects",
            json!({"name": "x", "limit": {}}),
            400,
            "limit",
        ),
        (
            "POST",
            &path,
            json!({"limits": {"storage_bytes": 0}}),
            400,
            "limits.storage_bytes",
        ),
        (
            "POST",
            &path,
            json!({"limits": {"max_concurrent_runs": 1_i64 << 40}}),
            400,
            "limits.max_concurrent_runs",
        ),
        (
            "POST",
            &path,
            json!({"limits": {"runs": 1}}),
            400,
            "limits.runs",
        ),
        ("POST", "//admin/projects/proj_none", json!({}), 404, ""),
        ("GET", "//admin/projects/proj_none", json!({}), 404, ""),
        ("GET", "//admin/projects/proj_none/keys", json!({}), 404, ""),
        (
            "POST",
            "//admin/projects/proj_none/keys",
            json!({}),
            404,
            "",
        ),
        (
            "DELETE",
            "//admin/projects/proj_none/keys/key_none",
            json!({}),
            404,
            "",
        ),
        ("GET", "//admin/projects/acme", json!({}), 400, "project_id"),
    ] {
        let method: Method = method.parse().expect("the method is valid");
        let refused = send(&admin, method.clone(), path, Some(&body)).await;
        assert_eq!(
            refused.status, status,
            "{method} {path} {body}: {refused:?}"
        );
        let actual = refused.body["error"]["param"].as_str().unwrap_or_default();
        assert_eq!(actual, param, "{method} {path} {body}: {refused:?}");
    }
}

#[tokio::test]
async fn keys_are_shown_once_and_revoked_for_good() {
    let db = Db::new().await;
    let (server, admin) = start(&db).await;
    let acme = project(&admin, "acme").await;
    let other = project(&admin, "other").await;
    let keys = format!("//admin/projects/{acme}/keys");
    let made = admin.post(&keys, json!({"name": "web"})).await;
    let secret = made["value"].as_str().expect("a new key is shown once");
    let member = server.client_with_key(secret);
    assert_eq!(
        send(&member, Method::GET, "/assistants", None).await.status,
        200
    );

    let listed = admin.list(&keys).await;
    let [listed] = listed.as_slice() else {
        panic!("{listed:?}");
    };
    assert!(!listed.to_string().contains(secret), "{listed}");
    assert_eq!(
        [&listed["id"], &listed["name"]],
        [&made["id"], &json!("web")]
    );
    assert_eq!(listed["revoked_at"], Value::Null);

    let path = format!("{keys}/{}", id(&made));
    let foreign = path.replace(&acme, &other);
    assert_eq!(
        send(&admin, Method::DELETE, &foreign, None).await.status,
        404
    );
    for _ in 0..2 {
        let revoked = send(&admin, Method::DELETE, &path, None).await;
        assert_eq!(revoked.status, 200, "{revoked:?}");
        assert_eq!(revoked.body["deleted"], true);
    }
    assert!(admin.list(&keys).await[0]["revoked_at"].is_i64());
    eventually("the key is refused", || async {
        let reply = send(&member, Method::GET, "/assistants", None).await;
        (reply.status == 401).then_some(())
    })
    .await;

    let log = admin.list("//admin/audit_log").await;
    let acts: Vec<&str> = log
        .iter()
        .filter_map(|act| act["action"].as_str())
        .collect();
    let expected = [
        "project.created",
        "project.created",
        "api_key.created",
        "api_key.revoked",
    ];
    assert_eq!(acts, expected, "{log:#?}");
    for act in &log {
        assert_eq!(act["actor"], "admin_api:127.0.0.1", "{act}");
        assert!(!act.to_string().contains(secret), "{act}");
    }
    assert_eq!(log[3]["target"], made["id"]);
    let log = server.log();
    assert!(log.contains("api_key.revoked"), "{log}");
    assert!(
        !log.contains(secret) && !log.contains(ADMIN_KEY),
        "a key is logged"
    );
}

#[tokio::test]
async fn usage_can_be_asked_for_by_project_day_and_model() {
    let db = Db::new().await;
    let (server, admin) = start(&db).await;
    let mut runs = Vec::new();
    for name in ["acme", "other"] {
        let project = project(&admin, name).await;
        let keys = format!("//admin/projects/{project}/keys");
        let key = admin.post(&keys, json!({})).await;
        let member = server.client_with_key(key["value"].as_str().expect("a new key is shown"));
        let assistant = member.create_assistant("hello").await;
        let thread = member.create_thread("Hello?").await;
        let run = member.create_run(&thread, &assistant).await;
        runs.push(member.wait_for_status(&thread, &run, &["completed"]).await);
    }
    let all = admin.get("//admin/usage").await;
    assert_eq!(all["data"].as_array().map(Vec::len), Some(2), "{all}");
    assert_eq!(all["data"][1]["project_name"], "other");
    for (sum, run) in std::iter::zip(all["data"].as_array().expect("the value is a list"), &runs) {
        for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            assert_eq!(sum[count], run["usage"][count], "{sum}");
        }
        assert_eq!(
            [&sum["runs"], &sum["day"], &sum["model"]],
            [&json!(1), &Value::Null, &Value::Null]
        );
    }
    let one = admin
        .get("//admin/usage?project=other&group_by=day,model&from=2026-01-01")
        .await;
    assert_eq!(one["data"].as_array().map(Vec::len), Some(1), "{one}");
    assert_eq!(one["data"][0]["model"], "scripted/hello");
    assert!(one["data"][0]["day"].is_string(), "{one}");
    let past = admin
        .get("//admin/usage?from=2026-01-01&to=2026-01-31")
        .await;
    assert_eq!(past["data"], json!([]));
    for query in [
        "project=nobody",
        "group_by=hour",
        "from=yesterday",
        "from=2026-02-01&to=2026-01-01",
    ] {
        let refused = send(&admin, Method::GET, &format!("//admin/usage?{query}"), None).await;
        assert!([400, 404].contains(&refused.status), "{query}: {refused:?}");
    }
}

#[tokio::test]
async fn the_commands_do_the_same_and_are_written_down() {
    let db = Db::new().await;
    let folder = cluster().folder();
    let command = |arguments: &[&str]| -> Command {
        let mut command = assistd(&folder);
        command.env("DATABASE_URL", &db.url).args(arguments);
        command
    };
    let run = |arguments: &[&str]| {
        let done = output(&mut command(arguments));
        assert!(done.status.success(), "{arguments:?}: {}", text(&done));
        String::from_utf8(done.stdout).expect("answers are UTF-8")
    };
    let fails = |arguments: &[&str]| {
        let done = output(&mut command(arguments));
        assert!(!done.status.success(), "{arguments:?}: {}", text(&done));
        text(&done)
    };
    let project = run(&[
        "projects",
        "create",
        "acme",
        "--runs",
        "2",
        "--storage",
        "1MiB",
    ]);
    assert!(project.starts_with("proj_"), "{project}");
    run(&["keys", "create", "--project", "acme"]);
    run(&[
        "projects",
        "update",
        "acme",
        "--runs",
        "none",
        "--requests-per-minute",
        "60",
    ]);
    let listed = run(&["projects", "list"]);
    let row: Vec<&str> = listed
        .lines()
        .find(|line| line.contains("acme"))
        .expect("the project is listed")
        .split_whitespace()
        .collect();
    assert_eq!(
        row[row.len() - 4..],
        ["-", "60", "-", "1048576"],
        "{listed}"
    );
    assert!(run(&["usage", "--by", "day,model"]).starts_with("PROJECT"));
    assert!(fails(&["usage", "--project", "nobody"]).contains("project \"nobody\" not found"));
    assert!(fails(&["projects", "create", "acme"]).contains("already"));
    assert!(fails(&["projects", "update", "acme", "--runs", "0"]).contains("from 1"));

    let log = run(&["audit-log"]);
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::current());
    let user = user
        .expect("the database answers")
        .expect("the project has a name")
        .name;
    let acts: Vec<&str> = log.lines().skip(1).collect();
    assert_eq!(acts.len(), 3, "{log}");
    for (line, act) in std::iter::zip(
        acts,
        ["project.updated", "api_key.created", "project.created"],
    ) {
        assert!(line.contains(&format!("cli:{user}")), "{line}");
        assert!(line.contains(act), "{line}");
    }
    assert!(!log.contains("sk-assistd-\""), "{log}");
}

#[tokio::test]
async fn an_admin_key_may_lie_in_a_file_and_must_be_long() {
    let db = Db::new().await;
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let file = folder.path().join("admin-key");
    std::fs::write(&file, format!("{ADMIN_KEY}\n")).expect("the temporary folder is writable");
    let path = file.to_str().expect("temporary paths are UTF-8");
    let server = Server::start(&db, &[("ASSISTD_ADMIN_KEY_FILE", path)]).await;
    server
        .client_with_key(ADMIN_KEY)
        .get("//admin/projects")
        .await;

    std::fs::write(&file, "short").expect("the temporary folder is writable");
    let mut commands = [assistd(&cluster().folder()), assistd(&cluster().folder())];
    commands[0].env("ASSISTD_ADMIN_KEY_FILE", path);
    commands[1].env("ASSISTD_ADMIN_KEY", "short");
    for command in &mut commands {
        let refused = output(command.env("DATABASE_URL", &db.url));
        assert!(!refused.status.success());
        let printed = text(&refused);
        assert!(printed.contains("at least 16 visible"), "{printed}");
    }
}

#[tokio::test]
async fn a_webhook_is_seen_and_delivered_again() {
    let db = Db::new().await;
    let settings = [("ASSISTD_ADMIN_KEY", ADMIN_KEY), ALLOW_PRIVATE_ADDRESSES];
    let server = Server::start(&db, &settings).await;
    let admin = server.client_with_key(ADMIN_KEY);
    let receiver = WebhookReceiver::start().await;
    let project = assistd::store::projects::find_or_create(&db.pool, "default").await;
    let project = project.expect("the database answers");
    let (endpoint, _) = receiver.subscribe(&db.pool, &project, &[]).await;
    let client = server.client();
    let assistant = client.create_assistant("hello").await;
    let thread = client.create_thread("Hi").await;
    let run = client.create_run(&thread, &assistant).await;
    let told = receiver.accept("thread.run.completed").await;
    assert_eq!(told["data"]["id"], run.as_str());

    let endpoints = admin.get("//admin/webhooks").await;
    let shown = &endpoints["data"][0];
    assert_eq!(shown["id"], endpoint.as_str());
    assert_eq!(shown["status"], "active", "{shown}");
    assert_eq!(shown["project_name"], "default");
    assert!(!endpoints.to_string().contains("whsec_"), "{endpoints}");
    let path = format!("//admin/webhooks/{endpoint}");
    let delivered = eventually("the recorded delivery", || async {
        let list = admin.get(&format!("{path}/deliveries")).await;
        let first = list["data"][0].clone();
        (first["status"] == "delivered").then_some(first)
    })
    .await;
    assert_eq!(delivered["event_id"], told["id"]);
    assert_eq!(delivered["subject"], run.as_str());
    assert_eq!(delivered["attempts"], 1);

    let again = format!("{path}/redeliver/{}", id(&delivered));
    admin.post(&again, json!({})).await;
    assert_eq!(receiver.accept("thread.run.completed").await, told);
    let entries = admin.get("//admin/audit_log").await;
    let entry = &entries["data"][0];
    assert_eq!(entry["action"], "webhook.redelivered", "{entry}");
    assert_eq!(entry["target"], endpoint.as_str());

    for unknown in [
        format!("{path}/redeliver/999"),
        format!("{path}/redeliver/x"),
        "//admin/webhooks/we_none/enable".to_owned(),
    ] {
        let reply = send(&admin, Method::POST, &unknown, Some(&json!({}))).await;
        assert_eq!(reply.status, 404, "{unknown}: {reply:?}");
    }
    let after = format!("{path}/deliveries?after={}", id(&delivered));
    assert_eq!(admin.get(&after).await["data"], json!([]));
}

#[tokio::test]
async fn the_health_of_a_server_names_its_queues_and_the_last_failure_of_an_upstream() {
    let db = Db::new().await;
    let (server, admin) = start(&db).await;
    let client = server.client();
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let weather = json!({"model": "scripted/weather", "tools": [function]});
    let weather = client.create_assistant_with(weather).await;
    let thread = client.create_thread("Hi").await;
    let run = client.create_run(&thread, &weather).await;
    client
        .wait_for_status(&thread, &run, &["requires_action"])
        .await;
    let health = admin.get("//admin/health").await;
    assert_eq!(health["runs"]["requires_action"], 1, "{health}");
    assert_eq!(health["runs"]["queued"], 0, "{health}");
    assert!(health["database"]["latency_ms"].is_number(), "{health}");
    let scripted = &health["upstreams"][0];
    assert_eq!(scripted["name"], "scripted", "{health}");
    assert_eq!(scripted["is_reachable"], Value::Null);
    assert_eq!(scripted["last_failure"], Value::Null);

    let unknown = client.create_assistant("unknown").await;
    let thread = client.create_thread("Hi").await;
    let run = client.create_run(&thread, &unknown).await;
    client.wait_for_status(&thread, &run, &["failed"]).await;
    let health = admin.get("//admin/health?probe=true").await;
    let scripted = &health["upstreams"][0];
    assert_eq!(scripted["is_reachable"], true, "{health}");
    assert!(scripted["last_failure"]["message"].is_string(), "{health}");
    let refused = send(&admin, Method::GET, "//admin/health?probe=yes", None).await;
    assert_eq!(refused.status, 400, "{refused:?}");
}
