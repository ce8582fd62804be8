//! `assistd export` and `assistd import` beside running servers.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, id};
use crate::cluster::Db;
use crate::event_stream::TERMINAL;
use crate::fake_model::FakeModel;
use crate::server::Server;
use crate::{eventually, process};

/// A server with a database.
struct TransferFixture {
    db: Db,
    server: Server,
    client: Client,
}

impl TransferFixture {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let db = Db::new().await;
        let server = Server::start(&db, settings).await;
        let client = server.client();
        // The first request creates the default project.
        client.list("/assistants").await;
        Self { db, server, client }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = process::assistd(&self.server.folder);
        command.env("DATABASE_URL", &self.db.url).args(arguments);
        command
    }

    /// Runs a command that must succeed; its output.
    fn does(&self, arguments: &[&str]) -> String {
        let output = process::output(&mut self.command(arguments));
        let printed = process::text(&output);
        assert!(output.status.success(), "{arguments:?}: {printed}");
        printed
    }

    /// Runs a command that must fail; its output.
    fn refuses(&self, arguments: &[&str]) -> String {
        let output = process::output(&mut self.command(arguments));
        let printed = process::text(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {printed}");
        printed
    }

    /// Exports to a new folder.
    fn export(&self, format: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        self.does(&["export", "--format", format, text(folder.path())]);
        folder
    }

    /// Every response of the API about every object.
    async fn all(&self) -> Vec<(String, Value)> {
        let client = &self.client;
        let mut all = Vec::new();
        let mut batches = Vec::new();
        for list in ["/assistants", "/files", "/threads", "/vector_stores"] {
            for object in client.list(list).await {
                let path = format!("{list}/{}", id(&object));
                let mut inside = match list {
                    "/threads" => vec!["messages", "runs"],
                    "/vector_stores" => vec!["files"],
                    _ => Vec::new(),
                };
                if list == "/files" {
                    let content = client.file_content(&object["id"]).await;
                    all.push((format!("{path}/content"), json!(content)));
                }
                inside.retain(|name| !name.is_empty());
                for name in inside {
                    let list = format!("{path}/{name}");
                    let items = client.list(&list).await;
                    for item in &items {
                        let path = format!("{list}/{}", id(item));
                        if name == "runs" {
                            let steps = client.list(&format!("{path}/steps")).await;
                            all.push((format!("{path}/steps"), json!(steps)));
                        }
                        if list.starts_with("/vector_stores") {
                            let content = client.get(&format!("{path}/content")).await;
                            all.push((format!("{path}/content"), content));
                        }
                    }
                    all.push((list, json!(items)));
                }
                all.push((path, object));
            }
        }
        let ids = sqlx::query_as("select vector_store_id, id from vector_store_batches order by 1");
        let ids: Vec<(String, String)> = ids
            .fetch_all(&self.db.pool)
            .await
            .expect("the server answers");
        for (store, batch) in ids {
            let path = format!("/vector_stores/{store}/file_batches/{batch}");
            batches.push((path.clone(), client.get(&path).await));
            let files = client.list(&format!("{path}/files")).await;
            batches.push((format!("{path}/files"), json!(files)));
        }
        all.extend(batches);
        all
    }

    /// Waits until no file of a vector store is in progress.
    async fn is_indexed(&self) {
        eventually("the end of indexing", || async {
            let stores = self.client.list("/vector_stores").await;
            let is_done = |store: &Value| store["file_counts"]["in_progress"] == 0;
            stores.iter().all(is_done).then_some(())
        })
        .await;
    }

    /// The ids of a list's objects.
    async fn ids(&self, list: &str) -> Vec<String> {
        self.client.list(list).await.iter().map(id).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/samples")
        .join(name)
}

/// Checks that the responses of two servers are equal.
fn assert_same(left: &[(String, Value)], right: &[(String, Value)]) {
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left, right);
    }
    assert_eq!(left.len(), right.len());
}

