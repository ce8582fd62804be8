//! Clients that hang up during a request do no harm: acknowledged writes are stored, no connection
//! stays in a transaction, and every stored run is executed.

use std::time::Duration;

use rand::Rng as _;
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::Client;
use crate::cluster::{Db, cluster};
use crate::eventually;
use crate::proxy::Proxy;
use crate::server::Server;

/// A lease that outlives every test, so that its end repairs nothing.
const LONG_LEASE: (&str, &str) = ("ASSISTD_LEASE", "1h");

/// A request whose client does not wait for the response.
struct AbandonedRequest(TcpStream);

impl AbandonedRequest {
    async fn send(origin: &str, path: &str, body: &Value) -> Self {
        let host = origin
            .strip_prefix("http://")
            .expect("the origin is plain HTTP");
        let mut stream = TcpStream::connect(host).await.expect("the server listens");
        let body = body.to_string();
        let head = format!(
            "POST /v1{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer any-key\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = head + &body;
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the socket buffer is large enough");
        Self(stream)
    }

    /// Sends a request, and hangs up while the server waits for the reply to its `n`th statement
    /// from now, counted from one.
    async fn at_statement(n: usize, proxy: &Proxy, server: &Server, path: &str, body: &Value) {
        let (sender, sent) = std::sync::mpsc::channel::<Self>();
        // Armed first: the statements may be executed before this task continues.
        proxy.hang_up_at(n, move || {
            if let Ok(request) = sent.recv() {
                request.hang_up();
            }
        });
        let request = Self::send(&server.origin, path, body).await;
        sender.send(request).expect("the proxy waits for it");
    }

    /// Closes the connection with a reset, as the kernel does for a killed process.
    fn hang_up(self) {
        self.0.set_zero_linger().expect("the socket is open");
    }
}

/// The number of connections that are idle in a transaction.
async fn idle_transactions(db: &Db) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and state like 'idle in transaction%'",
    )
    .fetch_one(&db.pool)
    .await
    .expect("the database answers")
}

async fn no_transaction_is_left_open(db: &Db) {
    eventually("the end of all transactions", async || {
        (idle_transactions(db).await == 0).then_some(())
    })
    .await;
}

