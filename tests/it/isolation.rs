//! No route shows or changes another project's objects.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::client::{Client, id, send_request};
use crate::cluster::Db;
use crate::routes;
use crate::server::Server;

/// In every text of the first project, and in no response to the second.
const SECRET: &str = "only-for-alpha";

/// A project's object ids by path parameter.
type ObjectIds = BTreeMap<&'static str, String>;

enum Body {
    None,
    Json(Value),
    /// A form with these fields, and a file in the field of this name.
    Form(&'static [(&'static str, &'static str)], &'static str),
}

impl Body {
    fn add_to(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::None => request,
            Self::Json(body) => request.json(body),
            Self::Form(fields, file) => form(request, fields, file, "stolen"),
        }
    }
}

fn form(
    request: RequestBuilder,
    fields: &[(&str, &str)],
    file: &str,
    contents: &str,
) -> RequestBuilder {
    let mut text = String::new();
    for (name, value) in fields {
        text += "--edge\r\ncontent-disposition: form-data; ";
        text += &format!("name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    text += "--edge\r\ncontent-disposition: form-data; ";
    text +=
        &format!("name=\"{file}\"; filename=\"{contents}.txt\"\r\n\r\n{contents}\r\n--edge--\r\n");
    request
        .header("content-type", "multipart/form-data; boundary=edge")
        .body(text)
}

/// Creates one object of every kind, with `text` in every field.
async fn seed_project(client: &Client, text: &str) -> ObjectIds {
    let metadata = json!({"note": text});
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let assistant = id(&client
        .post(
            "/assistants",
            json!({
                "model": "scripted/weather", "name": text, "instructions": text,
                "tools": [function], "metadata": metadata,
            }),
        )
        .await);
    let file = client.request(Method::POST, "/files");
    let file = form(file, &[("purpose", "assistants")], "file", text);
    let file = id(&send_request(file).await.expect("the server answers").body);
    let upload = json!({
        "filename": text, "purpose": "assistants", "bytes": text.len(), "mime_type": "text/plain",
    });
    let upload = id(&client.post("/uploads", upload).await);
    let part = client.request(Method::POST, &format!("/uploads/{upload}/parts"));
    let part = send_request(form(part, &[], "data", text)).await;
    let part = id(&part.expect("the server answers").body);
    let thread = client.post("/threads", json!({"metadata": metadata})).await;
    let thread = id(&thread);
    let store = json!({"name": text, "description": text, "metadata": metadata});
    let store = id(&client.post("/vector_stores", store).await);
    let batch = json!({"file_ids": [file], "attributes": {"note": text}});
    let batch = client
        .post(&format!("/vector_stores/{store}/file_batches"), batch)
        .await;
    let message = json!({"role": "user", "content": text, "metadata": metadata});
    let message = client
        .post(&format!("/threads/{thread}/messages"), message)
        .await;
    let run = client.create_run(&thread, &assistant).await;
    let waiting = client
        .wait_for_status(&thread, &run, &["requires_action"])
        .await;
    let call = &waiting["required_action"]["submit_tool_outputs"]["tool_calls"][0];
    let steps = client
        .list(&format!("/threads/{thread}/runs/{run}/steps"))
        .await;
    ObjectIds::from([
        ("assistant_id", assistant),
        ("file_id", file),
        ("upload_id", upload),
        ("vector_store_id", store),
        ("batch_id", id(&batch)),
        ("part_id", part),
        ("message_id", id(&message)),
        ("call_id", id(call)),
        ("step_id", id(&steps[0])),
        ("run_id", run),
        ("thread_id", thread),
    ])
}

/// A body with which the operation succeeds on own objects; `None` for an unknown operation.
fn body(method: &str, path: &str, own: &ObjectIds, foreign: &ObjectIds) -> Option<Body> {
    let stolen = || Body::Json(json!({"metadata": {"note": "stolen"}}));
    let path = path.strip_prefix("/v1").unwrap_or(path);
    Some(match (method, path) {
        ("get" | "delete", _) => Body::None,
        ("post", "/assistants") => Body::Json(json!({"model": "scripted/hello"})),
        ("post", "/threads") => Body::Json(json!({})),
        ("post", "/threads/runs" | "/threads/{thread_id}/runs") => {
            let instructions = "Say hello.";
            Body::Json(json!({"assistant_id": own["assistant_id"], "instructions": instructions}))
        }
        (
            "post",
            "/assistants/{assistant_id}"
            | "/threads/{thread_id}"
            | "/threads/{thread_id}/messages/{message_id}"
            | "/threads/{thread_id}/runs/{run_id}",
        ) => stolen(),
        ("post", "/threads/{thread_id}/messages") => {
            Body::Json(json!({"role": "user", "content": "stolen"}))
        }
        ("post", "/threads/{thread_id}/runs/{run_id}/cancel" | "/uploads/{upload_id}/cancel") => {
            Body::Json(json!({}))
        }
        ("post", "/threads/{thread_id}/runs/{run_id}/submit_tool_outputs") => {
            let output = json!({"tool_call_id": foreign["call_id"], "output": "stolen"});
            Body::Json(json!({"tool_outputs": [output]}))
        }
        ("post", "/files") => Body::Form(&[("purpose", "assistants")], "file"),
        ("post", "/uploads") => Body::Json(json!({
            "filename": "mine", "purpose": "assistants", "bytes": 1, "mime_type": "text/plain",
        })),
        ("post", "/uploads/{upload_id}/parts") => Body::Form(&[], "data"),
        ("post", "/uploads/{upload_id}/complete") => {
            Body::Json(json!({"part_ids": [foreign["part_id"]]}))
        }
        ("post", "/vector_stores") => Body::Json(json!({})),
        ("post", "/vector_stores/{vector_store_id}") => stolen(),
        ("post", "/vector_stores/{vector_store_id}/files") => {
            Body::Json(json!({"file_id": own["file_id"]}))
        }
        ("post", "/vector_stores/{vector_store_id}/files/{file_id}") => {
            Body::Json(json!({"attributes": {"note": "stolen"}}))
        }
        ("post", "/vector_stores/{vector_store_id}/file_batches") => {
            Body::Json(json!({"file_ids": [own["file_id"]]}))
        }
        ("post", "/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel") => {
            Body::Json(json!({}))
        }
        ("post", "/vector_stores/{vector_store_id}/search") => {
            Body::Json(json!({"query": "What is secret?"}))
        }
        ("post", "/chat/completions") => Body::Json(json!({
            "model": "scripted/hello", "messages": [{"role": "user", "content": "Hello?"}],
        })),
        // The scripted model does not serve these.
        ("post", "/responses") => Body::Json(json!({"model": "scripted/hello", "input": "Hello?"})),
        ("post", "/responses/{response_id}/cancel") => Body::None,
        ("post", "/embeddings") => {
            Body::Json(json!({"model": "scripted/default", "input": "Hello?"}))
        }
        _ => return None,
    })
}

/// The path with every combination of own and foreign ids that has a foreign one.
fn foreign_paths(path: &str, own: &ObjectIds, foreign: &ObjectIds) -> Vec<String> {
    if path.contains("{object_id}") {
        let paths = foreign.values().map(|id| path.replace("{object_id}", id));
        return paths.collect();
    }
    let mut paths = vec![(path.to_owned(), false)];
    for (name, theirs) in foreign {
        let parameter = format!("{{{name}}}");
        if !path.contains(&parameter) {
            continue;
        }
        let filled = paths.iter().flat_map(|(path, is_foreign)| {
            [
                (path.replace(&parameter, &own[name]), *is_foreign),
                (path.replace(&parameter, theirs), true),
            ]
        });
        paths = filled.collect();
    }
    let foreign = paths.into_iter().filter(|(_, is_foreign)| *is_foreign);
    foreign.map(|(path, _)| path).collect()
}

/// A project's rows in all tables that routes expose (without usage and webhooks), and the parts of
/// its uploads, which have no project column.
async fn rows(db: &Db, project: &str) -> BTreeMap<String, Value> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.columns
         where table_schema = 'public' and column_name = 'project_id'
             and table_name not in ('request_budgets', 'usage_entries', 'usage_days',
                                    'webhook_endpoints')",
    )
    .fetch_all(&db.pool)
    .await
    .expect("the database answers");
    assert!(tables.len() > 6, "{tables:?}");
    let mut rows = BTreeMap::new();
    let owned = "where project_id = (select id from projects where name = $1)";
    let queries = tables.into_iter().map(|table| {
        let query = format!("select to_jsonb(t) from {table} t {owned} order by t::text");
        (table, query)
    });
    let parts = format!(
        "select to_jsonb(t) from upload_parts t
         where upload_id in (select id from uploads {owned}) order by id"
    );
    for (table, query) in queries.chain([("upload_parts".to_owned(), parts)]) {
        let found: Vec<Value> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .bind(project)
            .fetch_all(&db.pool)
            .await
            .expect("the database answers");
        rows.insert(table, found.into());
    }
    rows
}

