//! Vector stores created with assistants and threads, and attachments of messages.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, id};
use crate::cluster::Db;
use crate::server::Server;

async fn stage(settings: &[(&str, &str)]) -> (Db, Server, Client) {
    let db = Db::new().await;
    let server = Server::start(&db, settings).await;
    let client = server.client();
    (db, server, client)
}

async fn file(client: &Client) -> String {
    id(&client.upload("a.txt", "a").await)
}

/// A message that attaches a file for `file_search`.
fn message(file: &str) -> Value {
    let tools = json!([{"type": "file_search"}]);
    json!({"role": "user", "content": "Hi", "attachments": [{"file_id": file, "tools": tools}]})
}

/// The one vector store of an assistant or a thread.
fn store_of(object: &Value) -> String {
    let ids = object["tool_resources"]["file_search"]["vector_store_ids"].as_array();
    match ids.map(Vec::as_slice) {
        Some([Value::String(store)]) => store.clone(),
        _ => panic!("one store was expected in {object}"),
    }
}

async fn files_in(client: &Client, store: &str) -> Vec<String> {
    let files = client.list(&format!("/vector_stores/{store}/files")).await;
    files.iter().map(id).collect()
}

#[tokio::test]
async fn helpers_make_the_stores_they_describe() {
    let (db, _server, client) = stage(&[]).await;
    db.disable_indexing().await;
    let files = [file(&client).await, file(&client).await];
    let sizes = json!({"max_chunk_size_tokens": 1200, "chunk_overlap_tokens": 250});
    let helper = json!({
        "file_ids": files, "metadata": {"a": "b"},
        "chunking_strategy": {"type": "static", "static": sizes},
    });
    let resources = json!({"file_search": {"vector_stores": [helper]}});
    let assistant = json!({
        "model": "scripted/hello", "tools": [{"type": "file_search"}], "tool_resources": resources,
    });
    let assistant = client.post("/assistants", assistant).await;
    let thread = json!({"tool_resources": resources});
    let thread = client.post("/threads", thread).await;
    for (object, expiry) in [
        (&assistant, Value::Null),
        (&thread, json!({"anchor": "last_active_at", "days": 7})),
    ] {
        let store = client
            .get(&format!("/vector_stores/{}", store_of(object)))
            .await;
        assert_eq!(store["expires_after"], expiry, "{object}");
        assert_eq!(store["metadata"], json!({"a": "b"}));
        assert_eq!(store["file_counts"]["in_progress"], 2);
        let listed = client
            .list(&format!("/vector_stores/{}/files", id(&store)))
            .await;
        let cut: Vec<_> = listed
            .iter()
            .map(|f| &f["chunking_strategy"]["static"])
            .collect();
        assert_eq!(cut, [&sizes, &sizes]);
    }
    let kept = json!({"file_search": {"vector_store_ids": [store_of(&assistant)]}});
    let path = format!("/assistants/{}", id(&assistant));
    let echoed = client.post(&path, json!({"tool_resources": kept})).await;
    assert_eq!(echoed["tool_resources"], kept);

    let both = json!({"vector_stores": [helper], "vector_store_ids": [store_of(&thread)]});
    let nobodys = json!({"vector_store_ids": ["vs_nobodys"]});
    let refusals = [
        ("/threads", json!({"file_search": both}), 400),
        ("/threads", json!({"file_search": nobodys}), 404),
        (
            &*path,
            json!({"file_search": {"vector_stores": [helper]}}),
            400,
        ),
        (&*path, json!({"file_search": nobodys}), 404),
        (
            "/threads",
            json!({"file_search": {"vector_stores": [{"file_ids": ["file-nobodys"]}]}}),
            404,
        ),
    ];
    for (path, resources, status) in refusals {
        let body = json!({"tool_resources": resources});
        let sent = client.send(Method::POST, path, Some(&body)).await;
        let reply = sent.expect("the server answers");
        assert_eq!(reply.status, status, "{path} {body}: {reply:?}");
    }
    assert_eq!(client.list("/vector_stores").await.len(), 2);
}

