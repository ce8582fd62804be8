//! The `file_search` tool: what models receive, what clients see, and citations.

use serde_json::{Value, json};

use crate::client::{Event, id};
use crate::event_stream::{self, text};
use crate::fake_model::ModelCall;
use crate::retrieval_fixture::RetrievalFixture;

/// The query parameter that includes the text of search results.
const INCLUDE: &str = "include[]=step_details.tool_calls[*].file_search.results[*].content";

const FOODS: &str = "Ana likes cake. Ben likes pizza.";

struct SearchRunFixture {
    retrieval: RetrievalFixture,
    assistant: String,
    file: String,
    store: String,
}

impl SearchRunFixture {
    async fn start() -> Self {
        Self::start_with(json!({"type": "file_search"})).await
    }

    async fn start_with(tool: Value) -> Self {
        let retrieval = RetrievalFixture::start().await;
        let (store, file) = retrieval.create_store_with("foods.txt", FOODS).await;
        let assistant = json!({
            "model": "fake", "tools": [tool],
            "tool_resources": {"file_search": {"vector_store_ids": [store]}},
        });
        Self {
            assistant: retrieval.client.create_assistant_with(assistant).await,
            retrieval,
            file,
            store,
        }
    }

    /// Streams a run on a new thread, with these query parameters, while `answer_calls` answers for
    /// the model; the thread and the events.
    async fn run(
        &self,
        parameters: &str,
        answer_calls: impl AsyncFnOnce(&Self),
    ) -> (String, Vec<Event>) {
        let thread = self
            .retrieval
            .client
            .create_thread("What does Ana like?")
            .await;
        let path = format!("/threads/{thread}/runs{parameters}");
        let body = json!({"assistant_id": self.assistant, "stream": true});
        let stream = self.retrieval.client.stream(&path, &body).await;
        answer_calls(self).await;
        (thread, stream.read_to_end().await)
    }

    async fn next_call(&self) -> ModelCall {
        self.retrieval.model.next_call().await
    }
}

