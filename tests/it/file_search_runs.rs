//! Runs with `file_search`: waiting for indexing, failures and recovery.

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::client::id;
use crate::event_stream;
use crate::eventually;
use crate::fake_embeddings::Fault;
use crate::fake_worker::FakeWorker;
use crate::retrieval_fixture::{EMBEDDING_MODEL, RetrievalFixture};

/// Creates an assistant with these tools and vector stores; its id.
async fn assistant(fixture: &RetrievalFixture, tools: Value, stores: &[String]) -> String {
    let resources = json!({"file_search": {"vector_store_ids": stores}});
    let body = json!({"model": "fake", "tools": tools, "tool_resources": resources});
    fixture.client.create_assistant_with(body).await
}

fn file_search() -> Value {
    json!([{"type": "file_search"}])
}

/// Creates a thread with a file attached for `file_search`; its id.
async fn thread_with(fixture: &RetrievalFixture, file: &str) -> String {
    let attachment = json!({"file_id": file, "tools": [{"type": "file_search"}]});
    let message = json!({"role": "user", "content": "?", "attachments": [attachment]});
    let thread = fixture
        .client
        .post("/threads", json!({"messages": [message]}))
        .await;
    id(&thread)
}

/// Checks that no earlier run has called the model: a later run that waits for nothing is the first.
async fn assert_model_not_called(fixture: &RetrievalFixture) {
    let other = json!({"model": "fake", "instructions": "other"});
    let other = fixture.client.create_assistant_with(other).await;
    let unrelated = fixture.client.create_thread("?").await;
    let stream = fixture.client.stream_run(&unrelated, &other).await;
    let call = fixture.model.next_call().await;
    assert_eq!(call.request["messages"][0]["content"], "other");
    call.answer_text("Hm.").await;
    stream.read_to_end().await;
}

#[tokio::test]
async fn a_run_waits_for_the_files_of_its_assistant() {
    let fixture = RetrievalFixture::start().await;
    fixture.model.embeddings.hold("herring");
    let slow = id(&fixture.client.upload("slow.txt", "A herring.").await);
    let broken = id(&fixture
        .client
        .upload("broken.pdf", "%PDF-1.4 no more")
        .await);
    let resources = json!({"file_search": {"vector_stores": [{"file_ids": [slow, broken]}]}});
    let body = json!({"model": "fake", "tools": file_search(), "tool_resources": resources});
    let assistant = fixture.client.create_assistant_with(body).await;
    let thread = fixture.client.create_thread("Is there fish?").await;
    let mut stream = fixture.client.stream_run(&thread, &assistant).await;
    stream.until("thread.run.in_progress").await;
    fixture.model.embeddings.wait_for_held_request().await;
    assert_model_not_called(&fixture).await;

    fixture.model.embeddings.release();
    fixture
        .model
        .next_call()
        .await
        .answer_search(&["fish"])
        .await;
    let call = fixture.model.next_call().await;
    let messages = call.request["messages"].to_string();
    assert!(messages.contains("†slow.txt】"), "{messages}");
    call.answer_text("It is there.").await;
    stream.until("thread.run.completed").await;
}

#[tokio::test]
async fn a_run_waits_for_all_files_of_its_thread() {
    let fixture = RetrievalFixture::start().await;
    fixture.model.embeddings.hold("herring");
    let slow = id(&fixture.client.upload("slow.txt", "A herring.").await);
    let (_, quick) = fixture.create_store_with("quick.txt", "A perch.").await;
    let assistant = assistant(&fixture, file_search(), &[]).await;
    let attach = |file| json!({"file_id": file, "tools": [{"type": "file_search"}]});
    let attachments = [attach(&quick), attach(&slow)];
    let message = json!({"role": "user", "content": "?", "attachments": attachments});
    let thread = fixture
        .client
        .post("/threads", json!({"messages": [message]}))
        .await;
    let store = &thread["tool_resources"]["file_search"]["vector_store_ids"][0];
    let path = format!(
        "/vector_stores/{}",
        store.as_str().expect("the thread has a store")
    );
    eventually("the first file is indexed", || async {
        let store = fixture.client.get(&path).await;
        (store["file_counts"]["completed"] == 1).then_some(())
    })
    .await;
    let mut stream = fixture.client.stream_run(&id(&thread), &assistant).await;
    stream.until("thread.run.in_progress").await;
    assert_model_not_called(&fixture).await;

    fixture.model.embeddings.release();
    fixture
        .model
        .next_call()
        .await
        .answer_search(&["fish"])
        .await;
    let call = fixture.model.next_call().await;
    let messages = call.request["messages"].to_string();
    assert!(messages.contains("†slow.txt】"), "{messages}");
    call.answer_text("It is there.").await;
    stream.until("thread.run.completed").await;
}

