//! Vector stores, their files and file batches. Indexing is disabled: tests set the files' status in
//! the database.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Reply, id};
use crate::cluster::Db;
use crate::server::Server;

/// A server with disabled indexing.
async fn start() -> (Db, Server, Client) {
    let db = Db::new().await;
    db.disable_indexing().await;
    let server = Server::start(&db, &[]).await;
    let client = server.client();
    (db, server, client)
}

async fn files(client: &Client, count: usize) -> Vec<String> {
    let mut files = Vec::new();
    for n in 0..count {
        files.push(id(&client
            .upload(&format!("{n}.txt"), &format!("text {n}"))
            .await));
    }
    files
}

async fn store(client: &Client, body: Value) -> String {
    id(&client.post("/vector_stores", body).await)
}

async fn refused(client: &Client, path: &str, body: Value) -> Reply {
    let sent = client.send(Method::POST, path, Some(&body)).await;
    let reply = sent.expect("the server answers");
    assert_eq!(reply.status, 400, "{path} {body}: {reply:?}");
    reply
}

async fn delete(client: &Client, path: &str) -> Value {
    let sent = client.send(Method::DELETE, path, None).await;
    let reply = sent.expect("the server answers");
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.body
}

async fn sql(db: &Db, statement: &'static str) {
    let done = sqlx::raw_sql(statement).execute(&db.pool).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Sets the status of all files in progress.
async fn end_all(db: &Db, status: &str) {
    let error = json!({"code": "unsupported_file", "message": "No."});
    sqlx::query(
        "update vector_store_files set status = $1, due_at = null, usage_bytes = 10,
             last_error = case when $1 = 'failed' then $2::jsonb end",
    )
    .bind(status)
    .bind(sqlx::types::Json(error))
    .execute(&db.pool)
    .await
    .expect("the database answers");
}

fn ids(list: &Value) -> Vec<String> {
    let data = list["data"].as_array().expect("a list has `data`");
    data.iter().map(id).collect()
}

#[tokio::test]
async fn a_store_tells_how_far_its_files_are() {
    let (db, _server, client) = start().await;
    let empty = client.post("/vector_stores", json!({})).await;
    let counts = |in_progress: i64, completed: i64, failed: i64| {
        json!({"in_progress": in_progress, "completed": completed, "failed": failed,
               "cancelled": 0, "total": in_progress + completed + failed})
    };
    assert_eq!(
        empty,
        json!({
            "id": empty["id"], "object": "vector_store", "created_at": empty["created_at"],
            "name": null, "description": null, "usage_bytes": 0, "file_counts": counts(0, 0, 0),
            "status": "completed", "expires_after": null, "expires_at": null,
            "last_active_at": empty["created_at"], "metadata": {},
        })
    );
    let files = files(&client, 3).await;
    let made = client
        .post(
            "/vector_stores",
            json!({
                "name": "Manuals", "description": "All of them.", "file_ids": files,
                "expires_after": {"anchor": "last_active_at", "days": 3}, "metadata": {"a": "b"},
            }),
        )
        .await;
    let expires_at = made["created_at"]
        .as_i64()
        .expect("the value is in seconds")
        + 3 * 86_400;
    assert_eq!(made["status"], "in_progress");
    assert_eq!(made["file_counts"], counts(3, 0, 0));
    assert_eq!(made["name"], "Manuals");
    assert_eq!(made["description"], "All of them.");
    assert_eq!(made["metadata"], json!({"a": "b"}));
    assert_eq!(made["expires_at"], expires_at);
    let path = format!("/vector_stores/{}", id(&made));
    assert_eq!(client.get(&path).await, made);

    end_all(&db, "completed").await;
    sqlx::query(
        "update vector_store_files set status = 'failed', usage_bytes = 0,
             last_error = '{\"code\": \"invalid_file\", \"message\": \"No.\"}' where file_id = $1",
    )
    .bind(&files[0])
    .execute(&db.pool)
    .await
    .expect("the database answers");
    let done = client.get(&path).await;
    assert_eq!(done["status"], "completed");
    assert_eq!(done["file_counts"], counts(0, 2, 1));
    assert_eq!(done["usage_bytes"], 20);
    let failed = client.get(&format!("{path}/files/{}", files[0])).await;
    assert_eq!(
        failed["last_error"],
        json!({"code": "invalid_file", "message": "No."})
    );
    assert_eq!(
        ids(&client.get("/vector_stores").await),
        [id(&made), id(&empty)]
    );

    let changed = client
        .post(&path, json!({"name": null, "expires_after": null}))
        .await;
    assert_eq!(changed["name"], Value::Null);
    assert_eq!(changed["expires_at"], Value::Null);
    assert_eq!(changed["metadata"], json!({"a": "b"}));
    assert_eq!(changed["description"], "All of them.");
}

#[tokio::test]
async fn files_are_listed_in_order_by_cursors_that_know_their_store() {
    let (db, _server, client) = start().await;
    let files = files(&client, 5).await;
    let backwards: Vec<String> = files.iter().rev().cloned().collect();
    let one = store(&client, json!({"file_ids": files})).await;
    let other = store(&client, json!({"file_ids": backwards})).await;
    let list = |store: &str, query: &str| {
        let path = format!("/vector_stores/{store}/files?{query}");
        let client = client.clone();
        async move { client.get(&path).await }
    };
    assert_eq!(ids(&list(&one, "").await), backwards);
    assert_eq!(ids(&list(&one, "order=asc").await), files);
    assert_eq!(ids(&list(&other, "order=asc").await), backwards);
    let page = list(&one, &format!("order=asc&limit=2&after={}", files[1])).await;
    assert_eq!(ids(&page), files[2..4]);
    assert_eq!(page["has_more"], true);
    let page = list(&other, &format!("order=asc&limit=2&after={}", files[1])).await;
    assert_eq!(ids(&page), files[..1]);
    assert_eq!(page["has_more"], false);
    let page = list(&one, &format!("order=asc&before={}", files[2])).await;
    assert_eq!(ids(&page), files[..2]);

    sqlx::query(
        "update vector_store_files set status = 'completed', due_at = null
         where vector_store_id = $1 and file_id = any ($2)",
    )
    .bind(&one)
    .bind(&files[1..3])
    .execute(&db.pool)
    .await
    .expect("the database answers");
    let completed = list(&one, "order=asc&filter=completed").await;
    assert_eq!(ids(&completed), files[1..3]);
    let waiting = list(
        &one,
        &format!("order=asc&filter=in_progress&after={}", files[1]),
    )
    .await;
    assert_eq!(ids(&waiting), files[3..]);
    let path = format!("/vector_stores/{one}/files?filter=done");
    let reply = client.send(Method::GET, &path, None).await;
    assert_eq!(reply.expect("the server answers").status, 400);

    let alone = store(&client, json!({"file_ids": files[..1]})).await;
    let path = format!("/vector_stores/{alone}/files?after={}", files[1]);
    let reply = client.send(Method::GET, &path, None).await;
    assert_eq!(reply.expect("the server answers").status, 400);
}

#[tokio::test]
async fn a_file_that_is_added_again_is_indexed_again_only_if_it_has_to_be() {
    let (db, _server, client) = start().await;
    let files = files(&client, 1).await;
    let path = format!("/vector_stores/{}/files", store(&client, json!({})).await);
    let add = |more: Value| {
        let mut body = json!({"file_id": files[0]});
        let fields = body.as_object_mut().expect("the body is an object");
        fields.extend(more.as_object().cloned().unwrap_or_default());
        let (client, path) = (client.clone(), path.clone());
        async move { client.post(&path, body).await }
    };
    let static_of = |size: i64, overlap: i64| {
        json!({"type": "static", "static": {
            "max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}})
    };
    let added = add(json!({"attributes": {"year": 2024, "draft": false, "by": "Ana"}})).await;
    assert_eq!(
        added,
        json!({
            "id": files[0], "object": "vector_store.file", "usage_bytes": 0,
            "created_at": added["created_at"], "vector_store_id": added["vector_store_id"],
            "status": "in_progress", "last_error": null, "chunking_strategy": static_of(800, 400),
            "attributes": {"year": 2024, "draft": false, "by": "Ana"},
        })
    );
    end_all(&db, "completed").await;
    let rubbish = || async {
        let count = sqlx::query_scalar("select count(*) from dropped_store_files");
        let count: i64 = count.fetch_one(&db.pool).await.expect("the server answers");
        count
    };

    let again = add(json!({})).await;
    assert_eq!(again["status"], "completed");
    assert_eq!(again["attributes"]["year"], 2024);
    let again = add(json!({"attributes": {"year": 2025}})).await;
    assert_eq!(again["status"], "completed");
    assert_eq!(again["attributes"], json!({"year": 2025}));
    assert_eq!(rubbish().await, 0);

    let again = add(json!({"chunking_strategy": static_of(200, 100)})).await;
    assert_eq!(again["status"], "in_progress");
    assert_eq!(again["chunking_strategy"], static_of(200, 100));
    assert_eq!(again["attributes"], json!({"year": 2025}));
    assert_eq!(again["usage_bytes"], 0);
    assert_eq!(rubbish().await, 1);

    end_all(&db, "failed").await;
    let again = add(json!({})).await;
    assert_eq!(again["status"], "in_progress");
    assert_eq!(again["last_error"], Value::Null);
    assert_eq!(again["chunking_strategy"], static_of(200, 100));
    assert_eq!(rubbish().await, 2);
    let again = add(json!({"chunking_strategy": {"type": "auto"}})).await;
    assert_eq!(again["chunking_strategy"], static_of(800, 400));
    assert_eq!(client.list(&path).await.len(), 1);

    let file = format!("{path}/{}", files[0]);
    let changed = client
        .post(&file, json!({"attributes": {"by": "Bo", "n": 1.5}}))
        .await;
    assert_eq!(changed["attributes"], json!({"by": "Bo", "n": 1.5}));
    let cleared = client.post(&file, json!({"attributes": null})).await;
    assert_eq!(cleared["attributes"], json!({}));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_where_it_stands() {
    let (_db, _server, client) = start().await;
    let file = id(&client.upload("a.txt", "a").await);
    let path = format!("/vector_stores/{}", store(&client, json!({})).await);
    let (one, batch) = (format!("{path}/files"), format!("{path}/file_batches"));
    let sizes = |size: i64, overlap: i64| {
        json!({"file_id": file, "chunking_strategy": {"type": "static", "static": {
            "max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}}})
    };
    let many: serde_json::Map<String, Value> = (0..17).map(|n| (n.to_string(), json!(n))).collect();
    let above = "integer_above_max_value";
    let cases = [
        (&one, json!({}), "file_id", "missing_required_parameter"),
        (
            &one,
            sizes(99, 0),
            "chunking_strategy.static.max_chunk_size_tokens",
            "integer_below_min_value",
        ),
        (
            &one,
            sizes(4097, 0),
            "chunking_strategy.static.max_chunk_size_tokens",
            above,
        ),
        (
            &one,
            sizes(301, 151),
            "chunking_strategy.static.chunk_overlap_tokens",
            "invalid_value",
        ),
        (
            &one,
            json!({"file_id": file, "attributes": many}),
            "attributes",
            "object_above_max_properties",
        ),
        (
            &one,
            json!({"file_id": file, "attributes": {"k": "x".repeat(513)}}),
            "attributes.k",
            "string_above_max_length",
        ),
        (
            &one,
            json!({"file_id": file, "attributes": {"k": ["x"]}}),
            "attributes.k",
            "invalid_type",
        ),
        (&batch, json!({}), "file_ids", "missing_required_parameter"),
        (&batch, json!({"file_ids": []}), "file_ids", "empty_array"),
        (
            &batch,
            json!({"file_ids": [file], "files": [{"file_id": file}]}),
            "files",
            "invalid_value",
        ),
        (
            &batch,
            json!({"files": [{"file_id": file}], "attributes": {"a": "b"}}),
            "attributes",
            "invalid_value",
        ),
        (
            &batch,
            json!({"files": [{"file_id": file}, {"file_id": file}]}),
            "files[1].file_id",
            "invalid_value",
        ),
        (
            &path,
            json!({"expires_after": {"anchor": "last_active_at", "days": 366}}),
            "expires_after.days",
            above,
        ),
        (
            &path,
            json!({"expires_after": {"anchor": "created_at", "days": 1}}),
            "expires_after.anchor",
            "invalid_value",
        ),
    ];
    for (path, body, param, code) in cases {
        let error = refused(&client, path, body.clone()).await.body["error"].clone();
        assert_eq!(
            (&error["param"], &error["code"]),
            (&json!(param), &json!(code)),
            "{body}: {error}"
        );
    }
    let files = vec![file.as_str(); 501];
    refused(&client, "/vector_stores", json!({"file_ids": files})).await;
    assert_eq!(client.list(&one).await, Vec::<Value>::new());
}

#[tokio::test]
async fn what_does_not_exist_is_named_by_the_error() {
    let (_db, _server, client) = start().await;
    let file = id(&client.upload("a.txt", "a").await);
    let path = format!("/vector_stores/{}", store(&client, json!({})).await);
    let missing = [
        (
            "/vector_stores/vs_none",
            "No vector store found with id 'vs_none'.",
        ),
        (
            &*format!("{path}/files/{file}"),
            &*format!(
                "No file found with id '{file}' in vector store '{}'.",
                path.trim_start_matches("/vector_stores/")
            ),
        ),
        (
            &*format!("{path}/file_batches/vsfb_none"),
            "No vector store file batch found with id 'vsfb_none'.",
        ),
    ];
    for (path, text) in missing {
        let reply = client.send(Method::GET, path, None).await;
        let reply = reply.expect("the server answers");
        assert_eq!(
            (reply.status, &reply.body["error"]["message"]),
            (404, &json!(text))
        );
    }
}

#[tokio::test]
async fn a_batch_is_followed_and_cancelled_as_one() {
    let (db, _server, client) = start().await;
    let files = files(&client, 4).await;
    let store = store(&client, json!({})).await;
    let batches = format!("/vector_stores/{store}/file_batches");
    let made = client
        .post(
            &batches,
            json!({"file_ids": [files[0], files[1], files[0]], "attributes": {"a": true},
                   "chunking_strategy": {"type": "static", "static": {
                       "max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}}}),
        )
        .await;
    let counts = |in_progress: i64, completed: i64, cancelled: i64| {
        json!({"in_progress": in_progress, "completed": completed, "failed": 0,
               "cancelled": cancelled, "total": in_progress + completed + cancelled})
    };
    assert_eq!(
        made,
        json!({
            "id": made["id"], "object": "vector_store.file_batch", "status": "in_progress",
            "created_at": made["created_at"], "vector_store_id": store,
            "file_counts": counts(2, 0, 0),
        })
    );
    let path = format!("{batches}/{}", id(&made));
    let listed = client.get(&format!("{path}/files?order=asc")).await;
    assert_eq!(ids(&listed), files[..2]);
    for file in listed["data"].as_array().expect("a list has `data`") {
        assert_eq!(file["attributes"], json!({"a": true}));
        let sizes = &file["chunking_strategy"]["static"];
        assert_eq!(sizes["max_chunk_size_tokens"], 100);
    }
    end_all(&db, "completed").await;
    assert_eq!(client.get(&path).await["status"], "completed");
    let cancelled = client.post(&format!("{path}/cancel"), json!({})).await;
    assert_eq!(cancelled["status"], "completed");

    // The second batch includes a file of the first.
    let each = json!([
        {"file_id": files[1], "attributes": {"n": 1}},
        {"file_id": files[2]},
        {"file_id": files[3], "attributes": {"n": 3}, "chunking_strategy": {"type": "auto"}},
    ]);
    let second = client.post(&batches, json!({"files": each})).await;
    assert_eq!(second["file_counts"], counts(2, 1, 0));
    let second = format!("{batches}/{}", id(&second));
    let waiting = format!("{second}/files?order=asc&filter=in_progress");
    assert_eq!(ids(&client.get(&waiting).await), files[2..]);
    let listed = client.list(&format!("{second}/files")).await;
    let attributes: Vec<&Value> = listed.iter().map(|file| &file["attributes"]).collect();
    assert_eq!(attributes, [&json!({"n": 1}), &json!({}), &json!({"n": 3})]);
    let cancelled = client.post(&format!("{second}/cancel"), json!({})).await;
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(cancelled["file_counts"], counts(0, 1, 2));
    let whole = client.get(&format!("/vector_stores/{store}")).await;
    assert_eq!(whole["status"], "completed");
    assert_eq!(whole["file_counts"], counts(0, 2, 2));
    let due: i64 =
        sqlx::query_scalar("select count(*) from vector_store_files where due_at is not null")
            .fetch_one(&db.pool)
            .await
            .expect("the database answers");
    assert_eq!(due, 0, "nothing waits any more");

    let other = self::store(&client, json!({})).await;
    let elsewhere = second.replace(&store, &other);
    let reply = client.send(Method::GET, &elsewhere, None).await;
    assert_eq!(reply.expect("the server answers").status, 404);
}

#[tokio::test]
async fn an_expired_store_takes_nothing_until_it_is_revived() {
    let (db, _server, client) = start().await;
    let files = files(&client, 2).await;
    let week = json!({"anchor": "last_active_at", "days": 7});
    let store = store(
        &client,
        json!({"expires_after": week, "file_ids": files[..1]}),
    )
    .await;
    let path = format!("/vector_stores/{store}");
    let resources = json!({"file_search": {"vector_store_ids": [store]}});
    let thread = client
        .post("/threads", json!({"tool_resources": resources}))
        .await;
    let thread = id(&thread);
    sql(
        &db,
        "update vector_stores set last_active_at = now() - interval '167 hours'",
    )
    .await;
    assert_eq!(client.get(&path).await["status"], "in_progress");
    sql(
        &db,
        "update vector_stores set last_active_at = now() - interval '168 hours'",
    )
    .await;
    assert_eq!(client.get(&path).await["status"], "expired");

    let attachments = json!([{"file_id": files[1], "tools": [{"type": "file_search"}]}]);
    let message = json!({"role": "user", "content": "Hi", "attachments": attachments});
    let messages = format!("/threads/{thread}/messages");
    for (to, body) in [
        (format!("{path}/files"), json!({"file_id": files[1]})),
        (format!("{path}/file_batches"), json!({"file_ids": files})),
        (messages.clone(), message.clone()),
        (
            "/threads".to_owned(),
            json!({"messages": [message], "tool_resources": resources}),
        ),
    ] {
        let reply = refused(&client, &to, body).await;
        let text = format!("Vector store '{store}' has expired.");
        assert_eq!(reply.body["error"]["message"], text, "{to}");
    }
    assert_eq!(client.list(&messages).await, Vec::<Value>::new());
    assert_eq!(client.list(&format!("{path}/files")).await.len(), 1);
    let search = format!("{path}/search");
    refused(&client, &search, json!({"query": "anything"})).await;
    assert_eq!(client.get(&path).await["status"], "expired", "still");

    client.post(&path, json!({"expires_after": null})).await;
    assert_eq!(client.get(&path).await["status"], "in_progress");
    client.post(&messages, message).await;
    assert_eq!(client.list(&format!("{path}/files")).await.len(), 2);
}

#[tokio::test]
async fn a_search_defers_expiry() {
    let (db, _server, client) = start().await;
    let day = json!({"anchor": "last_active_at", "days": 1});
    let store = store(&client, json!({"expires_after": day})).await;
    let path = format!("/vector_stores/{store}");
    let before = client.get(&path).await["last_active_at"].clone();
    let age = "update vector_stores set last_active_at = now() - interval '23 hours'";
    sql(&db, age).await;
    let aged = client.get(&path).await;
    assert!(aged["last_active_at"].as_i64() < before.as_i64(), "{aged}");
    let search = format!("{path}/search");
    client.post(&search, json!({"query": "anything"})).await;
    let used = client.get(&path).await;
    assert!(used["last_active_at"].as_i64() >= before.as_i64(), "{used}");
    let due = used["last_active_at"].as_i64().map(|at| at + 86_400);
    assert_eq!(used["expires_at"].as_i64(), due);
}

#[tokio::test]
async fn a_store_has_ten_thousand_files_at_most() {
    let (db, _server, client) = start().await;
    let files = files(&client, 2).await;
    let store = store(&client, json!({"file_ids": files[..1]})).await;
    sql(
        &db,
        "insert into files (id, project_id, filename, bytes, purpose)
             select 'file-' || n, (select project_id from files limit 1), 'a.txt', 1, 'assistants'
             from generate_series(2, 10000) as n;
         insert into vector_store_files (vector_store_id, file_id, project_id, status,
                                         chunk_tokens, chunk_overlap)
             select s.id, f.id, s.project_id, 'completed', 800, 400
             from vector_stores as s, files as f where f.id ~ '^file-[0-9]{1,5}$'",
    )
    .await;
    let path = format!("/vector_stores/{store}");
    assert_eq!(client.get(&path).await["file_counts"]["total"], 10_000);
    let adding = format!("{path}/files");
    let reply = refused(&client, &adding, json!({"file_id": files[1]})).await;
    assert_eq!(reply.body["error"]["code"], "max_files_exceeded");
    refused(
        &client,
        &format!("{path}/file_batches"),
        json!({"file_ids": files}),
    )
    .await;
    // A file may be added twice.
    client.post(&adding, json!({"file_id": files[0]})).await;
    delete(&client, &format!("{adding}/file-7")).await;
    client.post(&adding, json!({"file_id": files[1]})).await;
}

#[tokio::test]
async fn deletions_go_one_way() {
    let (db, _server, client) = start().await;
    let files = files(&client, 2).await;
    let one = store(&client, json!({"file_ids": files})).await;
    let other = store(&client, json!({"file_ids": files})).await;
    let resources = json!({"file_search": {"vector_store_ids": [one]}});
    let thread = client
        .post("/threads", json!({"tool_resources": resources}))
        .await;
    let assistant = client
        .post(
            "/assistants",
            json!({"model": "scripted/hello", "tool_resources": resources}),
        )
        .await;
    assert_eq!(assistant["tool_resources"], resources);

    // Removing a file from a store keeps the file.
    let out = delete(&client, &format!("/vector_stores/{one}/files/{}", files[0])).await;
    let expected = json!({"id": files[0], "object": "vector_store.file.deleted", "deleted": true});
    assert_eq!(out, expected);
    client.get(&format!("/files/{}", files[0])).await;
    assert_eq!(
        client
            .list(&format!("/vector_stores/{other}/files"))
            .await
            .len(),
        2
    );
    // A deleted file is removed from all stores.
    delete(&client, &format!("/files/{}", files[1])).await;
    assert_eq!(
        client
            .list(&format!("/vector_stores/{one}/files"))
            .await
            .len(),
        0
    );
    assert_eq!(
        client
            .list(&format!("/vector_stores/{other}/files"))
            .await
            .len(),
        1
    );
    // A deleted store keeps its files and is removed from assistants and threads.
    let gone = delete(&client, &format!("/vector_stores/{one}")).await;
    assert_eq!(
        gone,
        json!({"id": one, "object": "vector_store.deleted", "deleted": true})
    );
    let reply = client
        .send(Method::GET, &format!("/vector_stores/{one}"), None)
        .await;
    assert_eq!(reply.expect("the server answers").status, 404);
    client.get(&format!("/files/{}", files[0])).await;
    let nothing = json!({"file_search": {"vector_store_ids": []}});
    let thread = client.get(&format!("/threads/{}", id(&thread))).await;
    assert_eq!(thread["tool_resources"], nothing);
    let assistant = client.get(&format!("/assistants/{}", id(&assistant))).await;
    assert_eq!(assistant["tool_resources"], nothing);
    // All orphaned chunks are queued for maintenance.
    delete(&client, &format!("/vector_stores/{other}")).await;
    let dropped: i64 = sqlx::query_scalar("select count(*) from dropped_store_files")
        .fetch_one(&db.pool)
        .await
        .expect("the database answers");
    assert_eq!(dropped, 4);
}

#[tokio::test]
async fn a_files_text_is_its_chunks_without_what_they_repeat() {
    let (db, _server, client) = start().await;
    let files = files(&client, 1).await;
    let store = store(&client, json!({"file_ids": files})).await;
    let path = format!("/vector_stores/{store}/files/{}/content", files[0]);
    sql(
        &db,
        "insert into chunks (vector_store_id, store_file, ordinal, content, tokens, overlap_bytes,
                             lexemes)
             select vector_store_id, seq, n, text, 1, repeated, ''
             from vector_store_files, (values (1, 'été! Then', 7), (0, 'It was été! ', 0),
                                              (2, 'Then more.', 4)) as c (n, text, repeated)",
    )
    .await;
    let page = |data: Value| {
        json!({"object": "vector_store.file_content.page", "data": data, "has_more": false,
               "next_page": null})
    };
    assert_eq!(client.get(&path).await, page(json!([])));
    end_all(&db, "completed").await;
    let text = "It was été! Then more.";
    assert_eq!(
        client.get(&path).await,
        page(json!([{"type": "text", "text": text}]))
    );
}
