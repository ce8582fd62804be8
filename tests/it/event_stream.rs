//! Checks the rules that every event stream of a run keeps, after any change to the run.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::client::{Event, id};

/// The terminal statuses of runs.
pub const TERMINAL: [&str; 5] = ["completed", "incomplete", "failed", "cancelled", "expired"];

/// The objects that a stream has reported.
#[derive(Debug, Default)]
pub struct StreamedRun {
    /// The ended messages by id, each as in its last event.
    pub messages: BTreeMap<String, Value>,
    /// The ended steps by id, likewise.
    pub steps: BTreeMap<String, Value>,
    /// The run as in its last event.
    pub run: Value,
    /// Whether all events are of one attempt. A recovery repeats what its predecessor left open.
    is_one_attempt: bool,
    open_messages: BTreeMap<String, Vec<Value>>,
    open_steps: BTreeMap<String, Vec<Value>>,
}

/// Checks a run's stream from its first event to `done`:
/// - it starts with the run's creation, and its only terminal event is the last one;
/// - sequence numbers increase strictly, where the stream has them;
/// - every message and step is created once and ends once, with its other events in between;
/// - the deltas of a message or step add up to its final content.
pub fn check(events: &[Event]) -> StreamedRun {
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    let [first, second, .., last, done] = names.as_slice() else {
        panic!("too few events: {names:?}");
    };
    assert_eq!(
        [*first, *second, *done],
        ["thread.run.created", "thread.run.queued", "done"],
        "{names:?}"
    );
    let (_, run_events) = events.split_last().expect("there are at least four events");
    let ids = run_events.iter().filter_map(|event| event.id.parse().ok());
    let ids: Vec<i64> = ids.collect();
    assert!(
        ids.is_sorted_by(|a, b| a < b),
        "sequence numbers do not increase: {ids:?} {names:?}"
    );

    let attempts = ids.iter().map(|id| id >> 32);
    let mut streamed = StreamedRun {
        is_one_attempt: attempts.clone().min() == attempts.max(),
        ..StreamedRun::default()
    };
    for (n, event) in run_events.iter().enumerate() {
        let (object, change) = event.name.rsplit_once('.').expect("event names have a dot");
        match object {
            "thread.run" => {
                let is_terminal = TERMINAL.contains(&change);
                assert!(
                    !is_terminal || n + 1 == run_events.len(),
                    "terminal event before the last: {names:?}"
                );
                assert_eq!(n == 0, change == "created", "{names:?}");
                streamed.run = event.data.clone();
            }
            "thread.message" => streamed.message(change, &event.data),
            "thread.run.step" => streamed.step(change, &event.data),
            _ => panic!("unknown event {}", event.name),
        }
    }
    let is_paused = *last == "thread.run.requires_action";
    let status = streamed.run["status"].as_str().expect("a run has a status");
    assert!(
        is_paused || TERMINAL.contains(&status),
        "no terminal event: {names:?}"
    );
    assert!(
        streamed.open_messages.is_empty(),
        "never ended: {:?}",
        streamed.open_messages
    );
    assert!(
        is_paused || streamed.open_steps.is_empty(),
        "never ended: {:?}",
        streamed.open_steps
    );
    streamed
}

impl StreamedRun {
    fn message(&mut self, change: &str, data: &Value) {
        let id = id(data);
        let open = self.open_messages.get_mut(&id);
        match change {
            "created" => {
                assert!(
                    open.is_none() && !self.messages.contains_key(&id),
                    "{id} is created twice"
                );
                assert_eq!(data["status"], "in_progress");
                self.open_messages.insert(id, Vec::new());
            }
            "in_progress" => assert!(open.is_some(), "{id} changes before its creation"),
            "delta" => {
                let open = open.unwrap_or_else(|| panic!("a delta of {id} while it is not open"));
                merge(open, &data["delta"]["content"]);
            }
            "completed" | "incomplete" => {
                let content = self.open_messages.remove(&id);
                let mut content =
                    content.unwrap_or_else(|| panic!("{id} ends while it is not open"));
                content.iter_mut().for_each(remove_quotes);
                assert_eq!(data["status"], change);
                assert_eq!(data["content"], Value::Array(content), "deltas of {id}");
                self.messages.insert(id, data.clone());
            }
            _ => panic!("unknown event of a message: {change}"),
        }
    }