/// Creates a thread and reads it back.
async fn create_and_read(client: &Client, n: usize) -> Result<(), String> {
    let thread = client
        .post("/threads", json!({"metadata": {"n": n.to_string()}}))
        .await;
    let id = thread["id"].as_str().expect("objects have ids");
    let read = client
        .send(reqwest::Method::GET, &format!("/threads/{id}"), None)
        .await
        .map_err(|error| error.to_string())?;
    match read.status {
        200 => Ok(()),
        status => Err(format!("{id} was acknowledged, and then {status}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_stored_whoever_hangs_up_meanwhile() {
    let db = Db::new().await;
    let server = Server::start(&db, &[LONG_LEASE]).await;
    let client = server.client();
    let assistant = client.create_assistant("hello").await;
    let thread = client.create_thread("Hello").await;
    let origin = server.origin.clone();
    let abandon = async {
        for n in 0..400 {
            // Every fourth request violates a constraint within its transaction.
            let request = match n % 4 {
                0 => {
                    let body = json!({"assistant_id": assistant, "additional_messages":
                        [{"role": "user", "content": "More"}]});
                    AbandonedRequest::send(&origin, &format!("/threads/{thread}/runs"), &body).await
                }
                _ => {
                    let body = json!({"messages": [{"role": "user", "content": "Hello"}]});
                    AbandonedRequest::send(&origin, "/threads", &body).await
                }
            };
            let pause = rand::rng().random_range(0..3_000);
            tokio::time::sleep(Duration::from_micros(pause)).await;
            request.hang_up();
        }
    };
    let acknowledged = async {
        for n in 0..400 {
            create_and_read(&client, n)
                .await
                .expect("an acknowledged thread is readable");
        }
    };
    tokio::join!(abandon, acknowledged);
    let stored: i64 = sqlx::query_scalar("select count(*) from threads where metadata ? 'n'")
        .fetch_one(&db.pool)
        .await
        .expect("the database answers");
    assert_eq!(stored, 400);
    no_transaction_is_left_open(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_at_any_statement_leaves_a_thread_whole_and_no_transaction_open() {
    let db = Db::new().await;
    let proxy = Proxy::start(&db).await;
    let server = Server::start_at(&proxy.url, &[LONG_LEASE]).await;
    let client = server.client();
    for statement in 1..=6 {
        let body = json!({"metadata": {"at": statement.to_string()},
                          "messages": [{"role": "user", "content": "Hello"}]});
        AbandonedRequest::at_statement(statement, &proxy, &server, "/threads", &body).await;
        // Other requests succeed, whichever connection they get.
        for n in 0..8 {
            create_and_read(&client, n)
                .await
                .expect("an acknowledged thread is readable");
        }
        proxy.disarm();
    }
    no_transaction_is_left_open(&db).await;
    let incomplete: i64 = sqlx::query_scalar(
        "select count(*) from threads where metadata ? 'at'
             and not exists (select from messages where thread_id = threads.id)",
    )
    .fetch_one(&db.pool)
    .await
    .expect("the database answers");
    assert_eq!(incomplete, 0, "a thread was stored without its message");
}

/// Waits until there are `min_runs` runs and all have ended.
async fn wait_until_all_runs_end(db: &Db, min_runs: i64) {
    eventually("the end of all runs", async || {
        let (all, ended): (i64, i64) = sqlx::query_as("select count(*), count(ended_at) from runs")
            .fetch_one(&db.pool)
            .await
            .expect("the database answers");
        (all >= min_runs && all == ended).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_creator_hangs_up_at_any_statement_is_executed() {
    let db = Db::new().await;
    let proxy = Proxy::start(&db).await;
    let server = Server::start_at(&proxy.url, &[LONG_LEASE]).await;
    let client = server.client();
    let assistant = client.create_assistant("hello").await;
    let create = json!({"assistant_id": assistant,
                        "thread": {"messages": [{"role": "user", "content": "Hello"}]}});
    for statement in 1..=8 {
        AbandonedRequest::at_statement(statement, &proxy, &server, "/threads/runs", &create).await;
        wait_until_all_runs_end(&db, 0).await;
        proxy.disarm();
    }
    wait_until_all_runs_end(&db, 1).await;
    no_transaction_is_left_open(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_whose_sender_hangs_up_at_any_statement_are_taken_or_not_and_the_run_goes_on() {
    let db = Db::new().await;
    let proxy = Proxy::start(&db).await;
    let server = Server::start_at(&proxy.url, &[LONG_LEASE]).await;
    let client = server.client();
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let assistant = json!({"model": "scripted/weather", "tools": [function]});
    let assistant = client.create_assistant_with(assistant).await;
    for statement in 1..=8 {
        let thread = client.create_thread("What is the weather?").await;
        let runs = format!("/threads/{thread}/runs");
        let run = client.post(&runs, json!({"assistant_id": assistant})).await;
        let id = run["id"].as_str().expect("objects have ids");
        let run = format!("{runs}/{id}");
        let outputs = eventually("a call", async || {
            let run = client.get(&run).await;
            let calls = run["required_action"]["submit_tool_outputs"]["tool_calls"].as_array()?;
            let output = |call: &Value| json!({"tool_call_id": call["id"], "output": "sunny"});
            Some(json!({"tool_outputs": calls.iter().map(output).collect::<Vec<_>>()}))
        })
        .await;
        let path = format!("{run}/submit_tool_outputs");
        AbandonedRequest::at_statement(statement, &proxy, &server, &path, &outputs).await;
        eventually(
            "the run's end, or its wait for outputs that were not taken",
            async || {
                let status = client.get(&run).await["status"].clone();
                match status.as_str() {
                    Some("completed") => Some(()),
                    Some("requires_action") => {
                        let taken = client
                            .send(reqwest::Method::POST, &path, Some(&outputs))
                            .await
                            .expect("the server answers");
                        assert!([200, 400].contains(&taken.status), "{}", taken.body);
                        None
                    }
                    _ => None,
                }
            },
        )
        .await;
        proxy.disarm();
    }
    no_transaction_is_left_open(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_the_lease_of_a_process_that_does_not_execute_it_is_taken_again() {
    let db = Db::new().await;
    let server = Server::start(&db, &[LONG_LEASE]).await;
    let client = server.client();
    let slow = client.create_assistant("slow").await;
    let held = client.create_thread("Hello").await;
    client
        .post(
            &format!("/threads/{held}/runs"),
            json!({"assistant_id": slow}),
        )
        .await;
    let owner: String = eventually("a lease", async || {
        let owner =
            sqlx::query_scalar("select lease_owner from runs where lease_owner is not null");
        owner
            .fetch_optional(&db.pool)
            .await
            .expect("the database answers")
    })
    .await;
    // Simulates a process that never received the reply to the statement that stored the run.
    let assistant = client.create_assistant("hello").await;
    let thread = client.create_thread("Hello").await;
    let paused = "create function lose() returns trigger language plpgsql as $$
         begin
             new.status = 'in_progress'; new.started_at = now(); new.attempt = 1;
             new.lease_owner = current_setting('it.owner'); new.due_at = now() + interval '1 hour';
             return new;
         end $$;";
    sqlx::raw_sql(paused)
        .execute(&db.pool)
        .await
        .expect("the statement is valid");
    let mut session = db
        .pool
        .options()
        .connect()
        .await
        .expect("the database answers");
    sqlx::query("select set_config('it.owner', $1, false)")
        .bind(&owner)
        .execute(&mut session)
        .await
        .expect("the statement is valid");
    sqlx::raw_sql(
        "create trigger lose before insert on runs for each row
         when (current_setting('it.owner', true) <> '') execute function lose()",
    )
    .execute(&mut session)
    .await
    .expect("the statement is valid");
    sqlx::query(
        "insert into runs (id, project_id, thread_id, assistant_id, config, metadata, expires_at,
                           status, due_at)
         select 'run_orphan', project_id, $1, $2, config, metadata, now() + interval '10 minutes',
                'queued', now()
         from runs limit 1",
    )
    .bind(&thread)
    .bind(&assistant)
    .execute(&mut session)
    .await
    .expect("the statement is valid");
    eventually("the orphan's attempt", async || {
        let attempt: i32 = sqlx::query_scalar("select attempt from runs where id = 'run_orphan'")
            .fetch_one(&db.pool)
            .await
            .expect("the database answers");
        (attempt > 1).then_some(())
    })
    .await;
    let held: i32 = sqlx::query_scalar("select attempt from runs where id <> 'run_orphan'")
        .fetch_one(&db.pool)
        .await
        .expect("the database answers");
    assert_eq!(held, 1, "a run that is executed keeps its lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_its_own_database_resumes_after_a_kill_without_waiting_for_its_lease() {
    let folder = cluster().folder();
    let server = Server::start_in(&folder, "", &[LONG_LEASE]).await;
    let client = server.client();
    let assistant = client.create_assistant("brisk").await;
    let thread = client.create_thread("Count").await;
    let mut events = client.stream_run(&thread, &assistant).await;
    let run = loop {
        let event = events.next().await;
        if event.name == "thread.message.delta" {
            let runs = client.list(&format!("/threads/{thread}/runs")).await;
            break runs[0]["id"].as_str().expect("objects have ids").to_owned();
        }
    };
    server.kill().await;
    let server = Server::start_in(&folder, "", &[LONG_LEASE]).await;
    server
        .client()
        .wait_for_status(&thread, &run, &["completed"])
        .await;
    let messages = server
        .client()
        .list(&format!("/threads/{thread}/messages"))
        .await;
    assert_eq!(messages.len(), 2, "{messages:?}");
}