/// The search results of a step.
fn results(step: &Value) -> &[Value] {
    let results = &step["step_details"]["tool_calls"][0]["file_search"]["results"];
    results.as_array().expect("a search has results")
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

/// Checks the order of events of a run that searches once and answers with four deltas.
fn verify_event_names(events: &[Event]) {
    let names: Vec<&str> = events.iter().map(|event| &*event.name).collect();
    let step = ["thread.run.step.created", "thread.run.step.in_progress"];
    let delta = "thread.message.delta";
    let expected = [
        &[
            "thread.run.created",
            "thread.run.queued",
            "thread.run.in_progress",
        ][..],
        &step,
        &["thread.run.step.delta", "thread.run.step.completed"],
        &step,
        &["thread.message.created", "thread.message.in_progress"],
        &[delta, delta, delta, delta],
        &["thread.message.completed", "thread.run.step.completed"],
        &["thread.run.completed", "done"],
    ];
    assert_eq!(names, expected.concat());
}

#[tokio::test]
async fn an_answer_is_streamed_with_its_citation_as_recorded() {
    let fixture = SearchRunFixture::start().await;
    let (thread, events) = fixture
        .run(&format!("?{INCLUDE}"), async |fixture| {
            let call = fixture.next_call().await;
            let offered = call.request["tools"].as_array().expect("tools are offered");
            assert_eq!(offered.len(), 1, "{offered:?}");
            let function = &offered[0]["function"];
            assert_eq!(function["name"], "file_search");
            let parameters = &function["parameters"];
            assert_eq!(parameters["required"], json!(["queries"]));
            assert_eq!(
                parameters["properties"]["queries"]["items"]["type"],
                "string"
            );
            call.answer_search(&["What does Ana like?"]).await;

            let call = fixture.next_call().await;
            let messages = &call.request["messages"];
            let requested = &messages[messages.as_array().map_or(0, Vec::len) - 2]["tool_calls"][0];
            assert_eq!(requested["function"]["name"], "file_search");
            let passage = format!("【4:0†foods.txt】\n{FOODS}");
            assert!(
                tool_output(&call.request).contains(&passage),
                "{}",
                tool_output(&call.request)
            );
            let mut answer = call.start_answer();
            for piece in ["Ána", " likes cake【4", ":0†foods", ".txt】", "."] {
                answer.send_text(piece).await;
            }
            answer.finish().await;
        })
        .await;

    verify_event_names(&events);
    let delta = &events[5].data["delta"]["step_details"]["tool_calls"];
    let ranking = json!({"ranker": "default_2024_08_21", "score_threshold": 0.0});
    let first = json!([{"index": 0, "id": "call_0", "type": "file_search",
                        "file_search": {"ranking_options": ranking, "results": []}}]);
    assert_eq!(*delta, first);
    let step = &events[6].data;
    let score = results(step)[0]["score"]
        .as_f64()
        .expect("the value is a number");
    assert!(score > 0.0 && score <= 1.0);
    let found = json!([{
        "file_id": fixture.file, "file_name": "foods.txt", "score": score, "attributes": {},
        "content": [{"type": "text", "text": FOODS}],
    }]);
    let details = json!({"type": "tool_calls", "tool_calls": [{
        "id": "call_0", "type": "file_search",
        "file_search": {"ranking_options": ranking, "results": found},
    }]});
    assert_eq!(step["step_details"], details);

    let deltas = events
        .iter()
        .filter(|event| event.name == "thread.message.delta");
    let deltas: Vec<&Value> = deltas
        .map(|event| &event.data["delta"]["content"])
        .collect();
    let marker = "【4:0†foods.txt】";
    let part = |text: Value| json!([{"index": 0, "type": "text", "text": text}]);
    let annotation = json!({
        "index": 0, "type": "file_citation", "text": marker, "start_index": 14, "end_index": 29,
        "file_citation": {"file_id": fixture.file, "quote": ""},
    });
    let expected = [
        part(json!({"value": "Ána", "annotations": []})),
        part(json!({"value": " likes cake"})),
        part(json!({"value": marker, "annotations": [annotation]})),
        part(json!({"value": "."})),
    ];
    assert_eq!(deltas, expected.iter().collect::<Vec<_>>());

    let path = format!("/threads/{thread}/messages");
    let message = &fixture.retrieval.client.list(&path).await[1];
    let annotation = json!({
        "type": "file_citation", "text": marker, "start_index": 14, "end_index": 29,
        "file_citation": {"file_id": fixture.file},
    });
    let value = format!("Ána likes cake{marker}.");
    let content = json!([{"type": "text", "text": {"value": value, "annotations": [annotation]}}]);
    assert_eq!(message["content"], content);
    let completed = events
        .iter()
        .find(|event| event.name == "thread.message.completed");
    assert_eq!(completed.expect("the stream had the event").data, *message);
}

#[tokio::test]
async fn the_text_of_results_is_shown_to_those_who_ask_for_it() {
    let fixture = SearchRunFixture::start().await;
    let shown = json!([{"type": "text", "text": FOODS}]);
    for (parameters, expected) in [(String::new(), Value::Null), (format!("?{INCLUDE}"), shown)] {
        let (thread, events) = fixture
            .run(&parameters, async |fixture| {
                fixture.next_call().await.answer_search(&["cake"]).await;
                fixture.next_call().await.answer_text("Cake.").await;
            })
            .await;
        let step = events
            .iter()
            .find(|event| event.name == "thread.run.step.completed");
        let streamed = &step.expect("the search ends").data;
        assert_eq!(results(streamed)[0]["content"], expected, "streamed");
        let run = streamed["run_id"].as_str().expect("a step has a run");
        let path = format!("/threads/{thread}/runs/{run}/steps");
        let get = async |path: String| {
            fixture
                .retrieval
                .client
                .get(&format!("{path}{parameters}"))
                .await
        };
        let list = get(path.clone()).await;
        let [_, listed] = list["data"]
            .as_array()
            .expect("the value is a list")
            .as_slice()
        else {
            panic!("two steps: {list}");
        };
        let retrieved = get(format!("{path}/{}", id(streamed))).await;
        for step in [listed, &retrieved] {
            let found = &results(step)[0];
            assert_eq!(found["content"], expected, "{step}");
            let keys = found.as_object().expect("the value is an object").keys();
            let keys: Vec<&str> = keys.map(String::as_str).collect();
            let always = ["file_id", "file_name", "score", "attributes"];
            let content = expected.is_array().then_some("content");
            assert_eq!(keys, always.into_iter().chain(content).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn markers_that_point_at_nothing_are_taken_out() {
    let fixture = SearchRunFixture::start().await;
    let (thread, events) = fixture
        .run("", async |fixture| {
            fixture.next_call().await.answer_search(&["cake"]).await;
            let say =
                "One【4:0†foods.txt】 two【4:7†foods.txt】 three【5:0†x】 【so】 four【4:0†】.";
            fixture.next_call().await.answer_text(say).await;
        })
        .await;
    event_stream::check(&events);
    let path = format!("/threads/{thread}/messages");
    let message = &fixture.retrieval.client.list(&path).await[1];
    assert_eq!(
        text(message),
        "One【4:0†foods.txt】 two three 【so】 four【4:0†】."
    );
    let annotations = &message["content"][0]["text"]["annotations"];
    let places = annotations.as_array().expect("the value is a list").iter();
    let places = places.map(|annotation| {
        assert_eq!(annotation["file_citation"]["file_id"], *fixture.file);
        let place = |key: &str| annotation[key].as_u64();
        (
            annotation["text"].as_str(),
            place("start_index"),
            place("end_index"),
        )
    });
    let expected = [
        (Some("【4:0†foods.txt】"), Some(3), Some(18)),
        (Some("【4:0†】"), Some(38), Some(44)),
    ];
    assert_eq!(places.collect::<Vec<_>>(), expected);

    // Searches are numbered per thread, so earlier results may still be cited.
    let stream = fixture
        .retrieval
        .client
        .stream_run(&thread, &fixture.assistant)
        .await;
    let call = fixture.next_call().await;
    let history = call.request["messages"].to_string();
    assert!(
        history.contains("【4:0†foods.txt】\\nAna likes cake"),
        "{history}"
    );
    call.answer_search(&["pizza"]).await;
    let call = fixture.next_call().await;
    assert!(tool_output(&call.request).contains("【5:0†foods.txt】"));
    call.answer_text("Old【4:0†foods.txt】, new【5:0†foods.txt】.")
        .await;
    event_stream::check(&stream.read_to_end().await);
    let message = &fixture.retrieval.client.list(&path).await[2];
    let annotations = &message["content"][0]["text"]["annotations"];
    assert_eq!(annotations.as_array().map(Vec::len), Some(2), "{message}");
}

#[tokio::test]
async fn citations_hold_whatever_files_are_called() {
    let fixture = SearchRunFixture::start().await;
    for name in ["a】b.txt", "【重要】お知らせ.txt", "†4:0†.txt"] {
        let (store, file) = fixture
            .retrieval
            .create_store_with(name, "Cleo likes figs.")
            .await;
        let resources = json!({"file_search": {"vector_store_ids": [store]}});
        let path = format!("/assistants/{}", fixture.assistant);
        let body = json!({"tool_resources": resources});
        fixture.retrieval.client.post(&path, body).await;
        let marker = format!("【4:0†{name}】");
        let (thread, events) = fixture
            .run("", async |fixture| {
                fixture
                    .next_call()
                    .await
                    .answer_search(&["What does Cleo like?"])
                    .await;
                let call = fixture.next_call().await;
                assert!(tool_output(&call.request).starts_with(&marker), "{name}");
                let mut answer = call.start_answer();
                let text = format!("Figs{marker}.");
                for piece in text.split_inclusive(['】', '†']) {
                    answer.send_text(piece).await;
                }
                answer.finish().await;
            })
            .await;
        event_stream::check(&events);
        let path = format!("/threads/{thread}/messages");
        let message = &fixture.retrieval.client.list(&path).await[1];
        assert_eq!(text(message), format!("Figs{marker}."));
        let annotations = &message["content"][0]["text"]["annotations"];
        let annotation = json!([{
            "type": "file_citation", "text": marker, "start_index": 4,
            "end_index": 4 + marker.chars().count(), "file_citation": {"file_id": file},
        }]);
        assert_eq!(*annotations, annotation, "{name}");
    }
}

#[tokio::test]
async fn the_tools_settings_say_what_is_found() {
    let ranking = json!({"ranker": "default_2024_08_21", "score_threshold": 0.0});
    let settings = json!({"max_num_results": 2, "ranking_options": ranking});
    let fixture =
        SearchRunFixture::start_with(json!({"type": "file_search", "file_search": settings})).await;
    let texts = [
        ("1.txt", "Cake of rye."),
        ("2.txt", "Cake of wheat."),
        ("3.txt", "Cake of oats."),
    ];
    for file in fixture.retrieval.upload_files(&texts).await {
        let path = format!("/vector_stores/{}/files", fixture.store);
        fixture
            .retrieval
            .client
            .post(&path, json!({"file_id": file}))
            .await;
    }
    fixture.retrieval.wait_until_indexed(&fixture.store).await;
    let search = async |expected: &[&str]| {
        let (_, events) = fixture
            .run("", async |fixture| {
                fixture
                    .next_call()
                    .await
                    .answer_search(&["cake of oats", "cake of rye"])
                    .await;
                let call = fixture.next_call().await;
                for name in ["1.txt", "2.txt", "3.txt", "foods.txt"] {
                    let is_told = tool_output(&call.request).contains(&format!("†{name}】"));
                    assert_eq!(is_told, expected.contains(&name), "{name}");
                }
                call.answer_text("Cake.").await;
            })
            .await;
        let step = &events[6].data;
        let names = results(step)
            .iter()
            .map(|result| result["file_name"].as_str());
        let mut names: Vec<&str> = names.flatten().collect();
        names.sort();
        assert_eq!(names, expected);
        step["step_details"]["tool_calls"][0]["file_search"]["ranking_options"].clone()
    };
    assert_eq!(search(&["1.txt", "3.txt"]).await, ranking);

    let strict = json!({"ranker": "auto", "score_threshold": 1.0});
    let tool = json!({"type": "file_search", "file_search": {"ranking_options": strict}});
    let path = format!("/assistants/{}", fixture.assistant);
    fixture
        .retrieval
        .client
        .post(&path, json!({"tools": [tool]}))
        .await;
    assert_eq!(search(&[]).await, strict, "nothing is that good");
}

#[tokio::test]
async fn the_stores_of_the_assistant_and_of_the_thread_are_searched() {
    let fixture = SearchRunFixture::start().await;
    let client = &fixture.retrieval.client;
    let own = id(&client.upload("own.txt", "Cid likes cake too.").await);
    let (theirs, _) = fixture
        .retrieval
        .create_store_with("theirs.txt", "Dee likes cake as well.")
        .await;
    // The same file is in the assistant's store and in the thread's.
    let store = fixture
        .retrieval
        .create_store(&[own, fixture.file.clone()])
        .await;
    let thread = client
        .post(
            "/threads",
            json!({
                "messages": [{"role": "user", "content": "Who likes cake?"}],
                "tool_resources": {"file_search": {"vector_store_ids": [store]}},
            }),
        )
        .await;
    let stream = client.stream_run(&id(&thread), &fixture.assistant).await;
    fixture
        .next_call()
        .await
        .answer_search(&["Who likes cake?"])
        .await;
    fixture.next_call().await.answer_text("All.").await;
    let events = stream.read_to_end().await;
    let found = results(&events[6].data);
    let mut names: Vec<&str> = found
        .iter()
        .filter_map(|result| result["file_name"].as_str())
        .collect();
    let scores: Vec<f64> = found
        .iter()
        .filter_map(|result| result["score"].as_f64())
        .collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    names.sort();
    assert_eq!(names, ["foods.txt", "foods.txt", "own.txt"]);

    // A store is searched once it is attached to the thread.
    let resources = json!({"file_search": {"vector_store_ids": [theirs]}});
    let path = format!("/threads/{}", id(&thread));
    client
        .post(&path, json!({"tool_resources": resources}))
        .await;
    let stream = client.stream_run(&id(&thread), &fixture.assistant).await;
    fixture
        .next_call()
        .await
        .answer_search(&["Who likes cake?"])
        .await;
    fixture.next_call().await.answer_text("All.").await;
    let events = stream.read_to_end().await;
    let names = results(&events[6].data)
        .iter()
        .map(|result| &result["file_name"]);
    let mut names: Vec<&str> = names.filter_map(Value::as_str).collect();
    names.sort();
    assert_eq!(names, ["foods.txt", "theirs.txt"]);

    // A store of both is searched once.
    let resources = json!({"file_search": {"vector_store_ids": [fixture.store]}});
    client
        .post(&path, json!({"tool_resources": resources}))
        .await;
    let stream = client.stream_run(&id(&thread), &fixture.assistant).await;
    fixture
        .next_call()
        .await
        .answer_search(&["Who likes cake?"])
        .await;
    fixture.next_call().await.answer_text("Ana.").await;
    assert_eq!(results(&stream.read_to_end().await[6].data).len(), 1);
}

#[tokio::test]
async fn calls_without_queries_and_stores_without_answers_find_nothing() {
    let fixture = SearchRunFixture::start().await;
    for arguments in ["{}", r#"{"queries": []}"#] {
        let (_, events) = fixture
            .run("", async |fixture| {
                let mut answer = fixture.next_call().await.start_answer();
                answer.send_tool_call(0, "file_search", &[arguments]).await;
                answer.finish().await;
                let call = fixture.next_call().await;
                assert!(tool_output(&call.request).contains("Nothing was found"));
                call.answer_text("I do not know.").await;
            })
            .await;
        let streamed = event_stream::check(&events);
        assert_eq!(streamed.run["status"], "completed");
        assert_eq!(results(&events[6].data), [] as [Value; 0]);
    }
    let path = format!("/vector_stores/{}", fixture.store);
    fixture.retrieval.delete(&path).await;
    let (_, events) = fixture
        .run("", async |fixture| {
            fixture.next_call().await.answer_search(&["cake"]).await;
            fixture
                .next_call()
                .await
                .answer_text("I do not know.")
                .await;
        })
        .await;
    assert_eq!(results(&events[6].data), [] as [Value; 0]);
}