/// The numbers in a row of a report: new, existing, refused.
fn row(report: &str, what: &str) -> Vec<u64> {
    let row = report.lines().find_map(|line| line.strip_prefix(what));
    let row = row.unwrap_or_else(|| panic!("no {what} in {report}"));
    let numbers = row.split_whitespace();
    numbers
        .map(|n| n.parse().expect("the value is a number"))
        .collect()
}

/// Creates objects of every kind that a project can have.
async fn seed_project(fixture: &TransferFixture) {
    let client = &fixture.client;
    let manual = id(&client
        .upload("manual.txt", "Turn the key to the left.")
        .await);
    let data = id(&client.upload("data.csv", "a,b\n1,2\n").await);
    let store = json!({"name": "Manuals", "metadata": {"shelf": "3"},
                       "expires_after": {"anchor": "last_active_at", "days": 9}});
    let store = id(&client.post("/vector_stores", store).await);
    let files = json!([{"file_id": manual, "attributes": {"year": 2024, "lang": "en"}},
                       {"file_id": data}]);
    let batches = format!("/vector_stores/{store}/file_batches");
    client.post(&batches, json!({"files": files})).await;
    let schema = json!({"type": "object", "properties": {"z": {"type": "string"},
                                                         "a": {"type": "string"}}});
    let assistant = json!({
        "model": "scripted/weather", "name": "Forecaster", "instructions": "Be right.",
        "temperature": 1.0, "metadata": {"team": "sky"},
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": schema}},
                  {"type": "file_search"}],
        "tool_resources": {"file_search": {"vector_store_ids": [store]}},
    });
    let forecaster = client.create_assistant_with(assistant).await;
    let coder = json!({
        "model": "scripted/coder", "tools": [{"type": "code_interpreter"}], "top_p": 0.5,
        "tool_resources": {"code_interpreter": {"file_ids": [data]}},
    });
    client.create_assistant_with(coder).await;
    let searcher = json!({
        "model": "scripted/searcher", "tools": [{"type": "file_search"}],
        "tool_resources": {"file_search": {"vector_store_ids": [store]}},
    });
    let searcher = client.create_assistant_with(searcher).await;
    let hello = client.create_assistant("hello").await;
    let slow = client.create_assistant("slow").await;

    let tools = json!([{"type": "code_interpreter"}]);
    let parts = json!([
        {"type": "text", "text": "How is it?"},
        {"type": "image_url", "image_url": {"url": "https://pictures.example/sky.png"}},
    ]);
    let first = json!({"role": "user", "content": parts, "metadata": {"mood": "sunny"},
                       "attachments": [{"file_id": data, "tools": tools}]});
    let thread = json!({"messages": [first], "metadata": {"customer": "7"}});
    let thread = id(&client.post("/threads", thread).await);
    let run = client.create_run(&thread, &hello).await;
    client.wait_for_status(&thread, &run, &["completed"]).await;
    let run = client.create_run(&thread, &forecaster).await;
    let waiting = client
        .wait_for_status(&thread, &run, &["requires_action"])
        .await;
    let calls = &waiting["required_action"]["submit_tool_outputs"]["tool_calls"];
    let outputs = json!([{"tool_call_id": calls[0]["id"], "output": "rain"}]);
    let path = format!("/threads/{thread}/runs/{run}/submit_tool_outputs");
    client.post(&path, json!({"tool_outputs": outputs})).await;
    client.wait_for_status(&thread, &run, &["completed"]).await;
    let run = client.create_run(&thread, &slow).await;
    client
        .wait_for_status(&thread, &run, &["in_progress"])
        .await;
    let path = format!("/threads/{thread}/runs/{run}/cancel");
    client.post(&path, json!({})).await;
    client.wait_for_status(&thread, &run, &TERMINAL).await;
    client.create_thread("Nobody has answered this.").await;
    fixture.is_indexed().await;
    let run = client.create_run(&thread, &searcher).await;
    client.wait_for_status(&thread, &run, &["completed"]).await;
    // Fields that the API does not show are exported as well.
    sqlx::query("insert into workspace_files (thread_id, path, file_id) values ($1, $2, $3)")
        .bind(&thread)
        .bind("out/data.csv")
        .bind(&data)
        .execute(&fixture.db.pool)
        .await
        .expect("both projects exist");
}

