//! Runs over all threads: filters, cursors, counts, execution, and objects found by their ids.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::client::{Client, id};
use crate::cluster::Db;
use crate::server::Server;

struct Scene {
    db: Db,
    server: Server,
    client: Client,
    /// Oldest first: two completed ones of the first assistant, and one of the second that waits.
    runs: Vec<String>,
    assistants: [String; 2],
}

async fn three_runs() -> Scene {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let client = server.client();
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let weather = json!({"model": "scripted/weather", "tools": [function]});
    let hello = client.create_assistant("hello").await;
    let weather = client.create_assistant_with(weather).await;
    let mut runs = Vec::new();
    for (assistant, user, status) in [
        (&hello, "ada", "completed"),
        (&hello, "bob", "completed"),
        (&weather, "ada", "requires_action"),
    ] {
        let thread = client.create_thread("Hi").await;
        let body =
            json!({"assistant_id": assistant, "metadata": {"user": user, "it's": "\"quoted\""}});
        let run = id(&client.post(&format!("/threads/{thread}/runs"), body).await);
        client.wait_for_status(&thread, &run, &[status]).await;
        runs.push(run);
    }
    Scene {
        db,
        server,
        client,
        runs,
        assistants: [hello, weather],
    }
}

async fn ids(client: &Client, query: &str) -> Vec<String> {
    let list = client.get(&format!("/runs?order=asc&{query}")).await;
    let data = list["data"].as_array().expect("a list has `data`");
    data.iter().map(id).collect()
}

