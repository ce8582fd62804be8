//! What servers send in practice, and the events that are decoded from it.

use async_openai::types::chat::{ChatCompletionTool, ChatCompletionTools, FunctionObject};

use futures::stream;

use super::*;
use crate::models::request::ChatRequest;

const LIMITS: Limits = Limits {
    line: 1 << 20,
    answer: 1 << 21,
};

fn names() -> CallNames {
    let tool = |name: &str| {
        let function = FunctionObject {
            name: name.to_owned(),
            ..FunctionObject::default()
        };
        ChatCompletionTools::Function(ChatCompletionTool { function })
    };
    CallNames::of(&ChatRequest {
        tools: vec![tool("f"), tool("g")],
        aliases: vec!["python"],
        ..ChatRequest::default()
    })
}

/// Decodes a body and writes its events in a short form: `text`, `!refusal`, `~reasoning`, `0+id:name(arguments`, `0(arguments`,
/// `usage 1+2=3`, `<stop>`; an error is `error kind`.
async fn read(chunks: Vec<Bytes>) -> Vec<String> {
    let body = stream::iter(chunks.into_iter().map(Ok)).boxed();
    let events: Vec<_> = events(body, names(), LIMITS).collect().await;
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

fn sse(events: &[&str]) -> Vec<Bytes> {
    let lines = events
        .iter()
        .chain(&["[DONE]"])
        .map(|data| format!("data: {data}\n\n").into());
    lines.collect()
}

fn delta(delta: &str) -> String {
    format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#)
}

fn finish(reason: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#)
}

async fn check(name: &str, events: &[&str], expected: &[&str]) {
    assert_eq!(read(sse(events)).await, expected, "{name}");
}

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
    for (reason, content, expected) in cases {
        let events = read(sse(&[&delta(content), &finish(reason)])).await;
        assert_eq!(
            events.last().map(String::as_str),
            Some(expected),
            "{reason} after {content}"
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
    for (content, expected) in cases {
        let expected: Vec<&str> = expected.iter().copied().chain(["<Stop>"]).collect();
        check_deltas(content, &[content], "stop", &expected).await;
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
        // Chunks of every size split lines and characters everywhere.
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
            "no text at all",
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
async fn a_lost_connection_is_reported_as_such() {
    let chunk = Bytes::from(format!("data: {}\n\n", delta(r#"{"content":"x"}"#)));
    let lost = UpstreamError::disconnected();
    let body = stream::iter([Ok(chunk), Err(lost.clone())]).boxed();
    let events: Vec<_> = events(body, names(), LIMITS).collect().await;
    assert_eq!(events, [Ok(TurnEvent::Text("x".into())), Err(lost)]);
}

#[tokio::test]
async fn calls_are_understood_by_the_names_that_models_were_trained_with() {
    let call = |name: &str, arguments: &str| {
        let function = serde_json::json!({"name": name, "arguments": arguments});
        serde_json::json!({"tool_calls": [{"index": 0, "id": "a", "function": function}]})
            .to_string()
    };
    let more = |arguments: &str| {
        let function = serde_json::json!({"arguments": arguments});
        serde_json::json!({"tool_calls": [{"index": 0, "function": function}]}).to_string()
    };
    let check = async |name: &str, deltas: &[String], expected: &[&str]| {
        let deltas: Vec<&str> = deltas.iter().map(String::as_str).collect();
        check_deltas(name, &deltas, "tool_calls", expected).await;
    };
    let prefixed = [call("functions.f", "{"), more("}")];
    let expected = ["0+a:f({", "0(}", "<ToolCalls>"];
    check("a prefix", &prefixed, &expected).await;
    let alias = [call("functions.python", "1")];
    check("an alias", &alias, &["0+a:python(1", "<ToolCalls>"]).await;
    let unknown = [call("functions.h", "{}")];
    check(
        "not offered",
        &unknown,
        &["0+a:functions.h({}", "<ToolCalls>"],
    )
    .await;

    let bundle = r#"{"tool_uses": [
        {"recipient_name": "functions.f", "parameters": {"x":  1.50}},
        {"recipient_name": "g", "parameters": "{\"y\": 2}"},
        {"recipient_name": "functions.h"}]}"#;
    let expected = [
        r#"0+:f({"x":  1.50}"#,
        r#"1+:g({"y": 2}"#,
        "2+:functions.h({}",
        "<ToolCalls>",
    ];
    let name = "multi_tool_use.parallel";
    check("a bundle", &[call(name, bundle)], &expected).await;
    let mut pieces = vec![call(name, "")];
    pieces.extend(bundle.split_inclusive(' ').map(more));
    check("a bundle in pieces", &pieces, &expected).await;
    let odd = [call(name, "{\"tool_uses\": [{}]}")];
    let expected = [
        r#"0+a:multi_tool_use.parallel({"tool_uses": [{}]}"#,
        "<ToolCalls>",
    ];
    check("no bundle", &odd, &expected).await;
}

#[tokio::test]
async fn a_name_may_come_after_the_next_call_has_begun() {
    check_deltas(
        "the name of the first call last",
        &[
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"{"}}]}"#,
            r#"{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"}"}}]}"#,
            r#"{"tool_calls":[{"index":1,"function":{"arguments":" "}}]}"#,
            r#"{"tool_calls":[{"index":2,"id":"","function":{"name":"","arguments":""}}]}"#,
        ],
        "tool_calls",
        &["0+b:g({}", "1+a:f({}", "0( ", "<ToolCalls>"],
    )
    .await;
}

#[tokio::test]
async fn characters_that_cannot_be_stored_become_replacement_characters() {
    let cases: &[(&str, &[&str])] = &[
        (r#"{"content":"a\u0000b\ud83dc"}"#, &["a\u{fffd}b\u{fffd}c"]),
        (r#"{"refusal":"\u0000"}"#, &["!\u{fffd}"]),
        (r#"{"reasoning":"\ude00"}"#, &["~\u{fffd}"]),
        (
            r#"{"content":[{"type":"text","text":"\ud83d"}]}"#,
            &["\u{fffd}"],
        ),
        (
            r#"{"tool_calls":[{"id":"\u0000","function":{"name":"f\ud83d","arguments":"\u0000"}}]}"#,
            &["0+\u{fffd}:f\u{fffd}(\u{fffd}"],
        ),
        (
            r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":{"\ud83d":["\u0000"]}}}]}"#,
            &["0+a:f({\"\u{fffd}\":[\"\u{fffd}\"]}"],
        ),
        // Escaped twice, they are text of the arguments.
        (
            r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"\"\\ud83d\\u0000\""}}]}"#,
            &[r#"0+a:f("\ud83d\u0000""#],
        ),
    ];
    for (content, expected) in cases {
        let read = read(sse(&[&delta(content), &finish("stop")])).await;
        assert_eq!(read[..expected.len()], **expected, "{content}");
    }
    let bytes = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\xffb\0\"}}]}\n\ndata: [DONE]\n\n";
    assert_eq!(
        read(vec![bytes[..].into()]).await,
        ["a\u{fffd}b\u{fffd}", "<Stop>"]
    );
}

#[tokio::test]
async fn a_surrogate_pair_in_two_deltas_is_one_character() {
    check_deltas(
        "text",
        &[
            r#"{"content":"a\ud83d"}"#,
            r#"{"content":"","reasoning":"hm"}"#,
            r#"{"content":"\ude00b\ud83d"}"#,
            r#"{"content":"c\ud83d"}"#,
        ],
        "stop",
        &["a", "~hm", "😀b", "\u{fffd}c", "\u{fffd}", "<Stop>"],
    )
    .await;
    check_deltas(
        "text that a refusal or a call ends",
        &[
            r#"{"content":"a\ud83d"}"#,
            r#"{"refusal":"\ude00\ud83d"}"#,
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"\ud83d"}}]}"#,
            r#"{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"\ude00"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"\ude00\ud83d"}}]}"#,
        ],
        "stop",
        &[
            "a",
            "\u{fffd}",
            "!\u{fffd}",
            "!\u{fffd}",
            "0+a:f(",
            "1+b:g(\u{fffd}",
            "0(😀",
            "0(\u{fffd}",
            "<ToolCalls>",
        ],
    )
    .await;
}

