//! Names of retired models: the default model answers, and the response names it.

use reqwest::Method;
use serde_json::json;

use crate::client::Client;
use crate::cluster::{Db, cluster};
use crate::event_stream::TERMINAL;
use crate::fake_model::FakeModel;
use crate::server::Server;

const UNKNOWN: &str = "The model `gpt-4o` does not exist or you do not have access to it.";

/// A server that forwards all model names upstream, with this default model.
async fn passing_on(default_model: &str) -> (Db, FakeModel, Server) {
    let db = Db::new().await;
    let model = FakeModel::start().await;
    let folder = cluster().folder();
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let file = folder.join("assistd.toml");
    let route = "[[route]]\nmatch = \"*\"\nupstream = \"default\"\n";
    std::fs::write(&file, route).expect("the temporary folder is writable");
    let file = file.to_str().expect("temporary paths are UTF-8").to_owned();
    let settings = [
        ("ASSISTD_CONFIG", &*file),
        ("ASSISTD_DEFAULT_MODEL", default_model),
    ];
    let server = Server::start(&db, &[&model.settings()[..], &settings].concat()).await;
    (db, model, server)
}

async fn chat(client: &Client) -> crate::client::Reply {
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]});
    let sent = client.send(Method::POST, "/chat/completions", Some(&body));
    sent.await.expect("the server answers")
}

#[tokio::test]
async fn a_retired_model_is_answered_for_by_the_default_model_and_never_silently() {
    let (_db, model, server) = passing_on("qwen3").await;
    let client = server.client();
    let assistant = client
        .create_assistant_with(json!({"model": "gpt-4o"}))
        .await;
    let thread = client.create_thread("Hello?").await;
    let run = client.create_run(&thread, &assistant).await;
    let call = model.next_call().await;
    assert_eq!(call.request["model"], "gpt-4o");
    call.answer_error(404, "model_not_found", UNKNOWN);
    let call = model.next_call().await;
    assert_eq!(call.request["model"], "qwen3");
    call.answer_text("Hello!").await;
    let ended = client.wait_for_status(&thread, &run, &TERMINAL).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(ended["model"], "gpt-4o");
    let path = format!("/threads/{thread}/runs/{run}");
    let read = client.send(Method::GET, &path, None).await;
    let read = read.expect("the server answers");
    assert_eq!(read.headers["x-assistd-model"], "qwen3");

    // The retired name is not sent upstream again, in runs or in chat completions.
    let (answered, ()) = tokio::join!(chat(&client), async {
        let call = model.next_call().await;
        assert_eq!(call.request["model"], "qwen3");
        call.answer(200, &[], "{}");
    });
    assert_eq!(answered.headers["x-assistd-model"], "qwen3");
    let log = server.log();
    assert_eq!(
        log.matches("does not know the model gpt-4o").count(),
        1,
        "{log}"
    );
}

#[tokio::test]
async fn a_chat_with_a_retired_model_is_answered_for_too() {
    let (_db, model, server) = passing_on("qwen3").await;
    let client = server.client();
    let (answered, ()) = tokio::join!(chat(&client), async {
        let error = json!({"error": "model 'gpt-4o' not found, try pulling it first"});
        model.next_call().await.answer(404, &[], error.to_string());
        let call = model.next_call().await;
        assert_eq!(call.request["model"], "qwen3");
        call.answer(200, &[], "{}");
    });
    assert_eq!(answered.status, 200);
    assert_eq!(answered.headers["x-assistd-model"], "qwen3");
    // Other errors are forwarded unchanged.
    let (refused, ()) = tokio::join!(chat(&client), async {
        let error = json!({"error": {"message": "Invalid 'messages'", "own": 1}});
        model.next_call().await.answer(400, &[], error.to_string());
    });
    assert_eq!(refused.status, 400);
    assert_eq!(refused.body["error"]["own"], 1);
}

#[tokio::test]
async fn without_a_default_model_the_error_of_a_retired_one_names_the_setting() {
    let (_db, model, server) = passing_on("").await;
    let client = server.client();
    let assistant = client
        .create_assistant_with(json!({"model": "gpt-4o"}))
        .await;
    let thread = client.create_thread("Hello?").await;
    let run = client.create_run(&thread, &assistant).await;
    let call = model.next_call().await;
    call.answer_error(404, "model_not_found", UNKNOWN);
    let ended = client.wait_for_status(&thread, &run, &TERMINAL).await;
    assert_eq!(ended["last_error"]["code"], "server_error", "{ended}");
    let message = ended["last_error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with(UNKNOWN), "{message}");
    assert!(message.contains("ASSISTD_DEFAULT_MODEL"), "{message}");

    let (refused, ()) = tokio::join!(chat(&client), async {
        let call = model.next_call().await;
        call.answer_error(404, "model_not_found", UNKNOWN);
    });
    assert_eq!(refused.status, 404);
    assert_eq!(refused.body["error"]["code"], "model_not_found");
    assert_eq!(refused.body["error"]["param"], "model");
    let message = refused.body["error"]["message"].as_str();
    assert!(message.is_some_and(|message| message.contains("ASSISTD_DEFAULT_MODEL")));
}
