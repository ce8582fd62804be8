//! The scripted model as its users meet it: a script, requests, and what comes back.

use futures::StreamExt;
use serde_json::Value;
use serde_json::json;

use super::*;
use crate::models::FinishReason;
use crate::models::TurnEvent;
use crate::models::UpstreamError;
use crate::models::Usage;
use crate::models::decode;
use crate::models::decode::CallNames;
use crate::models::event_stream::Limits;

mod analyst;
mod librarian;

/// What one streamed turn gave, put together.
#[derive(Debug, Default, PartialEq)]
struct Turn {
    text: String,
    pieces: usize,
    refusal: String,
    reasoning: String,
    calls: Vec<(String, String)>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    error: Option<UpstreamError>,
}

fn scripted(yaml: &str) -> Scripted {
    Scripted::parse(yaml, "test").expect("a valid script")
}

/// A script of one model, `scripted/t`, with these rules.
fn rules(yaml: &str) -> Scripted {
    let indented: String = yaml.lines().map(|line| format!("      {line}\n")).collect();
    scripted(&format!("models:\n  t:\n    rules:\n{indented}"))
}

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

fn function(name: &str, parameters: Value) -> Value {
    json!({ "type": "function", "function": { "name": name, "description": "", "parameters": parameters } })
}

async fn ask(scripted: &Scripted, mut request: Value) -> Turn {
    request["stream"] = json!(true);
    request["stream_options"] = json!({ "include_usage": true });
    if request["model"].is_null() {
        request["model"] = json!("scripted/t");
    }
    let answer = scripted.send(Endpoint::Chat, Arc::new(request)).await;
    let mut turn = Turn::default();
    if !answer.status.is_success() {
        let text = crate::models::read_error_body(answer.body).await;
        let pause = crate::models::retry::requested_pause(&answer.headers);
        let detail = crate::models::error::Detail::from_body(&text);
        turn.error = Some(detail.into_error("scripted", answer.status, pause));
        return turn;
    }
    let limits = Limits {
        line: 1 << 20,
        answer: 1 << 20,
    };
    let mut events = decode::events(answer.body, CallNames::default(), limits).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(TurnEvent::Text(more)) => {
                turn.text.push_str(&more);
                turn.pieces += 1;
            }
            Ok(TurnEvent::Refusal(more)) => turn.refusal.push_str(&more),
            Ok(TurnEvent::Reasoning(more)) => turn.reasoning.push_str(&more),
            Ok(TurnEvent::ToolCall {
                index,
                name,
                arguments,
                ..
            }) => {
                if let Some(name) = name {
                    turn.calls.push((name, String::new()));
                }
                turn.calls[index].1.push_str(&arguments);
            }
            Ok(TurnEvent::Usage(usage)) => turn.usage = Some(usage),
            Ok(TurnEvent::Finish(reason)) => turn.finish = Some(reason),
            Err(error) => turn.error = Some(error),
        }
    }
    turn
}

async fn text(scripted: &Scripted, request: Value) -> String {
    ask(scripted, request).await.text
}

fn refused(yaml: &str) -> String {
    Scripted::parse(yaml, "ci.yaml")
        .err()
        .expect("a wrong script")
        .to_string()
}

