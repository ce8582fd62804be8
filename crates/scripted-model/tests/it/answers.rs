//! How answers are sent: token by token, within the limits of the request.

use super::*;

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
            (turn.text.as_str(), turn.finish()),
            ("one two three", "length")
        );
        assert_eq!(turn.usage["completion_tokens"], 3);
    }
    let whole = ask(&model, limited("x", "max_completion_tokens", json!(5))).await;
    assert_eq!(
        (whole.text.as_str(), whole.finish()),
        ("one two three four five", "stop")
    );
    let cut = ask(&model, limited("call", "max_completion_tokens", json!(4))).await;
    assert_eq!(cut.finish(), "length");
    assert!(
        serde_json::from_str::<Value>(&cut.calls[0].1).is_err(),
        "{:?}",
        cut.calls
    );
    for stop in [json!(" four"), json!(["never", " four", " five"])] {
        let turn = ask(&model, limited("x", "stop", stop)).await;
        assert_eq!(
            (turn.text.as_str(), turn.finish()),
            ("one two three", "stop")
        );
    }
    let filtered = ask(&model, limited("filtered", "n", json!(1))).await;
    assert_eq!(filtered.finish(), "content_filter");
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
    assert_eq!(turn.usage["prompt_tokens"], 1);
    assert_eq!(turn.usage["completion_tokens"], 11);
    assert_eq!(turn.usage["total_tokens"], 12);
    assert!(turn.text_deltas > 4, "{}", turn.text_deltas);
    let stated = ask(&model, json!({ "messages": user("stated") })).await;
    for (field, expected) in [
        ("/prompt_tokens", 7),
        ("/completion_tokens", 8),
        ("/total_tokens", 15),
        ("/prompt_tokens_details/cached_tokens", 3),
        ("/completion_tokens_details/reasoning_tokens", 2),
    ] {
        assert_eq!(
            stated.usage.pointer(field),
            Some(&json!(expected)),
            "{field}"
        );
    }
    let thought = ask(&model, json!({ "messages": user("think") })).await;
    assert_eq!(
        (thought.reasoning.as_str(), thought.text.as_str()),
        ("Let me see.", "done")
    );
    let refusal = ask(&model, json!({ "messages": user("refuse") })).await;
    assert_eq!(
        (refusal.refusal.as_str(), refusal.finish()),
        ("I will not.", "stop")
    );
}

#[tokio::test]
async fn tokens_come_no_faster_than_their_pace() {
    let model = rules("- then: { text: 'one two three', latency: 40ms, tokens_per_second: 50 }");
    let request = json!({ "model": "scripted/t", "messages": user("x"), "stream": true });
    // Before the model begins to count, however late this thread comes back to its answer.
    let start = std::time::Instant::now();
    let response = send(&model, &request);
    let mut body = response.body;
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
async fn a_document_says_what_the_stream_says() {
    let model = rules(
        "- then: { reasoning: hm, text: hello there, tool_calls: [{ name: f, arguments: { a: 1 } }] }",
    );
    let request = json!({ "model": "scripted/t", "messages": user("x") });
    let response = send(&model, &request);
    assert_eq!(response.content_type, "application/json");
    let body = read(response).await.expect("the document is complete");
    let completion: Value = serde_json::from_str(&body).expect("the text is JSON");
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
        streamed.usage["completion_tokens"]
    );
}