#[tokio::test]
async fn a_run_that_goes_on_after_outputs_does_not_wait_again() {
    let fixture = RetrievalFixture::start().await;
    let (store, _) = fixture.create_store_with("quick.txt", "A perch.").await;
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let tools = json!([{"type": "file_search"}, function]);
    let assistant = assistant(&fixture, tools, std::slice::from_ref(&store)).await;
    let thread = fixture.client.create_thread("?").await;
    let stream = fixture.client.stream_run(&thread, &assistant).await;
    let mut answer = fixture.model.next_call().await.start_answer();
    answer.send_tool_call(0, "get_weather", &["{}"]).await;
    answer.finish().await;
    let waiting = event_stream::check(&stream.read_to_end().await).run;
    assert_eq!(waiting["status"], "requires_action");

    fixture.model.embeddings.hold("herring");
    let slow = id(&fixture.client.upload("slow.txt", "A herring.").await);
    let files = format!("/vector_stores/{store}/files");
    fixture.client.post(&files, json!({"file_id": slow})).await;
    fixture.model.embeddings.wait_for_held_request().await;
    let path = format!("/threads/{thread}/runs/{}", id(&waiting));
    let outputs = json!({"tool_outputs": [{"tool_call_id": "call_0", "output": "sunny"}]});
    fixture
        .client
        .post(&format!("{path}/submit_tool_outputs"), outputs)
        .await;
    // The file is still not indexed, but the model is called.
    fixture.model.next_call().await.answer_text("Sunny.").await;
    fixture
        .client
        .wait_for_status(&thread, &id(&waiting), &["completed"])
        .await;
}

#[tokio::test]
async fn a_run_that_waits_can_be_cancelled() {
    let fixture = RetrievalFixture::start().await;
    fixture.model.embeddings.hold("herring");
    let slow = id(&fixture.client.upload("slow.txt", "A herring.").await);
    let unindexed = fixture
        .client
        .post("/vector_stores", json!({"file_ids": [slow]}))
        .await;
    let assistants = assistant(&fixture, file_search(), &[id(&unindexed)]).await;
    let assistant = assistant(&fixture, file_search(), &[]).await;
    let plain = fixture.client.create_thread("?").await;
    for (thread, assistant) in [
        (thread_with(&fixture, &slow).await, &assistant),
        (plain, &assistants),
    ] {
        let mut stream = fixture.client.stream_run(&thread, assistant).await;
        let seen = stream.until("thread.run.in_progress").await;
        let path = format!("/threads/{thread}/runs/{}", id(&seen[0].data));
        fixture
            .client
            .post(&format!("{path}/cancel"), json!({}))
            .await;
        stream.until("thread.run.cancelled").await;
    }

    // A run also expires during a search.
    let (store, _) = fixture.create_store_with("quick.txt", "A perch.").await;
    let body = json!({"tool_resources": {"file_search": {"vector_store_ids": [store]}}});
    fixture
        .client
        .post(&format!("/assistants/{assistant}"), body)
        .await;
    let thread = fixture.client.create_thread("?").await;
    let mut stream = fixture.client.stream_run(&thread, &assistant).await;
    fixture.model.embeddings.hold("perch?");
    fixture
        .model
        .next_call()
        .await
        .answer_search(&["perch?"])
        .await;
    let seen = stream.until("thread.run.step.delta").await;
    fixture.model.embeddings.wait_for_held_request().await;
    let path = format!("/threads/{thread}/runs/{}", id(&seen[0].data));
    fixture
        .client
        .post(&format!("{path}/cancel"), json!({}))
        .await;
    stream.until("thread.run.step.cancelled").await;
    stream.until("thread.run.cancelled").await;
}

#[tokio::test]
async fn a_run_that_waits_for_its_stores_expires_in_time() {
    let fixture =
        RetrievalFixture::start_with(&[EMBEDDING_MODEL, ("ASSISTD_RUN_EXPIRY", "10s")]).await;
    fixture.model.embeddings.hold("herring");
    let slow = id(&fixture.client.upload("slow.txt", "A herring.").await);
    let body = json!({"file_ids": [slow]});
    let store = id(&fixture.client.post("/vector_stores", body).await);
    let assistant = assistant(&fixture, file_search(), &[store]).await;
    let thread = fixture.client.create_thread("?").await;
    let stream = fixture.client.stream_run(&thread, &assistant).await;
    let streamed = event_stream::check(&stream.read_to_end().await);
    assert_eq!(streamed.run["status"], "expired");
}