#[tokio::test]
async fn the_first_rule_that_fits_answers() {
    let model = rules(
        r"
- when: { user: '(?i)weather in (?P<city>\w+)' }
  then: { text: 'It is sunny in {{user.city}}.' }
- when: { instructions: '(?i)speak (\w+)' }
  then: { text: 'I speak {{instructions.1}}.' }
- when: { user: name, history: 'I am (\w+)' }
  then: { text: 'You are {{history.1}}.' }
- when: { turn: 3+ }
  then: { text: 'message {{turn}}' }
- when: { offers: [look_up] }
  then: { text: 'I could look that up.' }
- when: { turn: 2 }
  then: { text: 'second' }
",
    );
    let said = |messages: Value| json!({ "messages": messages });
    assert_eq!(
        text(&model, said(user("Weather in Oslo?"))).await,
        "It is sunny in Oslo."
    );
    let instructed =
        json!([{"role": "system", "content": "Speak Dutch."}, {"role": "user", "content": "x"}]);
    assert_eq!(text(&model, said(instructed)).await, "I speak Dutch.");
    let remembered = json!([{"role": "user", "content": "I am Ann"}, {"role": "assistant", "content": "ok"},
        {"role": "user", "content": [{"type": "text", "text": "my name?"}]}]);
    assert_eq!(text(&model, said(remembered)).await, "You are Ann.");
    let third = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "user", "content": "c"}]);
    assert_eq!(text(&model, said(third.clone())).await, "message 3");
    let second = said(json!([third[0], third[1]]));
    assert_eq!(text(&model, second).await, "second");
    let offered = json!({"messages": user("x"), "tools": [function("look_up", json!({}))]});
    assert_eq!(text(&model, offered).await, "I could look that up.");
}

