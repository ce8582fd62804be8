//! Which rule answers, and what it says.

use super::*;

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
    let request = |messages: Value| json!({ "messages": messages });
    assert_eq!(
        text(&model, request(user("Weather in Oslo?"))).await,
        "It is sunny in Oslo."
    );
    let instructed =
        json!([{"role": "system", "content": "Speak Dutch."}, {"role": "user", "content": "x"}]);
    assert_eq!(text(&model, request(instructed)).await, "I speak Dutch.");
    let remembered = json!([{"role": "user", "content": "I am Ann"}, {"role": "assistant", "content": "ok"},
        {"role": "user", "content": [{"type": "text", "text": "my name?"}]}]);
    assert_eq!(text(&model, request(remembered)).await, "You are Ann.");
    let third = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "user", "content": "c"}]);
    assert_eq!(text(&model, request(third.clone())).await, "message 3");
    let second = request(json!([third[0], third[1]]));
    assert_eq!(text(&model, second).await, "second");
    let offered = json!({"messages": user("x"), "tools": [function("look_up", json!({}))]});
    assert_eq!(text(&model, offered).await, "I could look that up.");
}

#[tokio::test]
async fn no_fitting_rule_is_an_error_that_names_the_model_only() {
    let model = rules("- when: { user: never }\n  then: { text: x }");
    let turn = ask(&model, json!({ "messages": user("a secret") })).await;
    let message = "No rule of the scripted model `scripted/t` fits this request.";
    assert_eq!(turn.status(), Some(400));
    assert_eq!(turn.error()["message"], message);
    assert_eq!(turn.error()["code"], "no_rule");
    let unknown = json!({ "model": "scripted/nobody", "messages": user("x") });
    let turn = ask(&model, unknown).await;
    assert_eq!(turn.status(), Some(404));
    assert_eq!(turn.error()["code"], "model_not_found");
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
    assert_eq!(turn.finish(), "tool_calls");
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
            messages
                .as_array_mut()
                .expect("messages are a list")
                .push(message);
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
    let names = |turn: Answer| {
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
            .expect("the text is JSON")
            .is_object()
    );
    assert_eq!(ask_json("hm", &json!({"type": "text"})).await, "words");
}
