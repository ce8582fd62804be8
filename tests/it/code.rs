//! The `code_interpreter` tool, with a model and a sandbox worker that the test controls.

use reqwest::Method;
use sandbox_protocol::Notice;
use serde_json::{Value, json};

use crate::client::{Client, Event, id};
use crate::cluster::Db;
use crate::event_stream::{self, text};
use crate::fake_model::FakeModel;
use crate::fake_worker::{FakeWorker, PICTURE};
use crate::server::Server;

struct CodeFixture {
    model: FakeModel,
    worker: FakeWorker,
    server: Server,
    client: Client,
    assistant: String,
}

impl CodeFixture {
    async fn start() -> Self {
        Self::start_with(json!([{"type": "code_interpreter"}])).await
    }

    async fn start_with(tools: Value) -> Self {
        let db = Db::new().await;
        let model = FakeModel::start().await;
        let worker = FakeWorker::start();
        let address = worker.address();
        let settings = [&model.settings()[..], &[("ASSISTD_SANDBOX", &address)]].concat();
        let server = Server::start(&db, &settings).await;
        let client = server.client();
        let assistant = client
            .create_assistant_with(
                json!({"model": "fake", "instructions": "Be brief.", "tools": tools}),
            )
            .await;
        Self {
            model,
            worker,
            server,
            client,
            assistant,
        }
    }

    /// Streams a run in which the model executes code and then answers with a text.
    async fn run_code(&self, thread: &str, code: &str, text: &str) -> Vec<Event> {
        let stream = self.client.stream_run(thread, &self.assistant).await;
        self.model.next_call().await.answer_code(code).await;
        self.model.next_call().await.answer_text(text).await;
        stream.read_to_end().await
    }

    async fn upload(&self, name: &str, content: &str) -> String {
        id(&self.client.upload(name, content).await)
    }