#[tokio::test]
async fn a_project_that_moves_is_the_same_elsewhere() {
    let here = TransferFixture::new(&[]).await;
    seed_project(&here).await;
    let all = here.all().await;
    let objects = here.export("objects");
    let written = |folder: &Path| {
        let path = folder.join("objects.jsonl");
        std::fs::read_to_string(path).expect("the export wrote the file")
    };

    let there = TransferFixture::new(&[]).await;
    let source = text(objects.path());
    let dry = there.does(&["import", "--dry-run", source]);
    assert!(dry.contains("Nothing was changed"), "{dry}");
    assert_eq!(there.all().await, []);
    let report = there.does(&["import", source]);
    let last = |report: &str| {
        report
            .lines()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(last(&dry), last(&report), "a dry run tells what will be");
    assert_eq!(row(&report, "runs"), [4, 0, 0]);
    let searched = |(path, steps): &(String, Value)| {
        path.ends_with("/steps") && steps.to_string().contains("\"file_search\"")
    };
    assert!(all.iter().any(searched), "a run has searched");
    assert_eq!(row(&report, "contents of files"), [2, 0]);
    there.is_indexed().await;
    assert_same(&there.all().await, &all);
    assert_eq!(
        written(there.export("objects").path()),
        written(objects.path())
    );

    // A second import adds and changes nothing.
    let thread = &there.ids("/threads").await[0];
    let path = format!("/threads/{thread}");
    there
        .client
        .post(&path, json!({"metadata": {"customer": "8"}}))
        .await;
    let before = there.all().await;
    let report = there.does(&["import", source]);
    assert_eq!(row(&report, "messages")[0], 0);
    assert_eq!(row(&report, "contents of files"), [0, 2]);
    assert_same(&there.all().await, &before);

    // An import does not take over another project's objects.
    let refused = there.refuses(&["import", "--project", "other", source]);
    assert_eq!(row(&refused, "threads"), [0, 0, 2]);
    assert!(refused.contains("belongs to another project"), "{refused}");
    assert_same(&there.all().await, &before);

    // The OpenAI format has everything that the API shows.
    let other = here.export("manifest");
    let there = TransferFixture::new(&[]).await;
    there.does(&["import", text(other.path())]);
    there.is_indexed().await;
    assert_same(&there.all().await, &all);

    // A stream format has no file contents.
    let there = TransferFixture::new(&[]).await;
    let streamed = process::output(&mut here.command(&["export", "-"]));
    assert_eq!(
        String::from_utf8_lossy(&streamed.stdout),
        written(objects.path())
    );
    let file = objects.path().join("stream");
    std::fs::write(&file, streamed.stdout).expect("the temporary folder is writable");
    let report = there.does(&["import", text(&file)]);
    assert!(report.contains("Missing file contents"), "{report}");
    assert!(report.contains("\"manual.txt\", 25 bytes"), "{report}");
}

#[tokio::test]
async fn an_import_that_broke_off_is_finished_by_the_next() {
    let fixture = TransferFixture::new(&[]).await;
    let mut lines = vec![json!({"object": "assistd.export", "version": 1}).to_string()];
    for n in 1..=3 {
        let thread = format!("thread_{n}");
        lines.push(json!({"object": "thread", "id": thread, "created_at": n}).to_string());
        for m in 0..600 {
            let content = json!([{"type": "text", "text": {"value": "Hi", "annotations": []}}]);
            let message = json!({
                "object": "thread.message", "id": format!("msg_{n}_{m}"), "created_at": 10 + m,
                "thread_id": thread, "role": "user", "content": content,
            });
            lines.push(message.to_string());
        }
    }
    let text_of = lines.join("\n");
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let path = folder.path().join("objects.jsonl");
    std::fs::write(&path, &text_of[..text_of.len() - 10])
        .expect("the temporary folder is writable");
    let refused = fixture.refuses(&["import", text(folder.path())]);
    assert!(
        refused.contains("objects.jsonl: EOF while parsing"),
        "{refused}"
    );
    assert_eq!(fixture.ids("/threads").await, ["thread_1", "thread_2"]);

    std::fs::write(&path, &text_of).expect("the temporary folder is writable");
    let report = fixture.does(&["import", text(folder.path())]);
    assert_eq!(row(&report, "threads"), [1, 2, 0]);
    assert_eq!(row(&report, "messages"), [600, 1200, 0]);
    let last = "/threads/thread_3/messages?order=asc&limit=100&after=msg_3_550";
    let last = fixture.client.get(last).await;
    let ids: Vec<String> = last["data"]
        .as_array()
        .expect("the value is a list")
        .iter()
        .map(id)
        .collect();
    let expected: Vec<String> = (551..600).map(|m| format!("msg_3_{m}")).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn an_export_does_not_mix_with_what_is_there() {
    let fixture = TransferFixture::new(&[]).await;
    let folder = fixture.export("objects");
    let refused = fixture.refuses(&["export", text(folder.path())]);
    assert!(refused.contains("is there already"), "{refused}");
    let refused = fixture.refuses(&["export", "--project", "nobody's", "/tmp/never-made"]);
    assert!(
        refused.contains("there is no project \"nobody's\""),
        "{refused}"
    );
    assert!(!Path::new("/tmp/never-made").exists());
}

#[tokio::test]
async fn threads_of_the_hosted_api_go_on_here() {
    let model = FakeModel::start().await;
    let fixture = TransferFixture::new(&model.settings()).await;
    let client = &fixture.client;
    let report = fixture.does(&["import", text(&sample("hosted"))]);
    for (what, numbers) in [
        ("assistants", [1, 0, 0]),
        ("files", [2, 0, 0]),
        ("threads", [1, 0, 0]),
        ("messages", [3, 0, 0]),
        ("runs", [2, 0, 0]),
        ("run steps", [3, 0, 0]),
    ] {
        assert_eq!(row(&report, what), numbers, "{what}: {report}");
    }
    assert!(
        report.contains("run_Waiting was requires_action"),
        "{report}"
    );
    assert!(
        report.contains("file-HostedData: \"report.csv\", 17 bytes"),
        "{report}"
    );

    // The imported objects equal the samples where nothing had to change.
    let file = std::fs::read(sample("hosted/threads/thread_Hosted.json"))
        .expect("the sample is committed");
    let record: Value = serde_json::from_slice(&file).expect("the file is JSON");
    let thread = "/threads/thread_Hosted";
    assert_eq!(client.get(thread).await, record["thread"]);
    let messages = client.list(&format!("{thread}/messages")).await;
    for (message, hosted) in messages
        .iter()
        .zip(record["messages"].as_array().expect("the value is a list"))
    {
        for field in [
            "id",
            "created_at",
            "role",
            "content",
            "attachments",
            "run_id",
            "thread_id",
        ] {
            assert_eq!(message[field], hosted[field], "{field} of {message}");
        }
    }
    let runs = client.list(&format!("{thread}/runs")).await;
    let mut done = record["runs"][0].clone();
    let steps = done["steps"].take();
    assert_eq!(
        runs[0]["usage"]["total_tokens"],
        done["usage"]["total_tokens"]
    );
    for field in [
        "id",
        "created_at",
        "status",
        "completed_at",
        "model",
        "instructions",
        "tools",
    ] {
        assert_eq!(runs[0][field], done[field], "{field}");
    }
    let shown = client.list(&format!("{thread}/runs/run_Done/steps")).await;
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0]["step_details"], steps[0]["step_details"]);
    assert_eq!(shown[1]["step_details"], steps[1]["step_details"]);
    assert_eq!(runs[1]["status"], "expired");
    let shown = client
        .list(&format!("{thread}/runs/run_Waiting/steps"))
        .await;
    assert_eq!(shown[0]["status"], "expired");

    // The conversation continues.
    let plain = json!({"assistant_id": "asst_Hosted", "tools": []});
    let run = client.post(&format!("{thread}/runs"), plain).await;
    let call = model.next_call().await;
    let prompt = call.request["messages"].to_string();
    for text in [
        "Answer from the report.",
        "How large was the profit?",
        "It was 7",
        "And the loss?",
    ] {
        assert!(prompt.contains(text), "{text} is not in {prompt}");
    }
    assert_eq!(call.request["temperature"], 0.2);
    call.answer_text("There was none.").await;
    client
        .wait_for_status("thread_Hosted", &id(&run), &["completed"])
        .await;
    let messages = client.list(&format!("{thread}/messages")).await;
    assert_eq!(messages.len(), 4);
    assert_eq!(
        messages[3]["content"][0]["text"]["value"],
        "There was none."
    );
}

