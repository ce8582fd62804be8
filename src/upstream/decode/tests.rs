//! What servers really send, and what becomes of it.

use super::*;

/// Events in short: `text`, `!refusal`, `~reasoning`, `0+id:name(arguments`, `0(arguments`,
/// `usage 1+2=3`, `<stop>`; an error is `error kind`.
async fn read(chunks: Vec<Bytes>) -> Vec<String> {
    let body = stream::iter(chunks.into_iter().map(Ok)).boxed();
    let events: Vec<_> = events(body).collect().await;
    events
        .into_iter()
        .map(|event| match event {
            Ok(TurnEvent::Text(text)) => text,
            Ok(TurnEvent::Refusal(text)) => format!("!{text}"),
            Ok(TurnEvent::Reasoning(text)) => format!("~{text}"),
            Ok(TurnEvent::ToolCall {
                index,
                name: Some(name),
                id,
                arguments,
            }) => {
                format!("{index}+{}:{name}({arguments}", id.unwrap_or_default())
            }
            Ok(TurnEvent::ToolCall {
                index,
                name: None,
                id: None,
                arguments,
            }) => format!("{index}({arguments}"),
            Ok(event @ TurnEvent::ToolCall { .. }) => panic!("an id without a name: {event:?}"),
            Ok(TurnEvent::Usage(usage)) => {
                let Usage {
                    prompt,
                    completion,
                    total,
                    cached,
                    reasoning,
                } = usage;
                format!("usage {prompt}+{completion}={total} cached {cached} reasoning {reasoning}")
            }
            Ok(TurnEvent::Finish(reason)) => format!("<{reason:?}>"),
            Err(error) => format!("error {}", error.kind()),
        })
        .collect()
}

/// A stream of these events, closed by `[DONE]`.
fn sse(events: &[&str]) -> Vec<Bytes> {
    let lines = events
        .iter()
        .chain(&["[DONE]"])
        .map(|data| format!("data: {data}\n\n").into());
    lines.collect()
}

/// One chunk with this delta.
fn delta(delta: &str) -> String {
    format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#)
}

fn finish(reason: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#)
}

async fn check(name: &str, events: &[&str], expected: &[&str]) {
    assert_eq!(read(sse(events)).await, expected, "{name}");
}

/// Deltas and how they are read, with nothing else in the answer.
async fn check_deltas(name: &str, deltas: &[&str], reason: &str, expected: &[&str]) {
    let chunks: Vec<String> = deltas
        .iter()
        .map(|text| delta(text))
        .chain([finish(reason)])
        .collect();
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    check(name, &chunks, expected).await;
}