    async fn delete(&self, file: &str) {
        let path = format!("/files/{file}");
        let sent = self.client.send(Method::DELETE, &path, None).await;
        let reply = sent.expect("the server answers");
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
}

/// The system message of a request to the model.
fn system(request: &Value) -> &str {
    assert_eq!(request["messages"][0]["role"], "system");
    request["messages"][0]["content"]
        .as_str()
        .expect("the value is a string")
}

/// The output of the last tool call in a request to the model.
fn tool_output(request: &Value) -> &str {
    let messages = request["messages"]
        .as_array()
        .expect("a request has messages");
    let last = messages.last().expect("a request has messages");
    assert_eq!(last["role"], "tool", "{last}");
    last["content"].as_str().expect("the value is a string")
}

#[tokio::test]
async fn code_and_its_outputs_are_told_as_they_come() {
    let fixture = CodeFixture::start().await;
    let thread = fixture.client.create_thread("Draw it.").await;
    let mut stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    let call = fixture.model.next_call().await;
    let offered = &call.request["tools"][0]["function"];
    assert_eq!(offered["name"], "code_interpreter", "{}", call.request);
    let mut answer = call.start_answer();
    let pieces = [
        "{\"co",
        "de\":\"say on",
        "e\\nwai",
        "t\\nshow\\nresult 4\\nwrite out.csv a,b\"}",
    ];
    answer.send_tool_call(0, "code_interpreter", &pieces).await;
    // The whole code is streamed before the model's turn ends.
    let mut seen = Vec::new();
    let mut code = String::new();
    while !code.ends_with("a,b") {
        let event = stream.next().await;
        let call = &event.data["delta"]["step_details"]["tool_calls"][0];
        code.push_str(
            call["code_interpreter"]["input"]
                .as_str()
                .unwrap_or_default(),
        );
        seen.push(event);
    }
    assert_eq!(code, "say one\nwait\nshow\nresult 4\nwrite out.csv a,b");
    answer.finish().await;
    // Its output is streamed before the cell ends.
    loop {
        let event = stream.next().await;
        let call = &event.data["delta"]["step_details"]["tool_calls"][0];
        let logs = call["code_interpreter"]["outputs"][0]["logs"].clone();
        seen.push(event);
        if logs == "one\n" {
            break;
        }
    }
    fixture.worker.wait_for_log("wait").await;
    fixture.worker.go_on();
    let call = fixture.model.next_call().await;
    assert_eq!(
        tool_output(&call.request),
        "one\n[The picture was shown to the user.]\n4\n[Files written: /mnt/data/out.csv]"
    );
    let link = "Ä: [it](sandbox:/mnt/data/out.csv), not sandbox:/mnt/data/else.";
    call.answer_text(link).await;
    seen.extend(stream.read_to_end().await);

    let streamed = event_stream::check(&seen);
    assert_eq!(streamed.run["status"], "completed");
    let step = streamed
        .steps
        .values()
        .find(|step| step["type"] == "tool_calls");
    let call = &step.expect("the stream has one")["step_details"]["tool_calls"][0];
    let outputs = &call["code_interpreter"]["outputs"];
    let image = &outputs[1]["image"]["file_id"];
    let expected = json!([
        {"type": "logs", "logs": "one\n"},
        {"type": "image", "image": {"file_id": image}},
        {"type": "logs", "logs": "4"},
    ]);
    assert_eq!(*outputs, expected);
    let messages = fixture
        .client
        .list(&format!("/threads/{thread}/messages"))
        .await;
    let content = &messages[1]["content"];
    assert_eq!(
        content[0],
        json!({"type": "image_file", "image_file": {"file_id": image}})
    );
    assert_eq!(content[1]["text"]["value"], link);
    let [annotation] = content[1]["text"]["annotations"]
        .as_array()
        .expect("the value is a list")
        .as_slice()
    else {
        panic!("{content}");
    };
    let file = &annotation["file_path"]["file_id"];
    let expected = json!({
        "type": "file_path", "text": "sandbox:/mnt/data/out.csv",
        "start_index": 8, "end_index": 33, "file_path": {"file_id": file},
    });
    assert_eq!(*annotation, expected);
    assert_eq!(fixture.client.file_content(file).await, b"a,b");
    assert_eq!(fixture.client.file_content(image).await, PICTURE);
    let file = file.as_str().expect("an id is a string");
    let file = fixture.client.get(&format!("/files/{file}")).await;
    assert_eq!(
        [&file["filename"], &file["purpose"]],
        ["out.csv", "assistants_output"]
    );
}

#[tokio::test]
async fn files_are_put_there_once_under_both_names() {
    let fixture = CodeFixture::start().await;
    let first = fixture.upload("sales.csv", "month,revenue").await;
    let second = fixture.upload("sales.csv", "other").await;
    let resources = json!({"code_interpreter": {"file_ids": [first]}});
    let path = format!("/assistants/{}", fixture.assistant);
    fixture
        .client
        .post(&path, json!({"tool_resources": resources}))
        .await;
    let attachment = json!({"file_id": second, "tools": [{"type": "code_interpreter"}]});
    let message = json!({"role": "user", "content": "Look.", "attachments": [attachment]});
    let thread = id(&fixture
        .client
        .post("/threads", json!({"messages": [message]}))
        .await);

    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    let call = fixture.model.next_call().await;
    let expected = format!(
        "Be brief.\n\nFiles available to code_interpreter:\n\
         - /mnt/data/sales.csv (also /mnt/data/{first})\n\
         - /mnt/data/sales-2.csv (also /mnt/data/{second})"
    );
    assert_eq!(system(&call.request), expected);
    let code = format!("read sales.csv\nread {first}\nread sales-2.csv\nread {second}");
    call.answer_code(&code).await;
    let call = fixture.model.next_call().await;
    assert_eq!(
        tool_output(&call.request),
        "month,revenue\nmonth,revenue\nother\nother"
    );
    call.answer_text("Done.").await;
    stream.read_to_end().await;
    let puts = [
        format!("put sales.csv {first}"),
        format!("put sales-2.csv {second}"),
    ];
    assert_eq!(fixture.worker.take_log()[..2], puts);

    let third = fixture.upload("new.csv", "new").await;
    let attachment = json!({"file_id": third, "tools": [{"type": "code_interpreter"}]});
    let message = json!({"role": "user", "content": "And this?", "attachments": [attachment]});
    fixture
        .client
        .post(&format!("/threads/{thread}/messages"), message)
        .await;
    fixture.run_code(&thread, "read new.csv", "Done.").await;
    let log = fixture.worker.take_log();
    assert_eq!(
        log,
        [format!("put new.csv {third}"), "read new.csv".to_owned()]
    );
}

/// Reads files of the thread's session in a new run; their contents.
async fn contents(fixture: &CodeFixture, thread: &str, names: &[&str]) -> Vec<String> {
    let code: Vec<String> = names.iter().map(|name| format!("read {name}")).collect();
    let stream = fixture.client.stream_run(thread, &fixture.assistant).await;
    fixture
        .model
        .next_call()
        .await
        .answer_code(&code.join("\n"))
        .await;
    let call = fixture.model.next_call().await;
    let lines = tool_output(&call.request)
        .lines()
        .map(str::to_owned)
        .collect();
    call.answer_text("Done.").await;
    stream.read_to_end().await;
    lines
}

#[tokio::test]
async fn a_file_that_is_deleted_or_taken_off_is_gone_from_the_live_session() {
    let fixture = CodeFixture::start().await;
    let deleted = fixture.upload("data.csv", "deleted").await;
    let taken_off = fixture.upload("data.csv", "taken off").await;
    let kept = fixture.upload("data.csv", "kept").await;
    let resources = json!({"code_interpreter": {"file_ids": [deleted, taken_off, kept]}});
    let thread = json!({
        "tool_resources": resources, "messages": [{"role": "user", "content": "?"}],
    });
    let thread = id(&fixture.client.post("/threads", thread).await);
    fixture
        .run_code(&thread, "read data.csv\nwrite own.csv own", "Done.")
        .await;
    fixture.worker.take_log();

    fixture.delete(&deleted).await;
    let resources = json!({"code_interpreter": {"file_ids": [kept]}});
    let path = format!("/threads/{thread}");
    fixture
        .client
        .post(&path, json!({"tool_resources": resources}))
        .await;
    let names = ["data-2.csv", "data-3.csv", &deleted, &taken_off];
    let gone = contents(&fixture, &thread, &names).await;
    assert_eq!(gone, ["no such file"; 4]);
    // The remaining file has the name in the current prompt; files that code wrote are kept.
    let left = contents(&fixture, &thread, &["data.csv", &kept, "own.csv"]).await;
    assert_eq!(left, ["kept", "kept", "own"]);
    let log = fixture.worker.take_log();
    let expected = [
        format!("remove {deleted} {taken_off} {kept}"),
        format!("put data.csv {kept}"),
    ];
    assert_eq!(log[..2], expected);
    assert!(!log[2..].iter().any(|line| line.starts_with("remove")));
}

#[tokio::test]
async fn a_file_that_is_deleted_while_a_run_goes_on_is_gone_from_its_next_step() {
    let fixture = CodeFixture::start().await;
    let file = fixture.upload("in.csv", "in").await;
    let resources = json!({"code_interpreter": {"file_ids": [file]}});
    let thread =
        json!({"tool_resources": resources, "messages": [{"role": "user", "content": "?"}]});
    let thread = id(&fixture.client.post("/threads", thread).await);
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    fixture
        .model
        .next_call()
        .await
        .answer_code("read in.csv")
        .await;
    let call = fixture.model.next_call().await;
    assert_eq!(tool_output(&call.request), "in");
    fixture.delete(&file).await;
    call.answer_code(&format!("read in.csv\nread {file}")).await;
    let call = fixture.model.next_call().await;
    assert_eq!(tool_output(&call.request), "no such file\nno such file");
    assert!(!system(&call.request).contains("in.csv"));
    call.answer_text("Done.").await;
    stream.read_to_end().await;
}

#[tokio::test]
async fn a_session_that_cannot_give_up_a_deleted_file_is_replaced() {
    let fixture = CodeFixture::start().await;
    let file = fixture.upload("in.csv", "in").await;
    let resources = json!({"code_interpreter": {"file_ids": [file]}});
    let thread =
        json!({"tool_resources": resources, "messages": [{"role": "user", "content": "?"}]});
    let thread = id(&fixture.client.post("/threads", thread).await);
    fixture.run_code(&thread, "read in.csv", "Done.").await;
    fixture.worker.refuse_removals();
    fixture.delete(&file).await;
    let restarted = "[The Python session was restarted: files are there, variables are gone.]";
    let found = contents(&fixture, &thread, &["in.csv"]).await;
    assert_eq!(found, [restarted, "no such file"]);
}

#[tokio::test]
async fn what_a_worker_did_to_a_session_between_cells_is_told_with_the_next_cell() {
    let fixture = CodeFixture::start().await;
    let thread = fixture.client.create_thread("?").await;
    for (notice, expected) in [
        (Notice::ProcessesKilled, "Processes that earlier cells"),
        (Notice::EndedForCpu, "The Python session was ended: threads"),
        (
            Notice::EndedForMemory,
            "The Python session was ended: after",
        ),
    ] {
        fixture.worker.set_notice(notice);
        let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
        fixture
            .model
            .next_call()
            .await
            .answer_code("say one\nsay two")
            .await;
        let call = fixture.model.next_call().await;
        let output = tool_output(&call.request).to_owned();
        assert!(output.starts_with(expected), "{output}");
        assert!(output.ends_with(".\none\ntwo"), "{output}");
        call.answer_text("Done.").await;
        stream.read_to_end().await;
    }
    let outputs = contents(&fixture, &thread, &["none"]).await;
    assert_eq!(outputs, ["no such file"], "a notice is given once");
}

#[tokio::test]
async fn a_session_that_is_gone_is_made_again_with_its_files() {
    let fixture = CodeFixture::start().await;
    let given = fixture.upload("in.csv", "in").await;
    let resources = json!({"code_interpreter": {"file_ids": [given]}});
    let thread =
        json!({"tool_resources": resources, "messages": [{"role": "user", "content": "?"}]});
    let thread = id(&fixture.client.post("/threads", thread).await);
    fixture
        .run_code(&thread, "write out.csv one\nwrite in.csv changed", "Done.")
        .await;
    fixture.worker.end_sessions();
    fixture.worker.take_log();

    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    fixture
        .model
        .next_call()
        .await
        .answer_code(&format!("read out.csv\nread in.csv\nread {given}"))
        .await;
    let call = fixture.model.next_call().await;
    let restarted = "[The Python session was restarted: files are there, variables are gone.]";
    assert_eq!(
        tool_output(&call.request),
        format!("{restarted}\none\nchanged\nin")
    );
    // A link may name a file that an earlier run wrote.
    call.answer_text("sandbox:/mnt/data/out.csv").await;
    let streamed = event_stream::check(&stream.read_to_end().await);
    let message = streamed
        .messages
        .values()
        .next()
        .expect("the stream has one");
    let file = &message["content"][0]["text"]["annotations"][0]["file_path"]["file_id"];
    assert_eq!(fixture.client.file_content(file).await, b"one");
    let log = fixture.worker.take_log();
    let puts = [
        format!("put {given}"),
        "put in.csv".to_owned(),
        "put out.csv".to_owned(),
    ];
    assert_eq!(log[..3], puts);

    // The session is not reported as restarted again.
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    fixture
        .model
        .next_call()
        .await
        .answer_code("say again")
        .await;
    let call = fixture.model.next_call().await;
    assert_eq!(tool_output(&call.request), "again");
    call.answer_text("Done.").await;
    stream.read_to_end().await;
}

#[tokio::test]
async fn a_session_that_ends_in_a_cell_is_made_again_for_the_next() {
    let fixture = CodeFixture::start().await;
    let thread = fixture.client.create_thread("?").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    let mut answer = fixture.model.next_call().await.start_answer();
    answer
        .send_tool_call(0, "code_interpreter", &[r#"{"code": "say one\nlose"}"#])
        .await;
    answer.send_tool_call(1, "python", &["say two"]).await;
    answer.finish().await;
    let call = fixture.model.next_call().await;
    let messages = call.request["messages"]
        .as_array()
        .expect("a request has messages");
    let outputs: Vec<&str> = messages
        .iter()
        .filter(|message| message["role"] == "tool")
        .map(|message| message["content"].as_str().expect("the value is a string"))
        .collect();
    let [first, second] = outputs.as_slice() else {
        panic!("{outputs:?}");
    };
    assert!(first.starts_with("one\nThe cell was stopped because it used too much memory."));
    assert!(second.starts_with("[The Python session was restarted") && second.ends_with("\ntwo"));
    call.answer_text("Sorry.").await;
    assert_eq!(
        event_stream::check(&stream.read_to_end().await).run["status"],
        "completed"
    );
}

#[tokio::test]
async fn cancelling_a_run_interrupts_its_cell() {
    let fixture = CodeFixture::start().await;
    let thread = fixture.client.create_thread("?").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    fixture
        .model
        .next_call()
        .await
        .answer_code("say one\nwait\nsay two")
        .await;
    fixture.worker.wait_for_log("wait").await;
    let runs = fixture
        .client
        .list(&format!("/threads/{thread}/runs"))
        .await;
    let path = format!("/threads/{thread}/runs/{}", id(&runs[0]));
    fixture
        .client
        .post(&format!("{path}/cancel"), json!({}))
        .await;
    fixture.worker.wait_for_log("interrupted").await;
    let streamed = event_stream::check(&stream.read_to_end().await);
    assert_eq!(streamed.run["status"], "cancelled");
    let steps = fixture.client.list(&format!("{path}/steps")).await;
    assert_eq!(steps[0]["status"], "cancelled");
    let outputs = &steps[0]["step_details"]["tool_calls"][0]["code_interpreter"]["outputs"];
    assert_eq!(*outputs, json!([{"type": "logs", "logs": "one\n"}]));
    // The session survives the interrupted cell.
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    let call = fixture.model.next_call().await;
    let messages = call.request["messages"].to_string();
    assert!(
        messages.contains("say one"),
        "what it did is known: {messages}"
    );
    call.answer_text("Done.").await;
    stream.read_to_end().await;
}

#[tokio::test]
async fn functions_wait_for_the_caller_after_the_code_has_run() {
    let function = json!({"type": "function", "function": {"name": "get_weather"}});
    let fixture = CodeFixture::start_with(json!([{"type": "code_interpreter"}, function])).await;
    let thread = fixture.client.create_thread("?").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    let mut answer = fixture.model.next_call().await.start_answer();
    answer.send_tool_call(0, "get_weather", &["{}"]).await;
    answer
        .send_tool_call(1, "code_interpreter", &[r#"{"code": "say one"}"#])
        .await;
    answer.finish().await;
    let waiting = event_stream::check(&stream.read_to_end().await).run;
    assert_eq!(waiting["status"], "requires_action");
    let calls = &waiting["required_action"]["submit_tool_outputs"]["tool_calls"];
    assert_eq!(calls.as_array().map(Vec::len), Some(1), "{calls}");
    assert_eq!(calls[0]["function"]["name"], "get_weather");
    let path = format!("/threads/{thread}/runs/{}", id(&waiting));
    let steps = fixture.client.list(&format!("{path}/steps")).await;
    let code = &steps[0]["step_details"]["tool_calls"][1]["code_interpreter"];
    assert_eq!(code["outputs"], json!([{"type": "logs", "logs": "one\n"}]));
    let outputs = json!([{"tool_call_id": "call_0", "output": "sunny"}]);
    let submit = json!({"tool_outputs": outputs});
    fixture
        .client
        .post(&format!("{path}/submit_tool_outputs"), submit)
        .await;
    let call = fixture.model.next_call().await;
    assert_eq!(tool_output(&call.request), "one");
    call.answer_text("Done.").await;
    let run = fixture
        .client
        .wait_for_status(&thread, &id(&waiting), &["completed"])
        .await;
    assert_eq!(run["usage"]["total_tokens"], 30, "each turn counts once");
}

#[tokio::test]
async fn a_worker_that_dies_fails_the_run_and_says_so() {
    let fixture = CodeFixture::start().await;
    let thread = fixture.client.create_thread("?").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    fixture
        .model
        .next_call()
        .await
        .answer_code("say one\ndie")
        .await;
    let streamed = event_stream::check(&stream.read_to_end().await);
    assert_eq!(streamed.run["status"], "failed");
    let error = &streamed.run["last_error"];
    assert_eq!(error["code"], "server_error");
    let message = error["message"].as_str().expect("the value is a string");
    assert_eq!(message, "The connection to the code interpreter was lost.");
    let step = streamed.steps.values().next().expect("the stream has one");
    assert_eq!(step["status"], "failed");
    // The next run succeeds.
    fixture.run_code(&thread, "say two", "Done.").await;
}

#[tokio::test]
async fn a_thread_stays_with_its_worker_and_a_full_one_is_passed_over() {
    let mut fixture = CodeFixture::start().await;
    let other = FakeWorker::start();
    let addresses = format!("{},{}", fixture.worker.address(), other.address());
    let settings = [
        &fixture.model.settings()[..],
        &[("ASSISTD_SANDBOX", &addresses)],
    ]
    .concat();
    let db = Db::new().await;
    fixture.server = Server::start(&db, &settings).await;
    fixture.client = fixture.server.client();
    let tools = json!([{"type": "code_interpreter"}]);
    let body = json!({"model": "fake", "tools": tools});
    fixture.assistant = fixture.client.create_assistant_with(body).await;
    let workers = [&fixture.worker, &other];
    let mut homes = [0, 0];
    // The thread's id picks its worker, so 64 threads use both workers almost surely.
    while homes.contains(&0) && homes.iter().sum::<usize>() < 64 {
        let thread = fixture.client.create_thread("?").await;
        fixture.run_code(&thread, "write a one", "Done.").await;
        let home = workers
            .iter()
            .position(|worker| !worker.take_log().is_empty());
        let home = home.expect("a worker ran the code");
        homes[home] += 1;
        // The thread keeps its worker even if that accepts no new sessions.
        workers[home].set_full(true);
        fixture.run_code(&thread, "read a", "Done.").await;
        assert_eq!(
            workers[home].take_log(),
            ["read a"],
            "nothing was put there again"
        );
        assert!(workers[1 - home].take_log().is_empty());
        // A new thread gets the other worker, whichever its id picks.
        let thread = fixture.client.create_thread("?").await;
        fixture.run_code(&thread, "say one", "Done.").await;
        assert_eq!(workers[1 - home].take_log(), ["say one"]);
        workers[home].set_full(false);
    }
    assert!(!homes.contains(&0), "{homes:?}");
}

#[tokio::test]
async fn a_worker_on_tcp_is_shown_the_token() {
    let mut fixture = CodeFixture::start().await;
    fixture.worker = FakeWorker::start_on_tcp("a-secret-token").await;
    let address = fixture.worker.address();
    for (token, status) in [("a-secret-token", "completed"), ("another-token", "failed")] {
        let more = [
            ("ASSISTD_SANDBOX", &*address),
            ("ASSISTD_SANDBOX_TOKEN", token),
        ];
        let settings = [&fixture.model.settings()[..], &more].concat();
        fixture.server = Server::start(&Db::new().await, &settings).await;
        fixture.client = fixture.server.client();
        let tools = json!([{"type": "code_interpreter"}]);
        let body = json!({"model": "fake", "tools": tools});
        fixture.assistant = fixture.client.create_assistant_with(body).await;
        let thread = fixture.client.create_thread("?").await;
        let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
        fixture.model.next_call().await.answer_code("say one").await;
        if status == "completed" {
            fixture.model.next_call().await.answer_text("Done.").await;
        }
        let run = event_stream::check(&stream.read_to_end().await).run;
        assert_eq!(run["status"], status, "{run}");
        let visible = format!("{run}{}", fixture.server.log());
        assert!(!visible.contains(token), "the token is shown: {visible}");
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_refused() {
    let function = json!({"type": "function", "function": {"name": "code_interpreter"}});
    let fixture = CodeFixture::start_with(json!([{"type": "code_interpreter"}, function])).await;
    let thread = fixture.client.create_thread("?").await;
    let runs = format!("/threads/{thread}/runs");
    let body = json!({"assistant_id": fixture.assistant});
    let refused = fixture.client.send(Method::POST, &runs, Some(&body)).await;
    let refused = refused.expect("the server answers");
    assert_eq!(
        (refused.status, &refused.body["error"]["param"]),
        (400, &json!("tools"))
    );

    let server = Server::start(&Db::new().await, &[]).await;
    let off = server.client();
    let tools = json!([{"type": "code_interpreter"}]);
    let assistant = off
        .create_assistant_with(json!({"model": "fake", "tools": tools}))
        .await;
    let thread = off.create_thread("?").await;
    let runs = format!("/threads/{thread}/runs");
    let body = json!({"assistant_id": assistant});
    let refused = off.send(Method::POST, &runs, Some(&body)).await;
    let refused = refused.expect("the server answers");
    assert_eq!(refused.status, 400);
    let error = &refused.body["error"];
    assert_eq!(error["code"], "unsupported_tool");
    let message = error["message"].as_str().expect("the value is a string");
    assert!(
        message.contains("it is switched off by ASSISTD_SANDBOX"),
        "{message}"
    );
}

#[tokio::test]
async fn a_call_without_code_is_answered_with_what_is_wrong() {
    let fixture = CodeFixture::start().await;
    let thread = fixture.client.create_thread("?").await;
    let stream = fixture.client.stream_run(&thread, &fixture.assistant).await;
    let mut answer = fixture.model.next_call().await.start_answer();
    answer
        .send_tool_call(0, "code_interpreter", &["{\"cod\": 1}"])
        .await;
    answer.finish().await;
    let call = fixture.model.next_call().await;
    assert!(tool_output(&call.request).contains("no `code`"));
    call.answer_text("Done.").await;
    let streamed = event_stream::check(&stream.read_to_end().await);
    assert_eq!(
        text(
            streamed
                .messages
                .values()
                .next()
                .expect("there is a message")
        ),
        "Done."
    );
    assert!(fixture.worker.take_log().is_empty());
    drop(fixture.server);
}

#[tokio::test]
async fn a_fence_around_code_is_not_run() {
    let fixture = CodeFixture::start().await;
    for fenced in [
        "```python\nresult 42\n```",
        "```python result 42```",
        "```\nresult 42\n```",
    ] {
        let thread = fixture.client.create_thread("Count.").await;
        let events = fixture.run_code(&thread, fenced, "Done.").await;
        let streamed = event_stream::check(&events);
        let mut steps = streamed.steps.values();
        let step = steps.find(|step| step["type"] == "tool_calls");
        let step = step.expect("the code is a step");
        let call = &step["step_details"]["tool_calls"][0]["code_interpreter"];
        assert_eq!(call["input"].as_str().map(str::trim), Some("result 42"));
        assert_eq!(call["outputs"][0]["logs"], "42", "{call}");
    }
}
