use serde_json::json;

use super::*;
use crate::domain::message::{Content, MessageStatus};
use crate::domain::run::RunStatus;
use crate::domain::run_step::{StepDetails, StepStatus};
use crate::domain::tool::ToolCallBody;

fn read(kind: Kind, object: Value) -> (Result<Item, String>, Vec<String>) {
    let project = ProjectId::generate();
    let mut reader = Reader {
        project: &project,
        now: at(2_000_000_000),
        remarks: Vec::new(),
    };
    let Value::Object(fields) = object else {
        panic!("tests give objects");
    };
    let item = reader.read(kind, fields);
    (item, reader.remarks)
}

fn at(seconds: i64) -> Timestamp {
    chrono::DateTime::from_timestamp(seconds, 0).expect("in range")
}

fn hosted_run(status: &str) -> Value {
    json!({
        "id": "run_1", "object": "thread.run", "created_at": 1_699_017_615, "status": status,
        "assistant_id": "asst_1", "thread_id": "thread_1", "started_at": 1_699_017_616,
        "expires_at": null, "cancelled_at": null, "failed_at": null,
        "completed_at": 1_699_017_619, "required_action": null, "last_error": null,
        "model": "gpt-4o", "instructions": null, "tools": [{"type": "code_interpreter"}],
        "tool_resources": {}, "metadata": {}, "temperature": 1.0, "top_p": 0.5,
        "reasoning_effort": null, "max_completion_tokens": null, "max_prompt_tokens": 1000,
        "truncation_strategy": {"type": "auto", "last_messages": null},
        "incomplete_details": null, "response_format": "auto", "tool_choice": "auto",
        "parallel_tool_calls": true,
        "usage": {"prompt_tokens": 123, "completion_tokens": 456, "total_tokens": 579},
    })
}

#[test]
fn a_run_keeps_its_settings_dates_and_tokens() {
    let (item, remarks) = read(Kind::Run, hosted_run("completed"));
    let Ok(Item::Run(run)) = item else {
        panic!("a run: {item:?}");
    };
    assert!(remarks.is_empty(), "{remarks:?}");
    assert_eq!(run.state.status, RunStatus::Completed);
    assert_eq!(run.created_at, at(1_699_017_615));
    assert_eq!(run.state.ended_at, Some(at(1_699_017_619)));
    assert_eq!(run.config.model, "gpt-4o");
    // The default is what models do by themselves.
    assert_eq!(
        (run.config.temperature, run.config.top_p),
        (None, Some(0.5))
    );
    assert_eq!(run.config.max_prompt_tokens, Some(1000));
    let usage = run.state.outcome.usage.expect("it is told");
    assert_eq!((usage.prompt, usage.completion), (123, 456));
}

#[test]
fn tools_that_nobody_has_here_are_left_out() {
    let mut object = hosted_run("completed");
    object["tools"] = json!([{"type": "bing_grounding"}, {"type": "code_interpreter"}]);
    object["tool_choice"] = json!({"type": "bing_grounding"});
    let (item, remarks) = read(Kind::Run, object);
    let Ok(Item::Run(run)) = item else {
        panic!("a run: {item:?}");
    };
    assert_eq!(
        run.config.tools,
        [crate::domain::tool::Tool::CodeInterpreter]
    );
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].contains("bing_grounding"), "{remarks:?}");
}

#[test]
fn a_run_that_was_not_over_is_over_and_it_is_said_why() {
    for (was, is) in [
        ("queued", RunStatus::Expired),
        ("in_progress", RunStatus::Expired),
        ("requires_action", RunStatus::Expired),
        ("cancelling", RunStatus::Cancelled),
    ] {
        let mut object = hosted_run(was);
        object["completed_at"] = Value::Null;
        object["expires_at"] = json!(1_699_018_215);
        let (item, remarks) = read(Kind::Run, object);
        let Ok(Item::Run(run)) = item else {
            panic!("a run: {item:?}");
        };
        assert_eq!(run.state.status, is, "{was}");
        assert_eq!(run.state.ended_at, Some(at(1_699_018_215)));
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert!(
            remarks[0].contains(was) && remarks[0].contains(is.as_str()),
            "{remarks:?}"
        );
    }
}