#[tokio::test]
async fn no_fitting_rule_is_an_error_that_names_the_model_only() {
    let model = rules("- when: { user: never }\n  then: { text: x }");
    let turn = ask(&model, json!({ "messages": user("a secret") })).await;
    let error = turn.error.expect("an error");
    assert_eq!(
        error.to_string(),
        "No rule of the scripted model `scripted/t` fits this request."
    );
    let unknown = json!({ "model": "scripted/nobody", "messages": user("x") });
    let error = ask(&model, unknown).await.error.expect("an error");
    let UpstreamError::InvalidRequest {
        status: 404, code, ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(code.as_deref(), Some("model_not_found"));
}

#[tokio::test]
async fn tool_calls_are_filled_from_the_message_and_answered_from_the_result() {
    let model = rules(
        r#"
- when: { tool_result: { name: get_weather, output: '(\d+)' } }
  then: { text: '{{result.1}} degrees in {{arguments:/city}}, {{result:/sky/0}}.' }
- when: { tool_result: {} }
  then: { text: 'Got {{results}}.' }
- when: { user: '(\w+) (\d+)' }
  then:
    text: 'One moment.'
    tool_calls:
      - name: get_weather
        arguments: { city: '{{user.1}}', days: '{{user.2 | json}}', list: [1, 'x{{user.2}}'], ok: true }
      - { name: broken, arguments: '{"city": ' }
"#,
    );
    let turn = ask(&model, json!({ "messages": user("Oslo 3") })).await;
    assert_eq!(turn.text, "One moment.");
    assert_eq!(turn.finish, Some(FinishReason::ToolCalls));
    let expected = r#"{"city":"Oslo","days":3,"list":[1,"x3"],"ok":true}"#;
    assert_eq!(
        turn.calls,
        [
            ("get_weather".to_owned(), expected.to_owned()),
            ("broken".to_owned(), "{\"city\": ".to_owned())
        ]
    );
    let results = |outputs: &[(&str, &str)]| {
        let calls: Vec<Value> = outputs.iter().enumerate().map(|(index, (name, _))| json!(
            {"id": format!("c{index}"), "type": "function", "function": {"name": name, "arguments": expected}})).collect();
        let mut messages = json!([{"role": "user", "content": "Oslo 3"}, {"role": "assistant", "content": null, "tool_calls": calls}]);
        for (index, (_, output)) in outputs.iter().enumerate() {
            let message =
                json!({"role": "tool", "tool_call_id": format!("c{index}"), "content": output});
            messages.as_array_mut().expect("a list").push(message);
        }
        json!({ "messages": messages })
    };
    let weather = r#"{"temperature": 18, "sky": ["clear"]}"#;
    assert_eq!(
        text(&model, results(&[("other", "1"), ("get_weather", weather)])).await,
        "18 degrees in Oslo, clear."
    );
    assert_eq!(
        text(&model, results(&[("other", "fine")])).await,
        "Got fine."
    );
    assert_eq!(
        text(&model, results(&[("a", "x"), ("b", "y")])).await,
        "Got a: x; b: y."
    );
}

#[tokio::test]
async fn a_rule_that_the_request_forbids_is_passed_over() {
    let model = rules(
        "
- then: { tool_calls: [{ name: a, arguments: {} }, { name: b, arguments: {} }] }
- then: { tool_calls: [{ name: b, arguments: {} }] }
- then: { text: words }
",
    );
    let tools = json!([
        function("a", json!({})),
        function(
            "c",
            json!({"properties": {"n": {"type": "integer"}}, "required": ["n"]})
        ),
    ]);
    let with = |field: &str, value: Value| {
        let mut request = json!({ "messages": user("take 5"), "tools": tools });
        request[field] = value;
        request
    };
    let names = |turn: Turn| {
        turn.calls
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(ask(&model, with("tool_choice", json!("auto"))).await),
        ["a", "b"]
    );
    assert_eq!(
        names(ask(&model, with("parallel_tool_calls", json!(false))).await),
        ["a"]
    );
    assert_eq!(
        ask(&model, with("tool_choice", json!("none"))).await.text,
        "words"
    );
    let named = |name: &str| {
        with(
            "tool_choice",
            json!({"type": "function", "function": {"name": name}}),
        )
    };
    assert_eq!(names(ask(&model, named("b")).await), ["b"]);
    // No rule calls it: the call is made up from the schema and the message.
    assert_eq!(
        ask(&model, named("c")).await.calls,
        [("c".to_owned(), r#"{"n":5}"#.to_owned())]
    );
    let words = rules("- then: { text: words }");
    let required = with("tool_choice", json!("required"));
    assert_eq!(names(ask(&words, required).await), ["a"]);
}

#[tokio::test]
async fn json_is_made_for_the_schema_unless_a_rule_says_otherwise() {
    let model = rules(
        "
- when: { user: broken, response_format: json_schema }
  then: { text: 'not JSON' }
- when: { user: valid }
  then: { text: '{\"mine\": 1}' }
- then: { text: words }
",
    );
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "person", "schema": schema}});
    let ask_json = async |message: &str, format: &Value| {
        text(
            &model,
            json!({ "messages": user(message), "response_format": format }),
        )
        .await
    };
    assert_eq!(
        ask_json("Her name is Ann, she is 31.", &format).await,
        r#"{"name":"Ann","age":31}"#
    );
    assert_eq!(ask_json("broken", &format).await, "not JSON");
    assert_eq!(ask_json("valid", &format).await, r#"{"mine": 1}"#);
    let object = ask_json("hm", &json!({"type": "json_object"})).await;
    assert!(
        serde_json::from_str::<Value>(&object)
            .expect("JSON")
            .is_object()
    );
    assert_eq!(ask_json("hm", &json!({"type": "text"})).await, "words");
}

#[tokio::test]
async fn an_answer_keeps_to_its_limits() {
    let model = rules(
        "
- when: { user: call }
  then: { tool_calls: [{ name: look, arguments: { a: 'one two three four five' } }] }
- when: { user: filtered }
  then: { text: 'x', finish: content_filter }
- then: { text: 'one two three four five' }
",
    );
    let limited = |message: &str, field: &str, value: Value| {
        let mut request = json!({ "messages": user(message) });
        request[field] = value;
        request
    };
    for field in ["max_completion_tokens", "max_tokens"] {
        let turn = ask(&model, limited("x", field, json!(3))).await;
        assert_eq!(
            (turn.text.as_str(), turn.finish),
            ("one two three", Some(FinishReason::Length))
        );
        assert_eq!(turn.usage.expect("usage").completion, 3);
    }
    let whole = ask(&model, limited("x", "max_completion_tokens", json!(5))).await;
    assert_eq!(
        (whole.text.as_str(), whole.finish),
        ("one two three four five", Some(FinishReason::Stop))
    );
    let cut = ask(&model, limited("call", "max_completion_tokens", json!(4))).await;
    assert_eq!(cut.finish, Some(FinishReason::Length));
    assert!(
        serde_json::from_str::<Value>(&cut.calls[0].1).is_err(),
        "{:?}",
        cut.calls
    );
    for stop in [json!(" four"), json!(["never", " four", " five"])] {
        let turn = ask(&model, limited("x", "stop", stop)).await;
        assert_eq!(
            (turn.text.as_str(), turn.finish),
            ("one two three", Some(FinishReason::Stop))
        );
    }
    let filtered = ask(&model, limited("filtered", "n", json!(1))).await;
    assert_eq!(filtered.finish, Some(FinishReason::ContentFilter));
}

#[tokio::test]
async fn text_comes_in_tokens_and_usage_counts_them() {
    let model = rules(
        "
- when: { user: stated }
  then: { text: hello, usage: { prompt_tokens: 7, completion_tokens: 8, cached_tokens: 3, reasoning_tokens: 2 } }
- when: { user: think }
  then: { reasoning: 'Let me see.', text: done }
- when: { user: refuse }
  then: { refusal: 'I will not.' }
- then: { text: 'Grüße aus 東京 🦀🦀' }
",
    );
    let turn = ask(&model, json!({ "messages": user("Hello!") })).await;
    assert_eq!(turn.text, "Grüße aus 東京 🦀🦀");
    let usage = turn.usage.expect("usage");
    assert_eq!(usage.prompt, tokens::PER_PROMPT + tokens::PER_MESSAGE + 2);
    assert_eq!(
        usage.completion,
        tokens::count_text("scripted/t", "Grüße aus 東京 🦀🦀")
    );
    assert_eq!(usage.total, usage.prompt + usage.completion);
    assert!(turn.pieces > 4, "{}", turn.pieces);
    let stated = ask(&model, json!({ "messages": user("stated") })).await;
    let expected = Usage {
        prompt: 7,
        completion: 8,
        total: 15,
        cached: 3,
        reasoning: 2,
    };
    assert_eq!(stated.usage, Some(expected));
    let thought = ask(&model, json!({ "messages": user("think") })).await;
    assert_eq!(
        (thought.reasoning.as_str(), thought.text.as_str()),
        ("Let me see.", "done")
    );
    let refusal = ask(&model, json!({ "messages": user("refuse") })).await;
    assert_eq!(
        (refusal.refusal.as_str(), refusal.finish),
        ("I will not.", Some(FinishReason::Stop))
    );
}

#[tokio::test]
async fn tokens_come_no_faster_than_their_pace() {
    let model = rules("- then: { text: 'one two three', latency: 40ms, tokens_per_second: 50 }");
    let request = json!({ "model": "scripted/t", "messages": user("x"), "stream": true });
    // Before the model begins to count, however late this thread comes back to its answer.
    let start = std::time::Instant::now();
    let answer = model.send(Endpoint::Chat, Arc::new(request)).await;
    let mut body = answer.body;
    let mut arrivals = Vec::new();
    while let Some(Ok(chunk)) = body.next().await {
        if chunk.windows(9).any(|window| window == b"\"content\"") {
            arrivals.push(start.elapsed().as_millis());
        }
    }
    // The role, then three words, 20 ms apart.
    assert_eq!(arrivals.len(), 4);
    for (arrival, earliest) in arrivals.into_iter().zip([40, 40, 60, 80]) {
        assert!(
            arrival >= earliest,
            "{arrival} ms, not before {earliest} ms"
        );
    }
}

#[tokio::test]
async fn faults_happen_as_often_as_they_should_to_each_key() {
    let model = rules(
        r"
- when: { user: 'flaky (\w+)' }
  then:
    text: recovered
    fault: { http_error: { status: 429, retry_after: 1500ms }, times: 2, key: '{{user.1}}' }
- when: { user: once }
  then: { fault: { http_error: { status: 503, message: 'Out to lunch.' }, times: 1 } }
- when: { user: quota }
  then: { fault: { http_error: { status: 429, code: insufficient_quota } } }
- then: { text: fallen through }
",
    );
    let ask_text = async |message: &str| ask(&model, json!({ "messages": user(message) })).await;
    for key in ["a", "b"] {
        for _ in 0..2 {
            let error = ask_text(&format!("flaky {key}"))
                .await
                .error
                .expect("an error");
            let UpstreamError::RateLimited {
                retry_after,
                exhausted: false,
                ..
            } = error
            else {
                panic!("{error:?}")
            };
            assert_eq!(retry_after, Some(std::time::Duration::from_millis(1500)));
        }
        assert_eq!(ask_text(&format!("flaky {key}")).await.text, "recovered");
        assert_eq!(ask_text(&format!("flaky {key}")).await.text, "recovered");
    }
    let error = ask_text("once").await.error.expect("an error");
    assert_eq!(error.to_string(), "Out to lunch.");
    assert_eq!(ask_text("once").await.text, "fallen through");
    for _ in 0..3 {
        let error = ask_text("quota").await.error;
        assert!(
            matches!(
                error,
                Some(UpstreamError::RateLimited {
                    exhausted: true,
                    ..
                })
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn answers_break_off_where_they_should() {
    let model = rules(
        "
- when: { user: gone }
  then: { text: 'one two three', fault: { disconnect_after: 2 } }
- when: { user: garbage }
  then: { text: 'one two three', fault: { garbage_after: 1 } }
- when: { user: error }
  then: { text: 'one two three', fault: { error_after: 3 } }
",
    );
    let ask_text = async |message: &str| ask(&model, json!({ "messages": user(message) })).await;
    let gone = ask_text("gone").await;
    assert_eq!(
        (gone.text.as_str(), gone.error),
        ("one two", Some(UpstreamError::disconnected()))
    );
    let garbage = ask_text("garbage").await;
    assert_eq!(garbage.text, "one");
    assert!(
        matches!(garbage.error, Some(UpstreamError::Broken { .. })),
        "{:?}",
        garbage.error
    );
    let error = ask_text("error").await;
    assert_eq!((error.text.as_str(), error.finish), ("one two three", None));
    assert!(
        matches!(error.error, Some(UpstreamError::Unavailable { .. })),
        "{:?}",
        error.error
    );
}

#[tokio::test]
async fn long_prompts_do_not_fit() {
    let model = scripted(
        "
models:
  small: { context_window: 20, rules: [{ then: { text: fits } }] }
  t: { rules: [{ then: { text: fits, fault: { context_length: 20 } } }] }
",
    );
    assert_eq!(model.context_window("scripted/small"), Some(20));
    for name in ["scripted/small", "scripted/t"] {
        let request = |message: &str| json!({ "model": name, "messages": user(message) });
        assert_eq!(text(&model, request("short")).await, "fits");
        let error = ask(&model, request(&"long ".repeat(30)))
            .await
            .error
            .expect("an error");
        let UpstreamError::ContextLength { limit, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(limit, Some(20));
    }
}

#[tokio::test]
async fn a_document_says_what_the_stream_says() {
    let model = rules(
        "- then: { reasoning: hm, text: hello there, tool_calls: [{ name: f, arguments: { a: 1 } }] }",
    );
    let request = json!({ "model": "scripted/t", "messages": user("x") });
    let answer = model.send(Endpoint::Chat, Arc::new(request)).await;
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
    let body = crate::models::read_error_body(answer.body).await;
    let completion: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(completion["object"], "chat.completion");
    let choice = &completion["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "hello there");
    assert_eq!(choice["message"]["reasoning_content"], "hm");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(
        call["function"],
        json!({ "name": "f", "arguments": r#"{"a":1}"# })
    );
    assert_eq!(call["id"].as_str().map(str::len), Some("call_".len() + 24));
    let streamed = ask(&model, json!({ "messages": user("x") })).await;
    assert_eq!(
        completion["usage"]["completion_tokens"],
        streamed.usage.expect("usage").completion
    );
}

#[test]
fn a_wrong_script_is_told_what_is_wrong_and_where() {
    let rule = |rule: &str| refused(&format!("models:\n  ci:\n    rules:\n      - {rule}\n"));
    let cases = [
        (
            rule("{ name: a, when: { usr: x }, then: { text: x } }"),
            "models.ci.rules[0].when: unknown field `usr`",
        ),
        (
            rule("{ when: { turn: soon }, then: { text: x } }"),
            "models.ci.rules[0].when.turn: invalid value: string \"soon\", expected a number such as `2`, `2+` or `1-3`",
        ),
        (
            rule("{ then: { text: x, latency: 3 parsecs } }"),
            "models.ci.rules[0].then: ",
        ),
        (
            rule("{ name: a, when: { user: '(' }, then: { text: x } }"),
            "model `ci`: rule 1 (`a`): when.user: regex parse error",
        ),
        (
            rule("{ then: {} }"),
            "model `ci`: rule 1: then: gives no answer",
        ),
        (
            rule("{ then: { text: a, refusal: b } }"),
            "rule 1: then: give one of `text`, `refusal` and `generate_json`",
        ),
        (
            rule("{ then: { text: '{{user.city}}' } }"),
            "rule 1: then.text: `{{user.city}}`: `when.user` has no group `city`",
        ),
        (
            rule("{ then: { text: '{{usr}}' } }"),
            "then.text: `{{usr}}`: there is no value `usr`",
        ),
        (
            rule("{ then: { text: '{{user' } }"),
            "then.text: `{{user` is not closed by `}}`",
        ),
        (
            rule("{ then: { text: '{{user | upper}}' } }"),
            "there is no filter `upper`, only `json`, `quoted` and `quotes`",
        ),
        (
            rule("{ when: { user: '(?P<name>x)' }, then: { text: '{{file.name}}' } }"),
            "then.text: `{{file.name}}`: `when.file` has no group `name`",
        ),
        (
            rule("{ then: { tool_calls: [{ name: f, arguments: { a: '{{x}}' } }] } }"),
            "then.tool_calls[0].arguments: `{{x}}`",
        ),
        (
            rule("{ then: { text: x, fault: { times: 1 } } }"),
            "then.fault: give exactly one of",
        ),
        (
            rule("{ then: { text: x, fault: { http_error: { status: 200 } } } }"),
            "then.fault: http_error.status: 200 is not an error status",
        ),
        (
            rule("{ then: { fault: { disconnect_after: 1 } } }"),
            "then.fault: there is no answer to break off",
        ),
        (
            rule("{ then: { text: x, tokens_per_second: 0 } }"),
            "then.tokens_per_second: must be more than 0",
        ),
        (refused("models: []"), "models: invalid type"),
    ];
    for (message, expected) in cases {
        assert!(
            message.starts_with("ci.yaml: ") && message.contains(expected),
            "{message}\nlacks {expected}"
        );
    }
}

#[tokio::test]
async fn the_documentation_shows_scripts_that_work() {
    let text = include_str!("../../../docs/scripted-model.md");
    let blocks = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let scripts: Vec<Scripted> = blocks.map(scripted).collect();
    let [weather, counter, librarian, flaky] = scripts.as_slice() else {
        panic!("four scripts")
    };
    let asked = json!({ "model": "scripted/weather", "messages": user("Weather in Oslo?") });
    let call = ("get_weather".to_owned(), r#"{"city":"Oslo"}"#.to_owned());
    assert_eq!(ask(weather, asked).await.calls, [call]);
    let files = "Files available to code_interpreter:\n- /mnt/data/a.csv (also /mnt/data/file-1)";
    let asked = json!({
        "model": "scripted/counter",
        "messages": [{"role": "system", "content": files}, {"role": "user", "content": "Count"}],
        "tools": [function("code_interpreter", json!({}))],
    });
    let calls = ask(counter, asked).await.calls;
    assert!(
        calls[0].1.contains(r#"open(\"/mnt/data/a.csv\").read()"#),
        "{calls:?}"
    );
    let found = "【4:0†my returns.md】 page 2\nGoods may be returned.\n\n[Put it behind.]";
    let asked = json!({
        "model": "scripted/librarian",
        "messages": [
            {"role": "user", "content": "May goods be returned?"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function",
                "function": {"name": "file_search", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": found},
        ],
        "tools": [function("file_search", json!({}))],
    });
    assert_eq!(
        ask(librarian, asked).await.text,
        "See 【4:0†my returns.md】. It says: “Goods may be returned.”【4:0†my returns.md】"
    );
    let asked = json!({ "model": "scripted/flaky", "messages": user("break off") });
    assert_eq!(ask(flaky, asked).await.text, "This answer is");
}

/// The demonstration that needs no model server.
mod default_script {
    use super::*;

    fn weather() -> Value {
        function(
            "get_current_weather",
            json!({"type": "object", "properties": {"location": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}, "required": ["location"]}),
        )
    }

    async fn ask_default(request: Value) -> Turn {
        let mut request = request;
        request["model"] = json!("scripted/default");
        ask(&scripted("models: {}"), request).await
    }

    #[tokio::test]
    async fn it_says_what_it_is() {
        for message in ["Hello", "Tell me a joke", "What can you do?"] {
            let turn = ask_default(json!({ "messages": user(message) })).await;
            assert!(turn.text.contains("scripted model"), "{}", turn.text);
            assert!(turn.pieces > 10);
        }
    }

    #[tokio::test]
    async fn it_calls_what_the_message_speaks_of() {
        let time = function(
            "get_time",
            json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
        );
        let mail = json!({"type": "function", "function": {"name": "notify", "description": "Send an e-mail to someone", "parameters": {"type": "object", "properties": {"recipient": {"type": "string"}}, "required": ["recipient"]}}});
        let call = async |message: &str| {
            let tools = json!([weather(), time, mail]);
            let turn = ask_default(json!({ "messages": user(message), "tools": tools })).await;
            turn.calls
                .into_iter()
                .map(|(name, arguments)| format!("{name}{arguments}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            call("What's the weather in San Francisco?").await,
            [r#"get_current_weather{"location":"San Francisco"}"#]
        );
        assert_eq!(
            call("What is the weather in Paris and London in celsius?").await,
            [
                r#"get_current_weather{"location":"Paris","unit":"celsius"}"#,
                r#"get_current_weather{"location":"London","unit":"celsius"}"#
            ]
        );
        assert_eq!(
            call("Tell me the time and the weather in Tokyo").await,
            [
                r#"get_current_weather{"location":"Tokyo"}"#,
                r#"get_time{"city":"Tokyo"}"#
            ]
        );
        assert_eq!(
            call("Please send this to Ann").await,
            [r#"notify{"recipient":"Ann"}"#]
        );
        assert!(call("How are you today?").await.is_empty());
    }

    #[tokio::test]
    async fn it_tells_what_the_tool_returned() {
        let messages = json!([
            {"role": "user", "content": "Weather in Paris?"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_current_weather", "arguments": "{\"location\":\"Paris\"}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "18 degrees and sunny"}]);
        let turn = ask_default(json!({ "messages": messages, "tools": [weather()] })).await;
        assert!(turn.text.contains("18 degrees and sunny"), "{}", turn.text);
        assert!(turn.calls.is_empty());
    }

    #[tokio::test]
    async fn it_remembers_a_name_and_writes_json() {
        let messages = json!([{"role": "user", "content": "Hi, my name is Ada."}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "What's my name?"}]);
        let turn = ask_default(json!({ "messages": messages })).await;
        assert!(turn.text.contains("Ada"), "{}", turn.text);
        let format = json!({"type": "json_object"});
        let turn = ask_default(
            json!({ "messages": user("Hello, in JSON please"), "response_format": format }),
        )
        .await;
        assert!(
            serde_json::from_str::<Value>(&turn.text)
                .expect("JSON")
                .is_object()
        );
    }
}