#[tokio::test]
async fn the_contents_of_imported_files_may_come_later() {
    let fixture = TransferFixture::new(&[]).await;
    let client = &fixture.client;
    fixture.does(&["import", text(&sample("hosted"))]);
    let path = "/files/file-HostedData/content";
    let missing = client
        .send(Method::GET, path, None)
        .await
        .expect("the server answers");
    assert_eq!(missing.status, 404);
    let message = missing.body["error"]["message"].to_string();
    assert!(message.contains("imported without them"), "{message}");
    let originals = tempfile::tempdir().expect("the temporary folder is writable");
    let write = |name: &str, text: &str| {
        std::fs::write(originals.path().join(name), text)
            .expect("the temporary folder is writable");
    };
    write("report.csv", "profit,loss\n7,0\n");
    let report = fixture.does(&["import", "--files", text(originals.path())]);
    assert_eq!(
        row(&report, "contents of files"),
        [0, 0],
        "it has another size"
    );
    write("report.csv", "profit,loss\n7,0\n\n");
    write("file-HostedPlot.png", "plot");
    let report = fixture.does(&["import", "--files", text(originals.path())]);
    assert_eq!(row(&report, "contents of files"), [2, 0]);
    let content = client.file_content(&json!("file-HostedData")).await;
    assert_eq!(content, b"profit,loss\n7,0\n\n");
}