#[tokio::test]
async fn an_expired_store_fails_the_run_and_says_which() {
    let fixture = RetrievalFixture::start().await;
    let file = id(&fixture.client.upload("old.txt", "A relic.").await);
    let days = json!({"anchor": "last_active_at", "days": 1});
    let body = json!({"file_ids": [file], "expires_after": days});
    let store = id(&fixture.client.post("/vector_stores", body).await);
    fixture.wait_until_indexed(&store).await;
    let assistant = assistant(&fixture, file_search(), std::slice::from_ref(&store)).await;
    let thread = fixture.client.create_thread("?").await;
    let search = async || {
        let stream = fixture.client.stream_run(&thread, &assistant).await;
        fixture
            .model
            .next_call()
            .await
            .answer_search(&["relic"])
            .await;
        stream
    };
    let stream = search().await;
    fixture
        .model
        .next_call()
        .await
        .answer_text("It is there.")
        .await;
    assert_eq!(
        event_stream::check(&stream.read_to_end().await).run["status"],
        "completed"
    );

    let age = "update vector_stores set last_active_at = now() - interval '24 hours'";
    sqlx::query(age)
        .execute(&fixture.db.pool)
        .await
        .expect("the database answers");
    let streamed = event_stream::check(&search().await.read_to_end().await);
    assert_eq!(streamed.run["status"], "failed");
    let error = &streamed.run["last_error"];
    assert_eq!(error["code"], "server_error");
    assert_eq!(
        error["message"],
        format!("Vector store {store} is expired.")
    );
    let steps: Vec<&Value> = streamed
        .steps
        .values()
        .map(|step| &step["status"])
        .collect();
    assert_eq!(steps, ["failed"]);

    // An expired store that is used again is searched again, despite the failed file.
    let path = format!("/vector_stores/{store}");
    fixture
        .client
        .post(&path, json!({"expires_after": null}))
        .await;
    let stream = search().await;
    fixture
        .model
        .next_call()
        .await
        .answer_text("It is there.")
        .await;
    assert_eq!(
        event_stream::check(&stream.read_to_end().await).run["status"],
        "completed"
    );
}

#[tokio::test]
async fn a_search_that_gets_no_vector_fails_the_run_and_says_why() {
    let fixture = RetrievalFixture::start().await;
    let (store, _) = fixture.create_store_with("a.txt", "A lock.").await;
    let assistant = assistant(&fixture, file_search(), &[store]).await;
    let thread = fixture.client.create_thread("?").await;
    let stream = fixture.client.stream_run(&thread, &assistant).await;
    fixture
        .model
        .embeddings
        .fail_next([Some(Fault::Status(400))]);
    fixture
        .model
        .next_call()
        .await
        .answer_search(&["lock"])
        .await;
    let streamed = event_stream::check(&stream.read_to_end().await);
    assert_eq!(streamed.run["status"], "failed");
    let message = streamed.run["last_error"]["message"]
        .as_str()
        .expect("an error has a message");
    assert!(message.contains("The vectors are out."), "{message}");
}

