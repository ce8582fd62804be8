//! Project limits, enforced across replicas.

use std::time::{Duration, Instant};

use assistd::domain::file::{NewFile, Purpose};
use assistd::domain::ids::FileId;
use assistd::store;
use assistd::store::projects::QuotaError;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Reply, id, send_request};
use crate::cluster::Db;
use crate::eventually;
use crate::fake_worker::FakeWorker;
use crate::server::Server;

const KEY: &str = "sk-of-acme-project";

/// Two replicas, and a project with limits.
struct LimitedProject {
    db: Db,
    replicas: [Server; 2],
}

impl LimitedProject {
    async fn new(limits: &'static str, settings: &[(&str, &str)]) -> Self {
        let db = Db::new().await;
        let keys = format!("acme:{KEY}");
        let keys = [("ASSISTD_API_KEYS", &*keys)];
        let settings = [&keys, settings].concat();
        let replicas = [
            Server::start(&db, &settings).await,
            Server::start(&db, &settings).await,
        ];
        let fixture = Self { db, replicas };
        fixture
            .execute(&format!("update projects set {limits}"))
            .await;
        fixture
    }

    async fn execute(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(&self.db.pool)
            .await
            .expect("the database answers");
    }

    fn clients(&self) -> [Client; 2] {
        [0, 1].map(|n| self.replicas[n].client_with_key(KEY))
    }

    /// Clients of alternating replicas.
    fn many(&self, n: usize) -> impl Iterator<Item = Client> {
        self.clients().into_iter().cycle().take(n)
    }
}

async fn send(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Reply {
    let sent = client.send(method, path, body).await;
    sent.expect("the server answers")
}

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    let value = reply
        .headers
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {reply:?}"));
    value.to_str().expect("the value is a string")
}