    fn check_calls(&self, id: &str, streamed_calls: Vec<Value>, step: &Value) {
        let Some(calls) = step["step_details"]["tool_calls"].as_array() else {
            return;
        };
        assert_eq!(calls.len(), streamed_calls.len(), "calls of {id}");
        for (call, mut streamed) in calls.iter().zip(streamed_calls) {
            // No event reports the outputs that the caller submits.
            if let Some(function) = streamed.get_mut("function") {
                function["output"] = call["function"]["output"].clone();
            }
            // Search results are reported when the step ends.
            if let Some(search) = streamed.get_mut("file_search") {
                assert_eq!(search["results"], Value::Array(Vec::new()));
                search["results"] = call["file_search"]["results"].clone();
            }
            if let Some(code) = streamed
                .get_mut("code_interpreter")
                .filter(|_| !self.is_one_attempt)
            {
                code["outputs"] = call["code_interpreter"]["outputs"].clone();
            }
            assert_eq!(*call, streamed, "deltas of a call of {id}");
        }
    }

    fn step(&mut self, change: &str, data: &Value) {
        let id = id(data);
        let open = self.open_steps.get_mut(&id);
        match change {
            "created" => {
                assert!(
                    open.is_none() && !self.steps.contains_key(&id),
                    "{id} is created twice"
                );
                assert_eq!(data["status"], "in_progress");
                self.open_steps.insert(id, Vec::new());
            }
            "in_progress" => assert!(open.is_some(), "{id} changes before its creation"),
            "delta" => {
                let open = open.unwrap_or_else(|| panic!("a delta of {id} while it is not open"));
                merge(open, &data["delta"]["step_details"]["tool_calls"]);
            }
            "completed" | "failed" | "cancelled" | "expired" => {
                let calls = self.open_steps.remove(&id);
                let calls = calls.unwrap_or_else(|| panic!("{id} ends while it is not open"));
                assert_eq!(data["status"], change);
                self.check_calls(&id, calls, data);
                self.steps.insert(id, data.clone());
            }
            _ => panic!("unknown event of a step: {change}"),
        }
    }
}

/// Removes the field of citations that only deltas have.
fn remove_quotes(part: &mut Value) {
    let annotations = part.pointer_mut("/text/annotations");
    let annotations = annotations.and_then(Value::as_array_mut);
    for annotation in annotations.into_iter().flatten() {
        let citation = annotation.get_mut("file_citation");
        if let Some(citation) = citation.and_then(Value::as_object_mut) {
            assert_eq!(citation.remove("quote"), Some(Value::from("")));
        }
    }
}

/// Merges deltas into a list as the official SDKs do.
fn merge(items: &mut Vec<Value>, deltas: &Value) {
    for delta in deltas.as_array().into_iter().flatten() {
        let index = delta["index"].as_u64().expect("delta items have an index");
        let index = usize::try_from(index).expect("indexes fit into a usize");
        assert!(index <= items.len(), "a delta skips an index: {delta}");
        if index == items.len() {
            items.push(Value::Object(Map::new()));
        }
        merge_object(&mut items[index], delta);
    }
}

fn merge_object(object: &mut Value, delta: &Value) {
    let object = object
        .as_object_mut()
        .expect("a delta does not change a type");
    for (key, more) in delta.as_object().expect("a delta is an object") {
        match (object.get_mut(key), more) {
            _ if key == "index" => {}
            (Some(Value::String(text)), Value::String(more)) if key != "type" => {
                text.push_str(more);
            }
            (Some(Value::Array(items)), Value::Array(_)) => merge(items, more),
            (None, Value::Array(_)) => {
                let mut items = Vec::new();
                merge(&mut items, more);
                object.insert(key.clone(), Value::Array(items));
            }
            (Some(inner @ Value::Object(_)), Value::Object(_)) => merge_object(inner, more),
            (None, Value::Object(_)) => {
                let mut inner = Value::Object(Map::new());
                merge_object(&mut inner, more);
                object.insert(key.clone(), inner);
            }
            _ => {
                object.insert(key.clone(), more.clone());
            }
        }
    }
}

/// The concatenated text of a message.
pub fn text(message: &Value) -> String {
    let parts = message["content"]
        .as_array()
        .expect("a message has content");
    let texts = parts
        .iter()
        .filter_map(|part| part["text"]["value"].as_str());
    texts.collect()
}