#[tokio::test]
async fn a_usual_stream() {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,
        "prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":1}}}"#
        .replace('\n', "");
    let role = delta(r#"{"role":"assistant","content":"","refusal":null}"#);
    let (one, two) = (delta(r#"{"content":"Hel"}"#), delta(r#"{"content":"lo"}"#));
    let events = [role.as_str(), &one, &two, &finish("stop"), &usage];
    let expected = ["Hel", "lo", "usage 9+2=11 cached 4 reasoning 1", "<Stop>"];
    check("usual", &events, &expected).await;
}

#[tokio::test]
async fn tool_calls_in_every_shape() {
    let call = |index: &str, id: &str, name: &str, arguments: &str| {
        format!(
            r#"{{{index}{id}"type":"function","function":{{"name":"{name}","arguments":{arguments}}}}}"#
        )
    };
    let calls = |calls: &[String]| format!(r#"{{"tool_calls":[{}]}}"#, calls.join(","));
    let (i0, i1) = (r#""index":0,"#, r#""index":1,"#);
    let (a, b) = (r#""id":"a","#, r#""id":"b","#);
    check_deltas(
        "in pieces",
        &[
            &calls(&[call(i0, a, "f", r#""""#)]),
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}"#,
        ],
        "tool_calls",
        &["0+a:f(", r#"0({"x""#, "0(:1}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "whole, several in one chunk",
        &[&calls(&[
            call(i0, a, "f", r#""{}""#),
            call(i1, b, "g", r#""{}""#),
        ])],
        "tool_calls",
        &["0+a:f({}", "1+b:g({}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "two calls in alternating pieces",
        &[
            &calls(&[call(i0, a, "f", r#""1""#), call(i1, b, "g", r#""2""#)]),
            r#"{"tool_calls":[{"index":1,"function":{"arguments":"4"}},{"index":0,"function":{"arguments":"3"}}]}"#,
        ],
        "tool_calls",
        &["0+a:f(1", "1+b:g(2", "1(4", "0(3", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "without index",
        &[&calls(&[
            call("", a, "f", r#""{}""#),
            call("", b, "g", r#""{}""#),
        ])],
        "tool_calls",
        &["0+a:f({}", "1+b:g({}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "without index, pieces that repeat the id",
        &[
            &calls(&[call("", a, "f", r#""{""#)]),
            r#"{"tool_calls":[{"id":"a","function":{"arguments":"}"}}]}"#,
        ],
        "tool_calls",
        &["0+a:f({", "0(}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "the same index again with another id",
        &[
            &calls(&[call(i0, a, "f", r#""{}""#)]),
            &calls(&[call(i0, b, "g", r#""{}""#)]),
        ],
        "tool_calls",
        &["0+a:f({}", "1+b:g({}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "no ids, no indexes, whole calls",
        &[
            &calls(&[call("", "", "f", r#""{}""#)]),
            &calls(&[call("", "", "f", r#""{}""#)]),
        ],
        "tool_calls",
        &["0+:f({}", "1+:f({}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "empty ids, one index for all",
        &[&calls(&[
            call(i0, r#""id":"","#, "f", r#""{}""#),
            call(i0, r#""id":"","#, "g", r#""{}""#),
        ])],
        "tool_calls",
        &["0+:f({}", "1+:g({}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "one id for two calls",
        &[&calls(&[
            call(i0, a, "f", r#""{}""#),
            call(i1, a, "g", r#""{}""#),
        ])],
        "tool_calls",
        &["0+a:f({}", "1+:g({}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "names and ids repeated on every piece",
        &[
            &calls(&[call(i0, a, "f", r#""{""#)]),
            &calls(&[call(i0, a, "f", r#""}""#)]),
        ],
        "tool_calls",
        &["0+a:f({", "0(}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "the name after the id",
        &[
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"{"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"}"}}]}"#,
        ],
        "tool_calls",
        &["0+a:f({}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "arguments as an object, or none",
        &[&calls(&[
            call(i0, a, "f", r#"{"x":1}"#),
            call(i1, b, "g", "null"),
        ])],
        "tool_calls",
        &[r#"0+a:f({"x":1}"#, "1+b:g(", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "the older function_call",
        &[
            r#"{"function_call":{"name":"f","arguments":""}}"#,
            r#"{"function_call":{"arguments":"{}"}}"#,
        ],
        "function_call",
        &["0+:f(", "0({}", "<ToolCalls>"],
    )
    .await;
    check_deltas(
        "a call without a name",
        &[r#"{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"{}"}}]}"#],
        "tool_calls",
        &["error broken"],
    )
    .await;
}

#[tokio::test]
async fn reasons_to_finish() {
    let call = r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}"#;
    let text = r#"{"content":"x"}"#;
    let cases = [
        ("stop", text, "<Stop>"),
        ("eos", text, "<Stop>"),
        ("end_turn", text, "<Stop>"),
        ("length", text, "<Length>"),
        ("max_tokens", text, "<Length>"),
        ("MAX_TOKENS", text, "<Length>"),
        ("content_filter", text, "<ContentFilter>"),
        ("tool_calls", text, "<Stop>"),
        ("stop", call, "<ToolCalls>"),
        ("tool_use", call, "<ToolCalls>"),
        ("length", call, "<Length>"),
        ("error", text, "error unavailable"),
        ("abort", text, "error unavailable"),
    ];
    for (reason, said, expected) in cases {
        let events = read(sse(&[&delta(said), &finish(reason)])).await;
        assert_eq!(
            events.last().map(String::as_str),
            Some(expected),
            "{reason} after {said}"
        );
    }
}

#[tokio::test]
async fn content_in_every_shape() {
    let cases: &[(&str, &[&str])] = &[
        (r#"{"content":null}"#, &[]),
        (r#"{"content":""}"#, &[]),
        (
            r#"{"content":[{"type":"text","text":"a"},{"type":"output_text","text":"b"}]}"#,
            &["a", "b"],
        ),
        (
            r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]}"#,
            &["~hm"],
        ),
        (
            r#"{"content":[{"type":"refusal","refusal":"no"}]}"#,
            &["!no"],
        ),
        (r#"{"refusal":"no"}"#, &["!no"]),
        (r#"{"reasoning_content":"hm","content":null}"#, &["~hm"]),
        (r#"{"reasoning":"hm"}"#, &["~hm"]),
        (r#"{"reasoning_content":"hm","reasoning":"hm"}"#, &["~hm"]),
        (r#"{"reasoning":{"effort":"low"},"content":"a"}"#, &["a"]),
        (
            r#"{"tool_calls":null,"function_call":null,"content":"a"}"#,
            &["a"],
        ),
    ];
    for (said, expected) in cases {
        let expected: Vec<&str> = expected.iter().copied().chain(["<Stop>"]).collect();
        check_deltas(said, &[said], "stop", &expected).await;
    }
}

#[tokio::test]
async fn odd_but_harmless_events_are_let_pass() {
    let text = delta(r#"{"content":"a"}"#);
    let cases = [
        (
            "choices without index",
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
        ),
        ("no choices", r#"{"choices":[],"prompt_filter_results":[]}"#),
        ("null choices", r#"{"choices":null}"#),
        ("something else", r#"{"type":"ping"}"#),
        ("a null error", r#"{"error":null,"choices":[]}"#),
        ("a null usage", r#"{"usage":null,"choices":[]}"#),
        (
            "another choice",
            r#"{"choices":[{"index":1,"delta":{"content":"zzz"}}]}"#,
        ),
        ("a null delta", r#"{"choices":[{"index":0,"delta":null}]}"#),
    ];
    for (name, event) in cases {
        let read = read(sse(&[event, &text, &finish("stop")])).await;
        assert_eq!(
            read.last().map(String::as_str),
            Some("<Stop>"),
            "{name}: {read:?}"
        );
        assert!(!read.concat().contains("zzz"), "{name}: {read:?}");
        assert!(read.contains(&"a".to_owned()), "{name}: {read:?}");
    }
}

#[tokio::test]
async fn usage_may_come_anywhere() {
    let growing = |n: u32| {
        let used = format!(r#""usage":{{"prompt_tokens":5,"completion_tokens":{n}}}"#);
        format!(r#"{{"choices":[{{"delta":{{"content":"x"}}}}],{used}}}"#)
    };
    let events = [growing(1), growing(2), finish("stop")];
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    check(
        "on every chunk",
        &events,
        &["x", "x", "usage 5+2=7 cached 0 reasoning 0", "<Stop>"],
    )
    .await;
    let with_finish = r#"{"choices":[{"delta":{},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":5.0,"completion_tokens":1,"total_tokens":6,"prompt_cache_hit_tokens":3,
        "prompt_tokens_details":null}}"#
        .replace('\n', "");
    check(
        "with the finish",
        &[&with_finish],
        &["usage 5+1=6 cached 3 reasoning 0", "<Stop>"],
    )
    .await;
    check(
        "never",
        &[&delta(r#"{"content":"x"}"#), &finish("stop")],
        &["x", "<Stop>"],
    )
    .await;
}

#[tokio::test]
async fn framing_in_every_shape() {
    let text = delta(r#"{"content":"Grüße 🦀"}"#);
    let stop = finish("stop");
    let whole = format!("data: {text}\n\ndata: {stop}\n\ndata: [DONE]\n\n");
    let cases = [
        ("as it should be", whole.clone()),
        ("CRLF", whole.replace('\n', "\r\n")),
        ("no space", whole.replace("data: ", "data:")),
        (
            "comments and names",
            format!(": hello\n\nevent: chunk\nid: 7\nretry: 5\n{whole}"),
        ),
        ("a byte order mark", format!("\u{feff}{whole}")),
        ("two byte order marks", format!("\u{feff}\u{feff}\n{whole}")),
        ("blank lines first", format!("\n\n\r\n{whole}")),
        ("no DONE", format!("data: {text}\n\ndata: {stop}\n\n")),
        (
            "no DONE and no last line end",
            format!("data: {text}\n\ndata: {stop}"),
        ),
        (
            "no finish, only DONE",
            format!("data: {text}\n\ndata: [DONE]\n\n"),
        ),
        (
            "nothing after DONE counts",
            format!("{whole}data: {{\"error\": \"late\"}}\n\n"),
        ),
    ];
    for (name, stream) in cases {
        // Cut into every size, so that lines and characters are split everywhere.
        for size in [1, 2, 3, 7, 64, stream.len()] {
            let chunks = stream
                .as_bytes()
                .chunks(size)
                .map(Bytes::copy_from_slice)
                .collect();
            assert_eq!(
                read(chunks).await,
                ["Grüße 🦀", "<Stop>"],
                "{name}, {size} bytes a chunk"
            );
        }
    }
}

#[tokio::test]
async fn a_document_instead_of_a_stream() {
    let document = r#"
        {"object":"chat.completion","choices":[{"index":0,"finish_reason":"tool_calls","message":{
            "role":"assistant","content":"Let me see.","refusal":null,
            "tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}}],
         "usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#;
    let expected = [
        "Let me see.",
        "0+a:f({}",
        "usage 1+2=3 cached 0 reasoning 0",
        "<ToolCalls>",
    ];
    for size in [1, 50, document.len()] {
        let chunks = document
            .as_bytes()
            .chunks(size)
            .map(Bytes::copy_from_slice)
            .collect();
        assert_eq!(read(chunks).await, expected);
    }
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let text = format!("data: {}\n\n", delta(r#"{"content":"x"}"#));
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("nothing", vec![], &["error unavailable"]),
        ("only blank lines", b"\n\n".to_vec(), &["error unavailable"]),
        (
            "an end before the end",
            text.clone().into_bytes(),
            &["x", "error unavailable"],
        ),
        (
            "garbage in a line",
            b"data: {\"choices\": [\n\n".to_vec(),
            &["error broken"],
        ),
        (
            "no UTF-8",
            b"data: \xff\xfe\n\n".to_vec(),
            &["error broken"],
        ),
        (
            "a web page",
            b"<html>hello</html>".to_vec(),
            &["error unavailable"],
        ),
        (
            "half a document",
            b"{\"choices\": [".to_vec(),
            &["error broken"],
        ),
        ("an empty document", b"{}".to_vec(), &["error unavailable"]),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(read(vec![bytes.into()]).await, expected, "{name}");
    }
}

#[tokio::test]
async fn errors_inside_a_stream_keep_their_meaning() {
    let cases = [
        (
            r#"{"error":{"message":"slow down","type":"rate_limit_error","code":429}}"#,
            "rate_limited",
        ),
        (
            r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#,
            "rate_limited",
        ),
        (
            r#"{"error":{"message":"This model's maximum context length is 4096 tokens.","code":400}}"#,
            "context_length",
        ),
        (
            r#"{"error":{"message":"m","type":"invalid_request_error"}}"#,
            "invalid_request",
        ),
        (
            r#"{"error":{"message":"overloaded","type":"overloaded_error"}}"#,
            "unavailable",
        ),
        (r#"{"error":{"message":"m","code":502}}"#, "unavailable"),
        (r#"{"error":"it broke"}"#, "unavailable"),
        (
            r#"{"object":"error","message":"bad","type":"BadRequestError","code":400}"#,
            "invalid_request",
        ),
        (
            r#"{"error":{"message":"key abc123 is wrong","code":401}}"#,
            "auth",
        ),
    ];
    for (event, expected) in cases {
        let read = read(sse(&[&delta(r#"{"content":"x"}"#), event])).await;
        assert_eq!(read, ["x", &format!("error {expected}")], "{event}");
    }
}

#[tokio::test]
async fn a_lost_connection_is_told_as_such() {
    let chunk = Bytes::from(format!("data: {}\n\n", delta(r#"{"content":"x"}"#)));
    let lost = UpstreamError::disconnected();
    let body = stream::iter([Ok(chunk), Err(lost.clone())]).boxed();
    let events: Vec<_> = events(body).collect().await;
    assert_eq!(events, [Ok(TurnEvent::Text("x".into())), Err(lost)]);
}