async fn two_projects() -> (Db, Server, Client, Client) {
    let db = Db::new().await;
    // Indexing would change the rows that the test compares.
    db.disable_indexing().await;
    let keys = "alpha:sk-of-alpha,beta:sk-of-beta";
    let server = Server::start(&db, &[("ASSISTD_API_KEYS", keys)]).await;
    let alpha = server.client_with_key("sk-of-alpha");
    let beta = server.client_with_key("sk-of-beta");
    (db, server, alpha, beta)
}

#[tokio::test]
async fn no_route_shows_or_changes_what_belongs_to_another_project() {
    let (db, _server, alpha, beta) = two_projects().await;
    let foreign = seed_project(&alpha, SECRET).await;
    let own = seed_project(&beta, "mine").await;
    let before = rows(&db, "alpha").await;
    assert!(
        before.values().all(|rows| rows != &json!([])),
        "{before:#?}"
    );

    let mut tried = 0;
    for (method, path) in routes::documented(&beta).await {
        let Some(body) = body(&method, &path, &own, &foreign) else {
            panic!("no isolation test for {method} {path}");
        };
        let method: Method = method.to_uppercase().parse().expect("the method is valid");
        let call = async |path: &str| {
            let request = body.add_to(beta.request(method.clone(), path));
            let response = request.send().await.expect("the server answers");
            let status = response.status().as_u16();
            let text = response.text().await.expect("the server answers");
            assert!(!text.contains(SECRET), "{method} {path}: {text}");
            (status, text)
        };
        let paths = foreign_paths(&path, &own, &foreign);
        for path in &paths {
            // The same routes under the paths of Azure clients.
            for prefix in ["/v1", "/openai", "/openai/v1", "/api/projects/any"] {
                let path = path.replacen("/v1", prefix, 1);
                let (status, text) = call(&format!("/{path}")).await;
                assert_eq!(status, 404, "{method} {path}: {text}");
                assert!(text.contains("\"error\""), "{method} {path}: {text}");
                tried += 1;
            }
        }
        let listed = path.replace("{model}", "scripted/hello");
        if !listed.contains('{') {
            let (status, text) = call(&format!("/{listed}")).await;
            let expected = match (&method, path.as_str()) {
                // Models cannot be deleted by clients.
                (&Method::DELETE, _) => 403,
                (_, "/v1/responses") => 404,
                _ => 200,
            };
            assert_eq!(status, expected, "{method} {listed}: {text}");
            for foreign in foreign.values() {
                assert!(!text.contains(foreign), "{method} {listed}: {text}");
            }
        }
    }
    assert!(tried > 100, "{tried}");
    assert_eq!(rows(&db, "alpha").await, before, "something was changed");
}