#[tokio::test]
async fn plain_lists_are_imported_as_far_as_they_go() {
    let fixture = TransferFixture::new(&[]).await;
    let client = &fixture.client;
    let plain = sample("plain.jsonl");
    let report = fixture.refuses(&["import", text(&plain)]);
    assert!(
        report.contains("thread_Undated: Missing required"),
        "{report}"
    );
    assert!(report.contains("'batch' (1)"), "{report}");
    assert!(
        report.contains("thread_PlainOther itself is not in the export"),
        "{report}"
    );
    assert_eq!(row(&report, "threads"), [2, 0, 1]);
    assert_eq!(row(&report, "messages"), [4, 0, 0]);

    // The file lists messages newest first, and two have the same second.
    let messages = fixture.ids("/threads/thread_Plain/messages").await;
    assert_eq!(messages, ["msg_PlainZero", "msg_PlainOne", "msg_PlainTwo"]);
    let other = client.get("/threads/thread_PlainOther").await;
    assert_eq!(other["created_at"], 1_700_000_100);

    let run = client.create_run("thread_Plain", "asst_Plain").await;
    client
        .wait_for_status("thread_Plain", &run, &["completed"])
        .await;
    let messages = fixture.ids("/threads/thread_Plain/messages").await;
    assert_eq!(messages.len(), 4);
    assert_eq!(
        messages[..3],
        ["msg_PlainZero", "msg_PlainOne", "msg_PlainTwo"]
    );

    // A file without chunks is indexed once its contents are imported.
    let path = "/vector_stores/vs_Plain/files/file-PlainManual";
    let file = client.get(path).await;
    assert_eq!(file["status"], "failed");
    let message = file["last_error"]["message"].to_string();
    assert!(message.contains("assistd import --files"), "{message}");
    let originals = tempfile::tempdir().expect("the temporary folder is writable");
    let original = originals.path().join("manual.txt");
    std::fs::write(original, "Pull the lever, then wait an hour.")
        .expect("the temporary folder is writable");
    let files = text(originals.path());
    fixture.does(&["import", "--files", files]);
    fixture.is_indexed().await;
    let file = client.get(path).await;
    assert_eq!(file["status"], "completed", "{file}");
    assert_eq!(file["attributes"], json!({"lang": "en"}));
    let search = json!({"query": "lever"});
    let found = client.post("/vector_stores/vs_Plain/search", search).await;
    assert_eq!(found["data"][0]["file_id"], "file-PlainManual", "{found}");
}

