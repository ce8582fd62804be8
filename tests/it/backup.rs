//! Executes the backup and restore commands of the operations guide on a server under load.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, id};
use crate::eventually;
use crate::process::assistd;
use crate::server::Server;

const GUIDE: &str = include_str!("../../docs/operations.md");

/// The clients' API key before and after the restore.
const KEY: &str = "key-of-acme";

/// The commands below a heading of the guide.
fn commands(heading: &str) -> &'static str {
    let (_, section) = GUIDE
        .split_once(&format!("### {heading}\n"))
        .unwrap_or_else(|| panic!("the guide has no section {heading:?}"));
    let (_, block) = section
        .split_once("```sh\n")
        .expect("the section has a block of commands");
    let (block, _) = block.split_once("```").expect("the block ends");
    block
}

/// Runs shell commands with `assistd` on the path.
fn operate(commands: &str, data_dir: &Path, backup: &Path) {
    // Used for its environment, which has no settings except those of tests.
    let clean = assistd(data_dir);
    let program = Path::new(clean.get_program());
    let folder = program.parent().expect("a program is in a folder");
    let path = std::env::var("PATH").expect("tests have a path");
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", commands]);
    for (name, value) in clean.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("BACKUP", backup);
    let output = shell.output().expect("the system has a shell");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{printed}");
}

/// Reads the resources at these paths.
async fn read_all(client: &Client, paths: &[String]) -> Vec<Value> {
    let mut bodies = Vec::new();
    for path in paths {
        bodies.push(client.get(path).await);
    }
    bodies
}

/// Creates a vector store with a file and waits until it is indexed; the store's id.
async fn index(client: &Client, file: &str) -> String {
    let store = json!({"name": "Wrecks", "file_ids": [file]});
    let store = id(&client.post("/vector_stores", store).await);
    eventually("the file is indexed", || async {
        let store = client.get(&format!("/vector_stores/{store}")).await;
        (store["file_counts"]["completed"] == 1).then_some(())
    })
    .await;
    store
}

/// Submits an output to the run, and waits until it is completed.
async fn submit_output(client: &Client, thread: &str, waiting: &Value) {
    let call = &waiting["required_action"]["submit_tool_outputs"]["tool_calls"][0]["id"];
    let outputs = json!({"tool_outputs": [{"tool_call_id": call, "output": "sun"}]});
    let run = id(waiting);
    let submit = format!("/threads/{thread}/runs/{run}/submit_tool_outputs");
    client.post(&submit, outputs).await;
    client.wait_for_status(thread, &run, &["completed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_working_server_brings_everything_back() {
    let settings = [("ASSISTD_EMBEDDING_MODEL", "scripted/embeddings")];
    let seeded = [&settings[..], &[("ASSISTD_API_KEYS", "acme:key-of-acme")]].concat();
    let server = Server::start_at("", &seeded).await;
    let client = server.client_with_key(KEY);

    let text = "The wreck lies at four fathoms. ".repeat(500);
    let file = client.upload("wreck.txt", &text).await;
    let file_id = id(&file);
    let store = index(&client, &file_id).await;
    let question = json!({"query": "How deep is the wreck?"});
    let search = format!("/vector_stores/{store}/search");
    let found = client.post(&search, question.clone()).await;
    assert!(
        !found["data"].as_array().is_none_or(Vec::is_empty),
        "{found}"
    );

    let done = client.create_thread("Hello?").await;
    let assistant = client.create_assistant("hello").await;
    let run = client.create_run(&done, &assistant).await;
    client.wait_for_status(&done, &run, &["completed"]).await;

    // One run waits for tool outputs, another one is in progress.
    let (asking, busy) = (
        client.create_thread("Rain?").await,
        client.create_thread("Count.").await,
    );
    let weather = json!({
        "model": "scripted/weather",
        "tools": [{"type": "function", "function": {"name": "get_weather"}}],
    });
    let weather = client.create_assistant_with(weather).await;
    let asking_run = client.create_run(&asking, &weather).await;
    let waiting = client
        .wait_for_status(&asking, &asking_run, &["requires_action"])
        .await;
    let slow = client.create_assistant("slow").await;
    let counting = client.create_run(&busy, &slow).await;
    client
        .wait_for_status(&busy, &counting, &["in_progress"])
        .await;

    let mut paths: Vec<String> = ["/assistants", "/vector_stores"].map(String::from).into();
    paths.extend([
        format!("/assistants/{assistant}"),
        format!("/files/{file_id}"),
        format!("/vector_stores/{store}/files"),
    ]);
    for thread in [&done, &asking] {
        paths.push(format!("/threads/{thread}"));
        paths.push(format!("/threads/{thread}/messages"));
        paths.push(format!("/threads/{thread}/runs"));
    }
    paths.push(format!("/threads/{done}/runs/{run}/steps"));
    let before = read_all(&client, &paths).await;

    let place = tempfile::tempdir().expect("the temporary folder is writable");
    let backup = place.path().join("backup");
    // Files are uploaded during the backup.
    for (n, command) in commands("Back up").lines().enumerate() {
        operate(command, &server.folder, &backup);
        client
            .upload(&format!("{n}.txt"), format!("file {n}"))
            .await;
    }
    // Created after the backup, so not restored.
    client.create_thread("What comes after the backup?").await;
    server.kill().await;

    let data_dir = crate::cluster::cluster().folder();
    operate(commands("Restore"), &data_dir, &backup);
    let server = Server::start_in(&data_dir, "", &settings).await;
    let client = server.client_with_key(KEY);
    let stranger = server.client_with_key("another-key");
    let refused = stranger.send(Method::GET, "/assistants", None).await;
    assert_eq!(
        refused.expect("the server answers").status,
        401,
        "keys are back too"
    );
    assert_eq!(read_all(&client, &paths).await, before);
    assert_eq!(client.file_content(&file["id"]).await, text.as_bytes());
    assert_eq!(client.post(&search, question).await, found);
    let files = client.list("/files").await;
    assert!(
        files.len() > 1,
        "some came in before the database was copied"
    );
    for file in files {
        client.file_content(&file["id"]).await;
    }

    // The restored runs continue.
    submit_output(&client, &asking, &waiting).await;
    let cancel = format!("/threads/{busy}/runs/{counting}/cancel");
    client.post(&cancel, json!({})).await;
    client
        .wait_for_status(&busy, &counting, &["cancelled"])
        .await;
    let again = client.create_run(&done, &assistant).await;
    client.wait_for_status(&done, &again, &["completed"]).await;
}

#[test]
fn programs_are_run_on_the_embedded_database_only() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let query = ["postgres", "psql", "-At", "-c", "select current_user"];
    let output = crate::process::output(assistd(folder.path()).args(query));
    let printed = crate::process::text(&output);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("assistd"), "{printed}");
    let wrong = ["postgres", "psql", "-c", "selec"];
    let failed = crate::process::output(assistd(folder.path()).args(wrong));
    assert_eq!(failed.status.code(), Some(1), "the program's own code");

    let mut elsewhere = assistd(folder.path());
    elsewhere.env("DATABASE_URL", "postgres://somebody@127.0.0.1:9/somewhere");
    let refused = crate::process::output(elsewhere.args(query));
    assert!(!refused.status.success());
    let printed = crate::process::text(&refused);
    assert!(
        printed.contains("for the embedded database only"),
        "{printed}"
    );
}