#[tokio::test]
async fn attachments_make_the_threads_store_and_then_fill_it() {
    let (_db, _server, client) = stage(&[]).await;
    let mut files = Vec::new();
    for _ in 0..5 {
        files.push(file(&client).await);
    }
    let thread = client.post("/threads", json!({})).await;
    let path = format!("/threads/{}", id(&thread));
    let messages = format!("{path}/messages");
    let created = client.post(&messages, message(&files[0])).await;
    assert_eq!(created["attachments"], message(&files[0])["attachments"]);
    let store = store_of(&client.get(&path).await);
    let made = client.get(&format!("/vector_stores/{store}")).await;
    assert_eq!(made["expires_after"]["days"], 7);
    client.post(&messages, message(&files[1])).await;
    client.post(&messages, message(&files[1])).await;
    assert_eq!(store_of(&client.get(&path).await), store);

    // So do attachments of messages that a run adds.
    let assistant = client.create_assistant("hello").await;
    let run = json!({"assistant_id": assistant, "additional_messages": [message(&files[2])]});
    let run = client.post(&format!("{path}/runs"), run).await;
    client
        .wait_for_status(&id(&thread), &id(&run), &["completed"])
        .await;
    assert_eq!(files_in(&client, &store).await, files[..3]);

    // Attachments of a new thread go to the store of its resources, or to a new store.
    let body = json!({
        "messages": [message(&files[3]), message(&files[4]), message(&files[3])],
        "tool_resources": {"file_search": {"vector_store_ids": [store]}},
    });
    let second = client.post("/threads", body).await;
    assert_eq!(store_of(&second), store);
    assert_eq!(files_in(&client, &store).await, files);
    let body = json!({
        "messages": [message(&files[0])],
        "tool_resources": {"file_search": {"vector_stores": [{"file_ids": [files[1]]}]}},
    });
    let third = store_of(&client.post("/threads", body).await);
    assert_eq!(files_in(&client, &third).await, [&*files[1], &*files[0]]);
    let body = json!({"assistant_id": assistant, "thread": {"messages": [message(&files[4])]}});
    let run = client.post("/threads/runs", body).await;
    let fourth = run["thread_id"].as_str().expect("a run has a thread");
    let fourth = store_of(&client.get(&format!("/threads/{fourth}")).await);
    assert_eq!(files_in(&client, &fourth).await, files[4..]);

    // A thread whose store was deleted gets a new one.
    let gone = client
        .send(Method::DELETE, &format!("/vector_stores/{store}"), None)
        .await;
    assert_eq!(gone.expect("the server answers").status, 200);
    client.post(&messages, message(&files[4])).await;
    let another = store_of(&client.get(&path).await);
    assert_ne!(another, store);
    assert_eq!(files_in(&client, &another).await, files[4..]);
}

#[tokio::test]
async fn one_file_may_be_for_both_tools() {
    let (_db, _server, client) = stage(&[]).await;
    let file = file(&client).await;
    let tools = json!([{"type": "file_search"}, {"type": "code_interpreter"}]);
    let body = json!({
        "role": "user", "content": "Hi", "attachments": [{"file_id": file, "tools": tools}],
    });
    let new = client.post("/threads", json!({"messages": [body]})).await;
    let old = id(&client.post("/threads", json!({})).await);
    client.post(&format!("/threads/{old}/messages"), body).await;
    for thread in [new, client.get(&format!("/threads/{old}")).await] {
        let resources = &thread["tool_resources"];
        assert_eq!(resources["code_interpreter"], json!({"file_ids": [file]}));
        assert_eq!(files_in(&client, &store_of(&thread)).await, [&*file]);
    }
}

#[tokio::test]
async fn the_expiry_of_threads_stores_is_a_setting() {
    for (setting, expiry) in [
        ("0", Value::Null),
        ("30d", json!({"anchor": "last_active_at", "days": 30})),
    ] {
        let (_db, _server, client) = stage(&[("ASSISTD_THREAD_STORE_EXPIRY", setting)]).await;
        let messages = json!([message(&file(&client).await)]);
        let thread = client.post("/threads", json!({"messages": messages})).await;
        let store = format!("/vector_stores/{}", store_of(&thread));
        let store = client.get(&store).await;
        assert_eq!(store["expires_after"], expiry, "{setting}");
    }
}

#[tokio::test]
async fn attaching_and_deleting_side_by_side_neither_fails_nor_loses_a_file() {
    let (_db, _server, client) = stage(&[]).await;
    let thread = client.post("/threads", json!({})).await;
    let path = format!("/threads/{}", id(&thread));
    let messages = format!("{path}/messages");
    for _ in 0..5 {
        let files = join_all((0..8).map(|_| file(&client))).await;
        let attach = files.iter().map(|file| {
            let (client, messages) = (&client, &messages);
            async move {
                client.post(messages, message(file)).await;
            }
        });
        let now = client.get(&path).await;
        let now = now["tool_resources"]["file_search"]["vector_store_ids"][0].as_str();
        let delete = async {
            if let Some(store) = now {
                let path = format!("/vector_stores/{store}");
                let reply = client.send(Method::DELETE, &path, None).await;
                assert_eq!(reply.expect("the server answers").status, 200);
            }
        };
        futures::join!(join_all(attach), delete);
        if now.is_none() {
            let store = store_of(&client.get(&path).await);
            let (mut there, mut files) = (files_in(&client, &store).await, files.clone());
            there.sort();
            files.sort();
            assert_eq!(there, files, "nothing was deleted");
        }
        client.post(&messages, message(&files[0])).await;
        let store = store_of(&client.get(&path).await);
        assert!(!files_in(&client, &store).await.is_empty());
    }
}