#[tokio::test]
async fn idle_threads_are_deleted_where_their_project_wants_it() {
    let fixture = TransferFixture::new(&[]).await;
    let shown = fixture.does(&["projects", "retention", "default"]);
    assert!(shown.contains("are kept"), "{shown}");
    fixture.does(&["import", text(&sample("hosted"))]);
    let fresh = fixture.client.create_thread("Hello").await;
    let (busy, late) = (
        fixture.client.create_thread("Hello").await,
        fixture.client.create_thread("Hello").await,
    );
    let old = "update threads set created_at = '2020-01-01' where id = any ($1)";
    let aged = sqlx::query(old).bind([&busy, &late].map(String::as_str));
    aged.execute(&fixture.db.pool)
        .await
        .expect("the server answers");
    let slow = fixture.client.create_assistant("slow").await;
    fixture.client.create_run(&busy, &slow).await;
    // Only its run keeps this thread from deletion.
    let old = "update messages set created_at = '2020-01-01' where thread_id = $1";
    let aged = sqlx::query(old).bind(&busy).execute(&fixture.db.pool).await;
    aged.expect("the server answers");
    let shown = fixture.does(&["projects", "retention", "default", "--days", "30"]);
    assert!(shown.contains("after 30 idle days"), "{shown}");
    // Maintenance runs at the start of a server, and every few minutes afterwards.
    let again = Server::start(&fixture.db, &[]).await;
    eventually("the deletion of an idle thread", || async {
        let threads = again.client().list("/threads").await;
        (!threads.iter().any(|thread| id(thread) == "thread_Hosted")).then_some(())
    })
    .await;
    let mut kept = fixture.ids("/threads").await;
    kept.sort();
    let mut expected = vec![fresh, busy, late];
    expected.sort();
    assert_eq!(kept, expected, "a run or a message keeps a thread");
    let runs = "select count(*) from runs where thread_id = 'thread_Hosted'";
    let runs: i64 = sqlx::query_scalar(runs)
        .fetch_one(&fixture.db.pool)
        .await
        .expect("the server answers");
    assert_eq!(runs, 0);
    let report = fixture.does(&["import", "--dry-run", text(&sample("hosted"))]);
    assert!(
        report.contains("deletes threads that are idle for 30 days"),
        "{report}"
    );
    let shown = fixture.does(&["projects", "retention", "default", "--forever"]);
    assert!(shown.contains("are kept"), "{shown}");
    let refused = fixture.refuses(&["projects", "retention", "nobody's"]);
    assert!(refused.contains("not found"), "{refused}");
}