/// Checks that the reply is a 429 that SDKs retry.
fn assert_limited(reply: &Reply, kind: &str) {
    assert_eq!(reply.status, 429, "{reply:?}");
    assert_eq!(reply.body["error"]["type"], kind, "{reply:?}");
    assert_eq!(reply.body["error"]["code"], "rate_limit_exceeded");
    let seconds: u64 = header(reply, "retry-after")
        .parse()
        .expect("the value is a whole number");
    assert!((1..=60).contains(&seconds), "{seconds}");
    let milliseconds: u64 = header(reply, "retry-after-ms")
        .parse()
        .expect("the value is a whole number");
    assert_eq!(milliseconds.div_ceil(1000).max(1), seconds);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_exactly_across_replicas() {
    let fixture = LimitedProject::new("requests_per_minute = 6", &[]).await;
    let started = Instant::now();
    let replies = fixture
        .many(20)
        .map(|client| async move { send(&client, Method::GET, "/assistants", None).await });
    let replies = join_all(replies).await;
    let granted = replies.iter().filter(|reply| reply.status == 200).count();
    // The budget grows by one request every ten seconds.
    let more = usize::try_from(started.elapsed().as_secs() / 10).expect("the number is small");
    assert!((6..=6 + more).contains(&granted), "{granted}");
    for reply in &replies {
        assert_eq!(header(reply, "x-ratelimit-limit-requests"), "6");
        let left: i64 = header(reply, "x-ratelimit-remaining-requests")
            .parse()
            .expect("the value is a whole number");
        assert!(left < 6, "{left}");
        assert!(header(reply, "x-ratelimit-reset-requests").ends_with('s'));
        if reply.status != 200 {
            assert_limited(reply, "requests");
        }
    }

    fixture
        .execute("update request_budgets set full_at = full_at - interval '30 s'")
        .await;
    let [here, there] = fixture.clients();
    for client in [&here, &there, &here] {
        let reply = send(client, Method::GET, "/assistants", None).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    // Refused requests are not counted.
    let stranger = fixture.replicas[0].client_with_key("sk-of-nobody");
    let refused = send(&stranger, Method::GET, "/assistants", None).await;
    assert_eq!(refused.status, 401);
    assert!(!refused.headers.contains_key("x-ratelimit-limit-requests"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_up_does_not_hold_up_the_others() {
    let fixture = LimitedProject::new("requests_per_minute = 100000", &[]).await;
    let [here, _] = fixture.clients();
    for _ in 0..20 {
        let impatient = (0..5).map(|n| {
            let request = here.request(Method::GET, "/assistants");
            tokio::time::timeout(Duration::from_micros(300 * n), request.send())
        });
        join_all(impatient).await;
        let reply = send(&here, Method::GET, "/assistants", None).await;
        assert_eq!(reply.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_at_work_are_counted_exactly_across_replicas() {
    let fixture = LimitedProject::new("max_concurrent_runs = 2", &[]).await;
    let [here, there] = fixture.clients();
    let assistant = here.create_assistant("slow").await;
    let begin = |client: Client, with_thread: bool| {
        let assistant = assistant.clone();
        async move {
            let mut body = json!({"assistant_id": assistant});
            if with_thread {
                let messages = json!([{"role": "user", "content": "Hello?"}]);
                body["thread"] = json!({"messages": messages});
                return send(&client, Method::POST, "/threads/runs", Some(&body)).await;
            }
            let thread = client.create_thread("Hello?").await;
            let path = format!("/threads/{thread}/runs");
            send(&client, Method::POST, &path, Some(&body)).await
        }
    };
    let replies = fixture
        .many(9)
        .enumerate()
        .map(|(n, client)| begin(client, n % 3 == 0));
    let replies = join_all(replies).await;
    let (accepted, refused): (Vec<Reply>, Vec<Reply>) =
        replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!(accepted.len(), 2, "{accepted:?}");
    for reply in &refused {
        assert_limited(reply, "requests");
    }

    // A busy thread is still reported as such.
    let run = &accepted[0].body;
    let thread = run["thread_id"].as_str().expect("a run has a thread");
    let path = format!("/threads/{thread}/runs");
    let body = json!({"assistant_id": assistant});
    let again = send(&there, Method::POST, &path, Some(&body)).await;
    assert_eq!(again.status, 400, "{again:?}");

    there
        .post(&format!("{path}/{}/cancel", id(run)), json!({}))
        .await;
    there
        .wait_for_status(thread, &id(run), &["cancelled"])
        .await;
    assert_eq!(begin(here.clone(), false).await.status, 200);
    assert_eq!(begin(there.clone(), true).await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_its_caller_leaves_its_place_to_others() {
    let fixture = LimitedProject::new("max_concurrent_runs = 1", &[]).await;
    let [here, there] = fixture.clients();
    let function = json!([{"type": "function", "function": {"name": "get_weather"}}]);
    let weather = json!({"model": "scripted/weather", "tools": function});
    let weather = here.create_assistant_with(weather).await;
    let hello = here.create_assistant("hello").await;
    let thread = here.create_thread("What is it like outside?").await;
    let run = here.create_run(&thread, &weather).await;
    let waiting = here
        .wait_for_status(&thread, &run, &["requires_action"])
        .await;
    let other = there.create_thread("Hello?").await;
    let quick = there.create_run(&other, &hello).await;
    there.wait_for_status(&other, &quick, &["completed"]).await;
    let call = &waiting["required_action"]["submit_tool_outputs"]["tool_calls"][0];
    let output = json!({"tool_call_id": call["id"], "output": "sunny"});
    let path = format!("/threads/{thread}/runs/{run}/submit_tool_outputs");
    there.post(&path, json!({"tool_outputs": [output]})).await;
    there.wait_for_status(&thread, &run, &["completed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_run_begins_once_the_tokens_of_the_minute_are_used_up() {
    let fixture = LimitedProject::new("tokens_per_minute = 5", &[]).await;
    let [here, there] = fixture.clients();
    let assistant = here.create_assistant("hello").await;
    let thread = here.create_thread("Hello?").await;
    let first = json!({"assistant_id": assistant});
    let path = format!("/threads/{thread}/runs");
    let accepted = send(&here, Method::POST, &path, Some(&first)).await;
    assert_eq!(accepted.status, 200, "{accepted:?}");
    assert_eq!(header(&accepted, "x-ratelimit-limit-tokens"), "5");
    assert_eq!(header(&accepted, "x-ratelimit-remaining-tokens"), "5");
    assert_eq!(header(&accepted, "x-ratelimit-reset-tokens"), "0ms");
    let ended = here
        .wait_for_status(&thread, &id(&accepted.body), &["completed"])
        .await;
    let used = ended["usage"]["total_tokens"]
        .as_i64()
        .expect("an ended run has its usage");
    assert!(used > 5, "{ended}");

    let messages = json!([{"role": "user", "content": "Hello?"}]);
    let chat = json!({"model": "scripted/hello", "messages": messages});
    for (path, body) in [
        (&*path, &first),
        ("/threads/runs", &first),
        ("/chat/completions", &chat),
    ] {
        let refused = send(&there, Method::POST, path, Some(body)).await;
        assert_limited(&refused, "tokens");
        assert_eq!(header(&refused, "x-ratelimit-remaining-tokens"), "0");
    }
    // Requests that need no storage succeed.
    there.get(&path).await;
    fixture
        .execute("update usage_entries set at = at - interval '1 minute'")
        .await;
    let run = there.create_run(&thread, &assistant).await;
    there.wait_for_status(&thread, &run, &["completed"]).await;
}

async fn upload(client: &Client, bytes: usize) -> Reply {
    let text = "x".repeat(bytes);
    let form = format!(
        "--edge\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n\
         --edge\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x.txt\"\r\n\r\n{text}\r\n\
         --edge--\r\n"
    );
    let request = client
        .request(Method::POST, "/files")
        .header("content-type", "multipart/form-data; boundary=edge")
        .body(form);
    send_request(request).await.expect("the server answers")
}

async fn add_part(client: &Client, upload: &str, bytes: usize) -> Reply {
    let text = "x".repeat(bytes);
    let form = format!(
        "--edge\r\ncontent-disposition: form-data; name=\"data\"; filename=\"x\"\r\n\r\n{text}\r\n\
         --edge--\r\n"
    );
    let request = client
        .request(Method::POST, &format!("/uploads/{upload}/parts"))
        .header("content-type", "multipart/form-data; boundary=edge")
        .body(form);
    send_request(request).await.expect("the server answers")
}

fn assert_full(reply: &Reply) {
    assert_eq!(reply.status, 400, "{reply:?}");
    assert_eq!(reply.body["error"]["code"], "storage_limit_exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_is_counted_exactly_across_replicas() {
    let fixture = LimitedProject::new("storage_bytes = 10", &[]).await;
    let replies = fixture
        .many(8)
        .map(|client| async move { upload(&client, 3).await });
    let replies = join_all(replies).await;
    let (kept, refused): (Vec<Reply>, Vec<Reply>) =
        replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!(kept.len(), 3, "{kept:?}");
    refused.iter().for_each(assert_full);

    let [here, there] = fixture.clients();
    for file in &kept[..2] {
        let path = format!("/files/{}", id(&file.body));
        assert_eq!(send(&there, Method::DELETE, &path, None).await.status, 200);
    }
    // Seven bytes are free: a large file does not fit, and parts count until the upload ends.
    assert_full(&upload(&here, 8).await);
    let upload_of_five = json!({"filename": "x.txt", "purpose": "assistants", "bytes": 5,
                                "mime_type": "text/plain"});
    let pending = id(&here.post("/uploads", upload_of_five.clone()).await);
    let part = add_part(&here, &pending, 5).await;
    assert_eq!(part.status, 200, "{part:?}");
    assert_full(&add_part(&there, &pending, 3).await);
    assert_full(&upload(&there, 3).await);
    let parts = json!({"part_ids": [id(&part.body)]});
    here.post(&format!("/uploads/{pending}/complete"), parts)
        .await;
    assert_full(&upload(&there, 3).await);
    assert_eq!(upload(&there, 2).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stores_something_waits_for_who_was_first() {
    let db = Db::new().await;
    let project = store::projects::find_or_create(&db.pool, "acme").await;
    let project = project.expect("the database answers");
    sqlx::raw_sql("update projects set storage_bytes = 10")
        .execute(&db.pool)
        .await
        .expect("the database answers");
    let new = NewFile {
        filename: "x.txt".to_owned(),
        purpose: Purpose::Assistants,
        expires_after: None,
    };
    let mut first = db.pool.begin().await.expect("the database answers");
    let stored = store::files::insert(&mut first, &project, &FileId::generate(), &new, 6).await;
    stored.expect("there is room");
    let pool = db.pool.clone();
    let second = tokio::spawn(async move {
        let mut second = pool.begin().await.expect("the database answers");
        store::files::insert(&mut second, &project, &FileId::generate(), &new, 6).await
    });
    eventually("the second one waits", || async {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_locks join pg_database as d on d.oid = database
             where datname = current_database() and locktype = 'advisory' and not granted",
        )
        .fetch_one(&db.pool)
        .await
        .expect("the database answers");
        (waiting == 1 || second.is_finished()).then_some(())
    })
    .await;
    first.commit().await.expect("the database answers");
    let second = second.await.expect("the task does not panic");
    assert!(
        matches!(second, Err(QuotaError::Exceeded { limit: 10 })),
        "{second:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_when_what_its_code_has_made_cannot_be_stored() {
    let worker = FakeWorker::start();
    let address = worker.address();
    let fixture = LimitedProject::new("storage_bytes = 1", &[("ASSISTD_SANDBOX", &address)]).await;
    let [here, _] = fixture.clients();
    let tools = json!([{"type": "code_interpreter"}]);
    let coder = json!({"model": "scripted/coder", "tools": tools});
    let coder = here.create_assistant_with(coder).await;
    let thread = here.create_thread("Hello?").await;
    let run = here.create_run(&thread, &coder).await;
    here.wait_for_status(&thread, &run, &["completed"]).await;
    assert_eq!(here.list("/files").await, Vec::<Value>::new());
    let steps = here
        .list(&format!("/threads/{thread}/runs/{run}/steps"))
        .await;
    let outputs = &steps[0]["step_details"]["tool_calls"][0]["code_interpreter"]["outputs"];
    assert_eq!(*outputs, json!([{"type": "logs", "logs": "one\n"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_without_limits_pays_nothing_for_them() {
    // An embedded database: on a shared cluster, other tests' transactions would be counted.
    let server = Server::start_at("", &[]).await;
    let socket = server.folder.join("run");
    let url = format!("postgres:///assistd?user=assistd&host={}", socket.display());
    let pool = sqlx::PgPool::connect(&url)
        .await
        .expect("the database listens on the port");
    let written = async || -> i64 {
        // The id of the next writing transaction.
        sqlx::query_scalar("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
            .fetch_one(&pool)
            .await
            .expect("the database answers")
    };
    let client = server.client();
    let assistant = client.create_assistant("hello").await;
    let thread = client.create_thread("Hello?").await;
    let run = async || {
        let before = written().await;
        let run = client
            .stream_run(&thread, &assistant)
            .await
            .read_to_end()
            .await;
        assert_eq!(run.last().map(|event| &*event.name), Some("done"));
        written().await - before
    };
    // One transaction inserts the run, and one commits its result. Background tasks add some, but
    // not in every measurement.
    eventually("a run with two transactions that write", || async {
        let transactions = run().await;
        assert!(transactions >= 2, "{transactions}");
        (transactions == 2).then_some(())
    })
    .await;
    let sent = send(&client, Method::GET, "/assistants", None).await;
    let is_rate_limit =
        |name: &reqwest::header::HeaderName| name.as_str().starts_with("x-ratelimit");
    assert!(!sent.headers.keys().any(is_rate_limit), "{sent:?}");

    sqlx::raw_sql("update projects set requests_per_minute = 100000, tokens_per_minute = 1000000")
        .execute(&pool)
        .await
        .expect("the database answers");
    eventually("the new limits are noticed", || async {
        let sent = send(&client, Method::GET, "/assistants", None).await;
        sent.headers.keys().any(is_rate_limit).then_some(())
    })
    .await;
    for _ in 0..6 {
        assert!(run().await >= 3, "one more for the request");
    }
}