#[test]
fn a_message_without_a_status_is_whole_and_odd_parts_are_left_out() {
    let (item, remarks) = read(
        Kind::Message,
        json!({
            "id": "msg_1", "created_at": 1_699_017_614.5, "thread_id": "thread_1",
            "role": "assistant", "assistant_id": null, "run_id": "run_1",
            "content": [
                {"type": "text", "text": {"value": "A\u{0}B", "annotations": [
                    {"type": "file_path", "text": "sandbox:/mnt/data/a", "start_index": 0,
                     "end_index": 1, "file_path": {"file_id": "file-1"}},
                    {"type": "file_citation", "text": "x", "start_index": 0, "end_index": 1,
                     "file_citation": {"quote": "no file"}},
                ]}},
                {"type": "hologram", "hologram": {}},
            ],
            "attachments": [{"file_id": "assistant-1", "tools": [{"type": "file_search"}]}],
            "metadata": null,
        }),
    );
    let Ok(Item::Message(message)) = item else {
        panic!("a message: {item:?}");
    };
    assert_eq!(message.status, MessageStatus::Completed);
    assert_eq!(message.ended_at, Some(at(1_699_017_614)));
    assert_eq!(message.attachments.len(), 1);
    let [Content::Text { value, annotations }] = &*message.content else {
        panic!("one text: {message:?}");
    };
    assert_eq!((&**value, annotations.len()), ("AB", 1));
    assert_eq!(remarks.len(), 2, "{remarks:?}");
}

#[test]
fn steps_keep_calls_and_what_came_of_them() {
    let (item, _) = read(
        Kind::Step,
        json!({
            "id": "step_1", "run_id": "run_1", "thread_id": "thread_1", "assistant_id": "asst_1",
            "created_at": 10, "status": "in_progress", "type": "tool_calls",
            "step_details": {"type": "tool_calls", "tool_calls": [
                {"id": "call_1", "type": "function",
                 "function": {"name": "f", "arguments": "{}", "output": "1"}},
                {"id": "call_2", "type": "code_interpreter", "code_interpreter": {
                    "input": "1", "outputs": [{"type": "logs", "logs": "1"},
                                              {"type": "image", "image": {"file_id": "file-1"}}]}},
                {"id": "call_3", "type": "file_search", "file_search": {
                    "results": [{"file_id": "file-2", "file_name": "a", "score": 0.5}]}},
            ]},
        }),
    );
    let Ok(Item::Step(step)) = item else {
        panic!("a step: {item:?}");
    };
    assert_eq!(step.status, StepStatus::Expired);
    let StepDetails::ToolCalls { calls } = &step.details else {
        panic!("calls: {step:?}");
    };
    assert!(calls.iter().all(crate::domain::tool::ToolCall::is_answered));
    let ToolCallBody::FileSearch(search) = &calls[2].body else {
        panic!("a search: {calls:?}");
    };
    assert_eq!(search.results.as_ref().map(Vec::len), Some(1));
}

#[test]
fn a_file_that_was_indexed_elsewhere_waits_for_its_contents() {
    let (item, _) = read(
        Kind::StoreFile,
        json!({
            "id": "file-1", "vector_store_id": "vs_1", "created_at": 10, "status": "completed",
            "usage_bytes": 100, "last_error": null, "chunking_strategy": {"type": "other"},
            "attributes": {"year": 2024},
        }),
    );
    let Ok(Item::StoreFile(file, None)) = item else {
        panic!("a file: {item:?}");
    };
    assert_eq!(file.status, FileStatus::Failed);
    assert_eq!(file.last_error, Some(IndexError::without_contents()));
    assert_eq!(file.chunking, Chunking::AUTO);
    assert_eq!(file.attributes.len(), 1);
}

#[test]
fn what_is_missing_is_named() {
    let problem = |kind, object| read(kind, object).0.expect_err("it cannot be read");
    let file = json!({"id": "file-1", "created_at": 1, "filename": "a", "purpose": "assistants"});
    assert!(problem(Kind::File, file).contains("'bytes'"));
    assert!(problem(Kind::Thread, json!({"id": "thread_1"})).contains("'created_at'"));
    let wrong = json!({"id": "conv_1", "created_at": 1});
    assert!(problem(Kind::Thread, wrong).contains("begins with 'thread'"));
}