#[tokio::test]
async fn requests_cannot_name_what_belongs_to_another_project() {
    let (db, _server, alpha, beta) = two_projects().await;
    let foreign = seed_project(&alpha, SECRET).await;
    let own = seed_project(&beta, "mine").await;
    let before = rows(&db, "alpha").await;
    let file = &foreign["file_id"];
    let resources = json!({"code_interpreter": {"file_ids": [file]}});
    let tools = json!([{"type": "code_interpreter"}]);
    let attachments = json!([{"file_id": file, "tools": tools}]);
    let searched = json!([{"file_id": file, "tools": [{"type": "file_search"}]}]);
    let searched = json!({"role": "user", "content": "Hello?", "attachments": searched});
    let named_store = json!({"vector_store_ids": [foreign["vector_store_id"]]});
    let named_store = json!({"tool_resources": {"file_search": named_store}});
    let made_store = json!({"vector_stores": [{"file_ids": [file]}]});
    let made_store = json!({"tool_resources": {"file_search": made_store}});
    let own_store = format!("/vector_stores/{}", own["vector_store_id"]);
    let (own_files, own_batches) = (
        format!("{own_store}/files"),
        format!("{own_store}/file_batches"),
    );
    let attaching = json!({"role": "user", "content": "Hello?", "attachments": attachments});
    let image = json!({"type": "image_file", "image_file": {"file_id": file}});
    let showing = json!({"role": "user", "content": [image]});
    let thread = id(&beta.post("/threads", json!({})).await);
    let runs = format!("/threads/{thread}/runs");
    let messages = format!("/threads/{thread}/messages");
    let own_thread = format!("/threads/{thread}");
    let (mine, theirs) = (&own["assistant_id"], &foreign["assistant_id"]);
    let named = [
        (&*runs, json!({"assistant_id": theirs})),
        ("/threads/runs", json!({"assistant_id": theirs})),
        (
            &*runs,
            json!({"assistant_id": mine, "additional_messages": [attaching]}),
        ),
        (
            "/threads/runs",
            json!({"assistant_id": mine, "tool_resources": resources}),
        ),
        (&*messages, attaching.clone()),
        (&*messages, showing.clone()),
        (&*messages, searched.clone()),
        ("/threads", json!({"messages": [searched]})),
        ("/threads", named_store.clone()),
        ("/threads", made_store),
        (&*own_thread, named_store),
        ("/vector_stores", json!({"file_ids": [file]})),
        (&*own_files, json!({"file_id": file})),
        (&*own_batches, json!({"file_ids": [file]})),
        (&*own_batches, json!({"files": [{"file_id": file}]})),
        ("/threads", json!({"messages": [attaching]})),
        ("/threads", json!({"messages": [showing]})),
        ("/threads", json!({"tool_resources": resources})),
        (
            "/assistants",
            json!({"model": "scripted/hello", "tools": tools, "tool_resources": resources}),
        ),
    ];
    let mut replies = Vec::new();
    for (path, body) in named {
        let sent = beta.send(Method::POST, path, Some(&body)).await;
        replies.push((format!("{path} {body}"), sent.expect("the server answers")));
    }
    let cursors = [
        ("/assistants", "assistant_id"),
        ("/threads", "thread_id"),
        ("/runs", "run_id"),
        ("/files", "file_id"),
        (&*messages, "message_id"),
        (&*runs, "run_id"),
        ("/vector_stores", "vector_store_id"),
        (&*own_files, "file_id"),
    ];
    for (path, name) in cursors {
        for cursor in ["after", "before"] {
            let path = format!("{path}?{cursor}={}", foreign[name]);
            let sent = beta.send(Method::GET, &path, None).await;
            replies.push((path, sent.expect("the server answers")));
        }
    }
    for (what, reply) in replies {
        assert!([400, 404].contains(&reply.status), "{what}: {reply:?}");
        assert!(
            reply.body["error"]["message"].is_string(),
            "{what}: {reply:?}"
        );
    }
    assert_eq!(rows(&db, "alpha").await, before, "something was changed");
}