#[tokio::test]
async fn runs_of_all_threads_are_filtered_by_every_condition() {
    let scene = three_runs().await;
    let (client, runs) = (&scene.client, &scene.runs);
    let [hello, weather] = &scene.assistants;
    let created = |run: &Value| run["created_at"].as_i64().expect("a time is a number");
    let all = client.get("/runs").await;
    let newest = created(&all["data"][0]);
    assert_eq!(all["first_id"], runs[2].as_str(), "newest first");
    for (query, expected) in [
        ("limit=100".to_owned(), &runs[..]),
        ("status=completed".to_owned(), &runs[..2]),
        ("status=requires_action".to_owned(), &runs[2..]),
        (
            "status[]=requires_action&status[]=failed".to_owned(),
            &runs[2..],
        ),
        ("status=failed,expired".to_owned(), &[]),
        (format!("assistant_id={hello}"), &runs[..2]),
        (format!("assistant_id={weather}&status=completed"), &[]),
        ("model=scripted/weather".to_owned(), &runs[2..]),
        ("model=scripted".to_owned(), &[]),
        ("metadata[user]=bob".to_owned(), &runs[1..2]),
        (
            "metadata[user]=ada&model=scripted/hello".to_owned(),
            &runs[..1],
        ),
        ("metadata[it's]=%22quoted%22".to_owned(), &runs[..]),
        ("created_after=0".to_owned(), &runs[..]),
        (format!("created_after={}", newest + 1), &[]),
        (format!("created_before={}", newest + 1), &runs[..]),
        ("created_before=0".to_owned(), &[]),
    ] {
        assert_eq!(ids(client, &query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn the_list_of_all_runs_has_the_cursors_of_every_list() {
    let scene = three_runs().await;
    let (client, runs) = (&scene.client, &scene.runs);
    assert_eq!(ids(client, "limit=2").await, runs[..2]);
    assert_eq!(ids(client, &format!("after={}", runs[0])).await, runs[1..]);
    let before = format!("before={}&limit=1", runs[2]);
    assert_eq!(ids(client, &before).await, runs[1..2]);
    let filtered = format!("after={}&status=requires_action", runs[0]);
    assert_eq!(ids(client, &filtered).await, runs[2..]);
    let first = client.get("/runs?limit=2").await;
    assert_eq!(first["has_more"], true);
}

#[tokio::test]
async fn a_filter_that_cannot_be_meant_is_refused_by_its_name() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let client = server.client();
    for (query, param) in [
        ("status=done", "status"),
        ("status=completed,done", "status"),
        ("assistant_id=thread_1", "assistant_id"),
        ("created_after=yesterday", "created_after"),
        ("created_before=-1", "created_before"),
        ("created_before=99999999999999", "created_before"),
        ("after=run_none", "after"),
        ("limit=0", "limit"),
    ] {
        let path = format!("/runs?{query}");
        let sent = client.send(Method::GET, &path, None);
        let reply = sent.await.expect("the server answers");
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
        assert_eq!(reply.body["error"]["param"], param, "{query}: {reply:?}");
    }
}

#[tokio::test]
async fn runs_are_counted_by_status_within_a_filter() {
    let scene = three_runs().await;
    let counts = scene.client.get("/runs/counts").await;
    assert_eq!(counts["total"], 3, "{counts}");
    assert_eq!(counts["has_more"], false);
    assert_eq!(counts["counts"]["completed"], 2);
    assert_eq!(counts["counts"]["requires_action"], 1);
    assert_eq!(counts["counts"]["failed"], 0);
    let counts = scene.client.get("/runs/counts?metadata[user]=ada").await;
    assert_eq!(counts["total"], 2, "{counts}");
    assert_eq!(counts["counts"]["completed"], 1);
    let counts = scene.client.get("/runs/counts?status=failed").await;
    assert_eq!(counts["total"], 0, "{counts}");
}

#[tokio::test]
async fn only_the_newest_ten_thousand_runs_are_counted() {
    let scene = three_runs().await;
    sqlx::query(
        "insert into runs (id, project_id, thread_id, assistant_id, created_at, config, status,
                           expires_at, ended_at)
         select 'run_bulk' || n, project_id, thread_id, assistant_id, now() - interval '1 day',
                config, 'failed', now(), now()
         from (select * from runs where id = $1) as run, generate_series(1, 9998) as n",
    )
    .bind(&scene.runs[0])
    .execute(&scene.db.pool)
    .await
    .expect("inserted");
    let counts = scene.client.get("/runs/counts").await;
    assert_eq!(
        (&counts["total"], &counts["has_more"]),
        (&json!(10_000), &json!(true))
    );
    assert_eq!(
        counts["counts"]["failed"], 9997,
        "the oldest one is left out"
    );
    let counts = scene
        .client
        .get("/runs/counts?status=requires_action")
        .await;
    assert_eq!(counts["total"], 1, "{counts}");
}

#[tokio::test]
async fn the_list_of_all_runs_reads_its_index() {
    let scene = three_runs().await;
    let connected = sqlx::PgConnection::connect(&scene.db.url).await;
    let mut connection = connected.expect("the database answers");
    sqlx::query("set enable_seqscan = off")
        .execute(&mut connection)
        .await
        .expect("set");
    let plan: Vec<String> = sqlx::query_scalar(
        "explain select id from runs where project_id = 'proj_1'
             and (created_at, seq) < ((select now()), (select 5::bigint))
         order by created_at desc, seq desc limit 21",
    )
    .fetch_all(&mut connection)
    .await
    .expect("explained");
    let plan = plan.join("\n");
    assert!(
        plan.contains("Index Scan Backward using runs_by_project"),
        "{plan}"
    );
    assert!(!plan.contains("Sort"), "{plan}");
}

#[tokio::test]
async fn the_execution_of_a_run_tells_why_it_waits_and_how_long_its_steps_took() {
    let scene = three_runs().await;
    let client = &scene.client;
    let done = client
        .get(&format!("/runs/{}/execution", scene.runs[0]))
        .await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(
        (&done["attempts"], &done["recoveries"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        (&done["is_leased"], &done["due_at_ms"]),
        (&json!(false), &json!(null))
    );
    let time = |value: &Value| {
        value
            .as_i64()
            .unwrap_or_else(|| panic!("{value} in {done}"))
    };
    let step = &done["steps"][0];
    let times = [
        time(&done["created_at_ms"]),
        time(&step["created_at_ms"]),
        time(&step["ended_at_ms"]),
        time(&done["ended_at_ms"]),
    ];
    assert!(times.is_sorted(), "{done}");

    let waiting = client
        .get(&format!("/runs/{}/execution", scene.runs[2]))
        .await;
    assert_eq!(waiting["is_leased"], false, "{waiting}");
    assert!(waiting["due_at_ms"].is_number(), "it expires: {waiting}");
    assert_eq!(waiting["queued_before"], Value::Null);
}

#[tokio::test]
async fn a_queued_run_tells_how_many_are_before_it() {
    let db = Db::new().await;
    let settings = [("ASSISTD_MAX_CONCURRENT_RUNS", "1")];
    let server = Server::start(&db, &settings).await;
    let client = server.client();
    let assistant = client.create_assistant("slow").await;
    let mut runs = Vec::new();
    for position in 0..3 {
        let thread = client.create_thread("Hi").await;
        let run = client.create_run(&thread, &assistant).await;
        if position == 0 {
            client
                .wait_for_status(&thread, &run, &["in_progress"])
                .await;
        }
        runs.push(run);
    }
    let active = client.get(&format!("/runs/{}/execution", runs[0])).await;
    assert_eq!(active["is_leased"], true, "{active}");
    for (run, before) in [(&runs[1], 0), (&runs[2], 1)] {
        let queued = client.get(&format!("/runs/{run}/execution")).await;
        assert_eq!(queued["queued_before"], before, "{queued}");
    }
}

#[tokio::test]
async fn an_object_of_any_kind_is_found_by_its_id_alone() {
    let scene = three_runs().await;
    let client = &scene.client;
    let run = client.get(&format!("/objects/{}", scene.runs[0])).await;
    let thread = run["thread_id"].as_str().expect("a run has a thread");
    let path = format!("/threads/{thread}");
    let of_run = format!("{path}/runs/{}", scene.runs[0]);
    let step = &client.list(&format!("{of_run}/steps")).await[0];
    let message = &client.list(&format!("{path}/messages")).await[0];
    let file = client.upload("a.txt", "text").await;
    let store = client.post("/vector_stores", json!({})).await;
    for (path, object) in [
        (of_run.clone(), &scene.runs[0]),
        (path.clone(), &thread.to_owned()),
        (format!("{of_run}/steps/{}", id(step)), &id(step)),
        (format!("{path}/messages/{}", id(message)), &id(message)),
        (
            format!("/assistants/{}", scene.assistants[0]),
            &scene.assistants[0],
        ),
        (format!("/files/{}", id(&file)), &id(&file)),
        (format!("/vector_stores/{}", id(&store)), &id(&store)),
    ] {
        let found = client.get(&format!("/objects/{object}")).await;
        assert_eq!(found, client.get(&path).await, "{object}");
    }
    for unknown in [
        "run_none",
        "step_none",
        "msg_none",
        "upload_1",
        "anything",
        "%00",
    ] {
        let path = format!("/objects/{unknown}");
        let sent = client.send(Method::GET, &path, None);
        let reply = sent.await.expect("the server answers");
        assert_eq!(reply.status, 404, "{unknown}: {reply:?}");
    }
    drop(scene.server);
}

#[tokio::test]
async fn threads_are_listed_by_time_and_metadata() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let client = server.client();
    let body = |user: &str| json!({"metadata": {"user": user}});
    let thread = client.post("/threads", body("ada")).await;
    client.post("/threads", body("bob")).await;
    let created = thread["created_at"].as_i64().expect("a time is a number");
    for (query, expected) in [
        (format!("created_after={created}"), 2),
        (format!("created_after={created}&metadata[user]=ada"), 1),
        (format!("created_after={}", created + 60), 0),
        (format!("created_before={}", created + 60), 2),
        (format!("created_before={created}"), 0),
    ] {
        let list = client.get(&format!("/threads?{query}")).await;
        let found = list["data"].as_array().map(Vec::len);
        assert_eq!(found, Some(expected), "{query}: {list}");
    }
    let sent = client.send(Method::GET, "/threads?created_after=x", None);
    let reply = sent.await.expect("the server answers");
    assert_eq!(reply.body["error"]["param"], "created_after", "{reply:?}");
}