#[tokio::test]
async fn lines_and_answers_are_bounded_by_settings() {
    let message = async |chunks: Vec<Bytes>| {
        let body = stream::iter(chunks.into_iter().map(Ok)).boxed();
        let events: Vec<_> = events(body, names(), LIMITS).collect().await;
        let error = events
            .into_iter()
            .find_map(Result::err)
            .expect("one event is an error");
        assert_eq!(error.kind(), "broken");
        error.message()
    };
    let line = vec![
        Bytes::from_static(b"data: x"),
        vec![b'x'; LIMITS.line].into(),
    ];
    let content = message(line).await;
    assert!(
        content.contains("ASSISTD_MAX_UPSTREAM_LINE_BYTES"),
        "{content}"
    );
    let comments = vec![Bytes::from_static(b": wait\n"); LIMITS.answer / 7 + 1];
    let document = vec![Bytes::from_static(b"{      "); LIMITS.answer / 7 + 1];
    let blank = vec![Bytes::from_static(b"       "); LIMITS.answer / 7 + 1];
    for answer in [comments, document, blank] {
        let content = message(answer).await;
        assert!(
            content.contains("ASSISTD_MAX_UPSTREAM_ANSWER_BYTES"),
            "{content}"
        );
    }
}

/// Parsing the arguments again with each piece would read 80 gigabytes.
#[tokio::test]
async fn arguments_in_many_pieces_are_read_once() {
    let mut decoder = Decoder::new(names());
    let mut out = Vec::new();
    let piece = |arguments: &str| {
        let function = serde_json::json!({"name": "f", "arguments": arguments});
        let call = serde_json::json!({"index": 0, "function": function});
        serde_json::json!({"choices": [{"delta": {"tool_calls": [call]}}]}).to_string()
    };
    // Some servers repeat the name in each piece.
    let (first, more) = (piece("[\""), piece(&"x".repeat(64)));
    decoder
        .decode(&first, &mut out)
        .expect("the chunk is valid");
    for _ in 0..50_000 {
        decoder.decode(&more, &mut out).expect("the chunk is valid");
    }
    decoder
        .decode(&piece("\"]"), &mut out)
        .expect("the chunk is valid");
    decoder
        .decode(&piece("{}"), &mut out)
        .expect("the chunk is valid");
    assert_eq!(out.len(), 50_003);
    let last = out.last().expect("there are some");
    assert!(
        matches!(last, TurnEvent::ToolCall { index: 1, .. }),
        "{last:?}"
    );
}