#[tokio::test]
async fn every_route_is_documented_and_every_documented_route_is_there() {
    let db = Db::new().await;
    let server = Server::start(&db, &[]).await;
    let documented: BTreeSet<_> = routes::documented(&server.client())
        .await
        .into_iter()
        .collect();
    let served: BTreeSet<_> = routes::served().into_iter().collect();
    assert_eq!(documented, served);
}

#[tokio::test]
async fn nobody_is_let_in_without_a_good_key() {
    let (_db, server, alpha, _) = two_projects().await;
    let things = seed_project(&alpha, SECRET).await;
    let stranger = server.client_with_key("sk-of-nobody");
    let open = ["/healthz", "/readyz", "/metrics", "/openapi.json"];
    for (method, path) in routes::documented(&stranger).await {
        let is_open = open.contains(&&*path);
        let mut path = path.replace("{model}", "scripted/hello");
        for (name, thing) in &things {
            path = path.replace(&format!("{{{name}}}"), thing);
        }
        let method: Method = method.to_uppercase().parse().expect("the method is valid");
        let sent = stranger
            .send(method.clone(), &format!("/{path}"), None)
            .await;
        let expected = if is_open { 200 } else { 401 };
        let reply = sent.expect("the server answers");
        assert_eq!(reply.status, expected, "{method} {path}: {reply:?}");
    }
}