#[tokio::test]
async fn an_import_counts_the_contents_of_its_own_files_only() {
    let fixture = TransferFixture::new(&[]).await;
    fixture
        .client
        .upload("other.txt", "Not of the import.")
        .await;
    let report = fixture.does(&["import", text(&sample("hosted"))]);
    assert_eq!(row(&report, "files"), [2, 0, 0]);
    assert_eq!(row(&report, "contents of files"), [0, 0]);

    let originals = tempfile::tempdir().expect("the temporary folder is writable");
    let original = originals.path().join("file-HostedPlot.png");
    std::fs::write(original, "plot").expect("the temporary folder is writable");
    let files = text(originals.path());
    let report = fixture.does(&["import", "--files", files]);
    assert_eq!(row(&report, "contents of files"), [1, 0]);
    let report = fixture.does(&["import", text(&sample("hosted"))]);
    assert_eq!(
        row(&report, "contents of files"),
        [0, 1],
        "it is of the import"
    );
}

/// The lines of a report about refused objects.
fn refused(report: &str) -> Vec<&str> {
    let lines = report
        .lines()
        .skip_while(|line| !line.starts_with("Refused ("));
    let lines = lines.skip(1).take_while(|line| line.starts_with("  "));
    lines.map(str::trim).collect()
}

/// The records of a thread with three messages and a run with a step.
fn thread_with_contents(thread: &str, name: &str, created_at: &Value) -> Vec<Value> {
    let message = |n| {
        let content = json!([{"type": "text", "text": {"value": "Hi", "annotations": []}}]);
        json!({"object": "thread.message", "id": format!("msg_{name}{n}"), "created_at": 10,
               "thread_id": thread, "role": "user", "content": content})
    };
    let run = format!("run_{name}");
    vec![
        json!({"object": "thread", "id": thread, "created_at": created_at}),
        json!({"object": "thread.run", "id": run, "created_at": 11, "thread_id": thread,
               "assistant_id": "asst_1", "status": "completed", "model": "gpt-4o"}),
        json!({"object": "thread.run.step", "id": format!("step_{name}"), "created_at": 12,
               "thread_id": thread, "run_id": run, "assistant_id": "asst_1",
               "type": "message_creation", "status": "completed",
               "step_details": {"type": "message_creation",
                                "message_creation": {"message_id": format!("msg_{name}0")}}}),
        message(0),
        message(1),
        message(2),
    ]
}

#[tokio::test]
async fn a_refused_thread_takes_one_line_of_the_report_with_all_that_is_in_it() {
    let fixture = TransferFixture::new(&[]).await;
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let path = folder.path().join("objects.jsonl");
    let write = |objects: &[Value]| {
        let lines: Vec<String> = objects.iter().map(Value::to_string).collect();
        std::fs::write(&path, lines.join("\n")).expect("the temporary folder is writable");
    };
    // One without a date, one with an invalid id, and one that another project owns.
    let taken = thread_with_contents("thread_Taken", "Taken", &json!(1));
    write(&taken);
    fixture.does(&["import", "--project", "other", text(&path)]);
    let undated = thread_with_contents("thread_Undated", "Undated", &Value::Null);
    let misnamed = thread_with_contents("talk-1", "Misnamed", &json!(1));
    write(&[undated, misnamed, taken].concat());
    let report = fixture.refuses(&["import", text(&path)]);
    assert_eq!(row(&report, "threads"), [0, 0, 3]);
    assert_eq!(row(&report, "runs"), [0, 0, 3]);
    assert_eq!(row(&report, "run steps"), [0, 0, 3]);
    assert_eq!(row(&report, "messages"), [0, 0, 9]);
    let lines = refused(&report);
    assert_eq!(lines.len(), 3, "{report}");
    let with = "; refused with it: runs (1), run steps (1), messages (3)";
    assert!(lines.iter().all(|line| line.ends_with(with)), "{report}");
    for reason in [
        "thread_Undated: Missing required",
        "talk-1: ",
        "belongs to another project",
    ] {
        let about_it = lines.iter().filter(|line| line.contains(reason)).count();
        assert_eq!(about_it, 1, "{reason}: {report}");
    }
}