#[tokio::test]
async fn one_turn_may_search_and_run_code_and_ask_the_caller() {
    let worker = FakeWorker::start();
    let address = worker.address();
    let fixture =
        RetrievalFixture::start_with(&[EMBEDDING_MODEL, ("ASSISTD_SANDBOX", &address)]).await;
    let (store, file) = fixture
        .create_store_with("tides.txt", "The tide turns at noon.")
        .await;
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let tools = json!([{"type": "file_search"}, {"type": "code_interpreter"}, function]);
    let assistant = assistant(&fixture, tools, &[store]).await;
    let thread = fixture.client.create_thread("When do we sail?").await;
    let stream = fixture.client.stream_run(&thread, &assistant).await;
    let call = fixture.model.next_call().await;
    let offered = call.request["tools"].as_array().expect("tools are offered");
    let offered: Vec<&Value> = offered
        .iter()
        .map(|tool| &tool["function"]["name"])
        .collect();
    assert_eq!(offered, ["file_search", "code_interpreter", "get_weather"]);
    let mut answer = call.start_answer();
    answer.send_tool_call(0, "get_weather", &["{}"]).await;
    let query = r#"{"queries": ["When does the tide turn?"]}"#;
    answer
        .send_tool_call(
            1,
            "file_search",
            &query.split_inclusive(' ').collect::<Vec<_>>(),
        )
        .await;
    answer
        .send_tool_call(2, "code_interpreter", &[r#"{"code": "say one"}"#])
        .await;
    answer
        .send_tool_call(3, "file_search", &[r#"{"queries": ["noon"]}"#])
        .await;
    answer.finish().await;

    let waiting = event_stream::check(&stream.read_to_end().await).run;
    assert_eq!(waiting["status"], "requires_action");
    let path = format!("/threads/{thread}/runs/{}", id(&waiting));
    let steps = fixture.client.list(&format!("{path}/steps")).await;
    assert_eq!(steps.len(), 1, "{steps:?}");
    let calls = &steps[0]["step_details"]["tool_calls"];
    for search in [1, 3] {
        let results = &calls[search]["file_search"]["results"];
        assert_eq!(results[0]["file_id"], *file, "{calls}");
    }
    assert_eq!(calls[2]["code_interpreter"]["outputs"][0]["logs"], "one\n");
    let outputs = json!({"tool_outputs": [{"tool_call_id": "call_0", "output": "sunny"}]});
    fixture
        .client
        .post(&format!("{path}/submit_tool_outputs"), outputs)
        .await;
    let call = fixture.model.next_call().await;
    let messages = call.request["messages"]
        .as_array()
        .expect("a request has messages");
    let outputs = messages.iter().filter(|message| message["role"] == "tool");
    let outputs: Vec<&str> = outputs
        .filter_map(|message| message["content"].as_str())
        .collect();
    let [weather, tide, code, noon] = outputs.as_slice() else {
        panic!("four calls have outputs: {outputs:?}");
    };
    assert_eq!([*weather, *code], ["sunny", "one"]);
    assert!(tide.starts_with("【4:0†tides.txt】"), "{tide}");
    assert!(noon.starts_with("【5:0†tides.txt】"), "{noon}");
    call.answer_text("At noon【5:0†tides.txt】.").await;
    let run = fixture
        .client
        .wait_for_status(&thread, &id(&waiting), &["completed"])
        .await;
    assert_eq!(run["usage"]["total_tokens"], 30, "each turn counts once");
    let messages = fixture
        .client
        .list(&format!("/threads/{thread}/messages"))
        .await;
    let annotation = &messages[1]["content"][0]["text"]["annotations"][0];
    assert_eq!(annotation["file_citation"], json!({"file_id": file}));
}

#[tokio::test]
async fn a_search_is_done_again_when_its_server_is_killed() {
    let lease = ("ASSISTD_LEASE", "1s");
    let mut fixture = RetrievalFixture::start_with(&[EMBEDDING_MODEL, lease]).await;
    let (store, file) = fixture
        .create_store_with("wreck.txt", "A wreck lies at four fathoms.")
        .await;
    let assistant = assistant(&fixture, file_search(), &[store]).await;
    let thread = fixture.client.create_thread("?").await;
    let run = fixture.client.create_run(&thread, &assistant).await;
    fixture.model.embeddings.hold("How deep");
    fixture
        .model
        .next_call()
        .await
        .answer_search(&["How deep is it?"])
        .await;
    fixture.model.embeddings.wait_for_held_request().await;
    kill(fixture.server.pid(), Signal::SIGKILL).expect("the server is running");
    let url = fixture.db.url.clone();
    fixture
        .start_replacement(&url, &[EMBEDDING_MODEL, lease])
        .await;
    let path = format!("/threads/{thread}/runs/{run}");
    let interrupted = fixture.client.list(&format!("{path}/steps")).await;
    assert_eq!(interrupted[0]["status"], "in_progress", "{interrupted:?}");
    fixture.model.embeddings.release();

    let call = fixture.model.next_call().await;
    let messages = call.request["messages"]
        .as_array()
        .expect("a request has messages");
    let tools: Vec<&Value> = messages
        .iter()
        .filter(|message| message["role"] == "tool")
        .collect();
    assert_eq!(tools.len(), 1, "{messages:?}");
    let output = tools[0]["content"].as_str().expect("the value is a string");
    assert!(output.starts_with("【4:0†wreck.txt】"), "{output}");
    call.answer_text("Four fathoms【4:0†wreck.txt】.").await;
    fixture
        .client
        .wait_for_status(&thread, &run, &["completed"])
        .await;
    let steps = fixture.client.list(&format!("{path}/steps")).await;
    let [search, answer] = steps.as_slice() else {
        panic!("a search and an answer: {steps:?}");
    };
    assert_eq!(search["id"], interrupted[0]["id"], "the same step");
    let calls = search["step_details"]["tool_calls"]
        .as_array()
        .expect("the value is a list");
    assert_eq!(calls.len(), 1, "{search}");
    assert_eq!(calls[0]["file_search"]["results"][0]["file_id"], *file);
    assert_eq!(
        calls[0]["file_search"]["results"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(answer["type"], "message_creation");
    let streamed = event_stream::check(
        &fixture
            .client
            .follow(&thread, &run, None)
            .await
            .read_to_end()
            .await,
    );
    assert_eq!(
        streamed.run["usage"]["total_tokens"], 30,
        "each turn counts once"
    );
    let messages = fixture
        .client
        .list(&format!("/threads/{thread}/messages"))
        .await;
    let annotation = &messages[1]["content"][0]["text"]["annotations"][0];
    assert_eq!(annotation["file_citation"], json!({"file_id": file}));
    eventually("no leases are left", || async {
        let leases = "select count(*) from runs where lease_owner is not null";
        (fixture.count(leases).await == 0).then_some(())
    })
    .await;
}
