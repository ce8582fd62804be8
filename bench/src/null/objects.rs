//! API objects as JSON text, with every field of a real server.

use super::Call;
use super::Run;
use std::time::{SystemTime, UNIX_EPOCH};

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is set")
        .as_secs()
}

/// `text` as a JSON string with its quotes.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

fn nullable(id: Option<&str>) -> String {
    id.map_or("null".to_owned(), |id| format!("\"{id}\""))
}

pub(super) fn assistant(id: &str, model: &str, tools: &str) -> String {
    let now = now();
    format!(
        r#"{{"id":"{id}","object":"assistant","created_at":{now},"name":null,"description":null,"model":"{model}","instructions":null,"tools":{tools},"top_p":1.0,"temperature":1.0,"reasoning_effort":null,"tool_resources":{{}},"metadata":{{}},"response_format":"auto"}}"#
    )
}

pub(super) fn thread(id: &str) -> String {
    let now = now();
    format!(
        r#"{{"id":"{id}","object":"thread","created_at":{now},"metadata":{{}},"tool_resources":{{}}}}"#
    )
}

pub(super) fn message(thread: &str, id: &str, role: &str, text: &str, run: Option<&str>) -> String {
    let (now, run, text) = (now(), nullable(run), quoted(text));
    format!(
        r#"{{"id":"{id}","object":"thread.message","created_at":{now},"assistant_id":null,"thread_id":"{thread}","run_id":{run},"status":"completed","incomplete_details":null,"incomplete_at":null,"completed_at":{now},"role":"{role}","content":[{{"type":"text","text":{{"value":{text},"annotations":[]}}}}],"attachments":[],"metadata":{{}}}}"#
    )
}

/// A message in progress.
pub(super) fn empty_message(run: &Run, id: &str) -> String {
    let Run {
        id: run_id,
        thread,
        assistant_id,
        ..
    } = run;
    let now = now();
    format!(
        r#"{{"id":"{id}","object":"thread.message","created_at":{now},"assistant_id":"{assistant_id}","thread_id":"{thread}","run_id":"{run_id}","status":"in_progress","incomplete_details":null,"incomplete_at":null,"completed_at":null,"role":"assistant","content":[],"attachments":[],"metadata":{{}}}}"#
    )
}

pub(super) fn message_delta(id: &str, first: bool, text: &str) -> String {
    let text = quoted(text);
    let annotations = if first { r#","annotations":[]"# } else { "" };
    format!(
        r#"{{"id":"{id}","object":"thread.message.delta","delta":{{"content":[{{"index":0,"type":"text","text":{{"value":{text}{annotations}}}}}]}}}}"#
    )
}

pub(super) fn run(run: &Run) -> String {
    let now = now();
    let progress = run.progress.lock();
    let status = progress.status;
    let required_action = match &progress.call {
        Some(call) if status == "requires_action" => {
            let call = function_call(call, false);
            format!(
                r#"{{"type":"submit_tool_outputs","submit_tool_outputs":{{"tool_calls":[{call}]}}}}"#
            )
        }
        _ => "null".to_owned(),
    };
    let usage = if status == "completed" {
        r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#
    } else {
        "null"
    };
    let Run {
        id,
        thread,
        assistant_id,
        assistant,
        ..
    } = run;
    let (model, tools) = (&assistant.model, &assistant.tools);
    format!(
        r#"{{"id":"{id}","object":"thread.run","created_at":{now},"assistant_id":"{assistant_id}","thread_id":"{thread}","status":"{status}","started_at":null,"expires_at":null,"cancelled_at":null,"failed_at":null,"completed_at":null,"required_action":{required_action},"last_error":null,"model":"{model}","instructions":"","tools":{tools},"tool_resources":{{}},"metadata":{{}},"temperature":1.0,"top_p":1.0,"reasoning_effort":null,"max_completion_tokens":null,"max_prompt_tokens":null,"truncation_strategy":{{"type":"auto","last_messages":null}},"incomplete_details":null,"usage":{usage},"response_format":"auto","tool_choice":"auto","parallel_tool_calls":true}}"#
    )
}

fn function_call(call: &Call, with_output: bool) -> String {
    let Call {
        id,
        name,
        arguments,
        output,
    } = call;
    let arguments = quoted(arguments);
    let output = match output {
        _ if !with_output => String::new(),
        Some(text) => format!(r#","output":{}"#, quoted(text)),
        None => r#","output":null"#.to_owned(),
    };
    format!(
        r#"{{"id":"{id}","type":"function","function":{{"name":"{name}","arguments":{arguments}{output}}}}}"#
    )
}

pub(super) fn message_step(run: &Run, id: &str, status: &str, message: &str) -> String {
    let details =
        format!(r#"{{"type":"message_creation","message_creation":{{"message_id":"{message}"}}}}"#);
    step(run, id, "message_creation", status, &details)
}

/// A tool-call step; without a call it is in progress.
pub(super) fn tool_step(run: &Run, id: &str, status: &str, call: Option<&Call>) -> String {
    let call = call.map_or(String::new(), |call| function_call(call, true));
    let details = format!(r#"{{"type":"tool_calls","tool_calls":[{call}]}}"#);
    step(run, id, "tool_calls", status, &details)
}

fn step(run: &Run, id: &str, kind: &str, status: &str, details: &str) -> String {
    let Run {
        id: run_id,
        thread,
        assistant_id,
        ..
    } = run;
    let now = now();
    format!(
        r#"{{"id":"{id}","object":"thread.run.step","created_at":{now},"run_id":"{run_id}","assistant_id":"{assistant_id}","thread_id":"{thread}","type":"{kind}","status":"{status}","cancelled_at":null,"completed_at":null,"expires_at":null,"expired_at":null,"failed_at":null,"last_error":null,"step_details":{details},"usage":null,"metadata":{{}}}}"#
    )
}

pub(super) fn tool_delta(step: &str, call: &str) -> String {
    format!(
        r#"{{"id":"{step}","object":"thread.run.step.delta","delta":{{"step_details":{{"type":"tool_calls","tool_calls":[{call}]}}}}}}"#
    )
}

pub(super) fn list(objects: impl Iterator<Item = String>, has_more: bool) -> String {
    let mut body = String::from(r#"{"object":"list","data":["#);
    for (n, object) in objects.enumerate() {
        if n > 0 {
            body.push(',');
        }
        body.push_str(&object);
    }
    body.push_str(r#"],"first_id":null,"last_id":null,"has_more":"#);
    body.push_str(if has_more { "true}" } else { "false}" });
    body
}
