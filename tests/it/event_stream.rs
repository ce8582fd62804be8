//! The rules that every run's stream keeps, whatever happened to the run.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::client::{Event, id};

/// The statuses that end a run.
pub const TERMINAL: [&str; 5] = ["completed", "incomplete", "failed", "cancelled", "expired"];

/// What a stream told.
#[derive(Debug, Default)]
pub struct Told {
    /// Every ended message, as its last event had it.
    pub messages: BTreeMap<String, Value>,
    /// Every ended step likewise.
    pub steps: BTreeMap<String, Value>,
    /// The run, as the last event had it.
    pub run: Value,
    /// Whether one worker did it all. Another does again what the first one left half done.
    one_attempt: bool,
    open_messages: BTreeMap<String, Vec<Value>>,
    open_steps: BTreeMap<String, Vec<Value>>,
}

/// Checks a run's stream from its beginning to `done`:
/// - it begins with the run's creation and ends with the only event that ends a stream;
/// - positions grow, where they are told;
/// - every message and step is created once, goes on in between, and ends once;
/// - the deltas of a message and of a step's calls add up to what they are at their end.
pub fn check(events: &[Event]) -> Told {
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    let [first, second, .., last, done] = names.as_slice() else {
        panic!("too short: {names:?}");
    };
    assert_eq!(
        [*first, *second, *done],
        ["thread.run.created", "thread.run.queued", "done"],
        "{names:?}"
    );
    let (_, run_events) = events.split_last().expect("it is not empty");
    let ids = run_events.iter().filter_map(|event| event.id.parse().ok());
    let ids: Vec<i64> = ids.collect();
    assert!(
        ids.is_sorted_by(|a, b| a < b),
        "positions grow: {ids:?} {names:?}"
    );

    let attempts = ids.iter().map(|id| id >> 32);
    let mut told = Told {
        one_attempt: attempts.clone().min() == attempts.max(),
        ..Told::default()
    };
    for (n, event) in run_events.iter().enumerate() {
        let (object, happened) = event.name.rsplit_once('.').expect("names have parts");
        match object {
            "thread.run" => {
                let ends = TERMINAL.contains(&happened);
                assert!(!ends || n + 1 == run_events.len(), "an end amid: {names:?}");
                assert_eq!(n == 0, happened == "created", "{names:?}");
                told.run = event.data.clone();
            }
            "thread.message" => told.message(happened, &event.data),
            "thread.run.step" => told.step(happened, &event.data),
            _ => panic!("unknown event {}", event.name),
        }
    }
    let pauses = *last == "thread.run.requires_action";
    let status = told.run["status"].as_str().expect("a run has a status");
    assert!(pauses || TERMINAL.contains(&status), "no end: {names:?}");
    assert!(
        told.open_messages.is_empty(),
        "left open: {:?}",
        told.open_messages
    );
    assert!(
        pauses || told.open_steps.is_empty(),
        "left open: {:?}",
        told.open_steps
    );
    told
}

impl Told {
    fn message(&mut self, happened: &str, data: &Value) {
        let id = id(data);
        let open = self.open_messages.get_mut(&id);
        match happened {
            "created" => {
                assert!(
                    open.is_none() && !self.messages.contains_key(&id),
                    "{id} again"
                );
                assert_eq!(data["status"], "in_progress");
                self.open_messages.insert(id, Vec::new());
            }
            "in_progress" => assert!(open.is_some(), "{id} goes on before it began"),
            "delta" => {
                let open = open.unwrap_or_else(|| panic!("a delta outside of {id}"));
                merge(open, &data["delta"]["content"]);
            }
            "completed" | "incomplete" => {
                let written = self.open_messages.remove(&id);
                let mut written = written.unwrap_or_else(|| panic!("{id} ends and was not open"));
                written.iter_mut().for_each(drop_quotes);
                assert_eq!(data["status"], happened);
                assert_eq!(data["content"], Value::Array(written), "deltas of {id}");
                self.messages.insert(id, data.clone());
            }
            _ => panic!("unknown event of a message: {happened}"),
        }
    }

    fn check_calls(&self, id: &str, written: Vec<Value>, step: &Value) {
        let Some(calls) = step["step_details"]["tool_calls"].as_array() else {
            return;
        };
        assert_eq!(calls.len(), written.len(), "calls of {id}");
        for (call, mut written) in calls.iter().zip(written) {
            // The caller's answer is no event.
            if let Some(function) = written.get_mut("function") {
                function["output"] = call["function"]["output"].clone();
            }
            // What a search finds is told at its end only.
            if let Some(search) = written.get_mut("file_search") {
                assert_eq!(search["results"], Value::Array(Vec::new()));
                search["results"] = call["file_search"]["results"].clone();
            }
            if let Some(code) = written
                .get_mut("code_interpreter")
                .filter(|_| !self.one_attempt)
            {
                code["outputs"] = call["code_interpreter"]["outputs"].clone();
            }
            assert_eq!(*call, written, "deltas of a call of {id}");
        }
    }

    fn step(&mut self, happened: &str, data: &Value) {
        let id = id(data);
        let open = self.open_steps.get_mut(&id);
        match happened {
            "created" => {
                assert!(
                    open.is_none() && !self.steps.contains_key(&id),
                    "{id} again"
                );
                assert_eq!(data["status"], "in_progress");
                self.open_steps.insert(id, Vec::new());
            }
            "in_progress" => assert!(open.is_some(), "{id} goes on and is not open"),
            "delta" => {
                let open = open.unwrap_or_else(|| panic!("a delta outside of {id}"));
                merge(open, &data["delta"]["step_details"]["tool_calls"]);
            }
            "completed" | "failed" | "cancelled" | "expired" => {
                let calls = self.open_steps.remove(&id);
                let calls = calls.unwrap_or_else(|| panic!("{id} ends and was not open"));
                assert_eq!(data["status"], happened);
                self.check_calls(&id, calls, data);
                self.steps.insert(id, data.clone());
            }
            _ => panic!("unknown event of a step: {happened}"),
        }
    }
}

/// Takes out of a message's part what only deltas have.
fn drop_quotes(part: &mut Value) {
    let annotations = part.pointer_mut("/text/annotations");
    let annotations = annotations.and_then(Value::as_array_mut);
    for annotation in annotations.into_iter().flatten() {
        let citation = annotation.get_mut("file_citation");
        if let Some(citation) = citation.and_then(Value::as_object_mut) {
            assert_eq!(citation.remove("quote"), Some(Value::from("")));
        }
    }
}

/// Adds deltas to what earlier ones made, as the official SDKs do.
fn merge(whole: &mut Vec<Value>, deltas: &Value) {
    for delta in deltas.as_array().into_iter().flatten() {
        let index = delta["index"]
            .as_u64()
            .expect("items of deltas have an index");
        let index = usize::try_from(index).expect("indexes are small");
        assert!(index <= whole.len(), "a delta skips an item: {delta}");
        if index == whole.len() {
            whole.push(Value::Object(Map::new()));
        }
        merge_object(&mut whole[index], delta);
    }
}

fn merge_object(whole: &mut Value, delta: &Value) {
    let whole = whole.as_object_mut().expect("objects stay objects");
    for (key, more) in delta.as_object().expect("a delta is an object") {
        match (whole.get_mut(key), more) {
            _ if key == "index" => {}
            (Some(Value::String(text)), Value::String(more)) if key != "type" => {
                text.push_str(more);
            }
            (Some(Value::Array(items)), Value::Array(_)) => merge(items, more),
            (None, Value::Array(_)) => {
                let mut items = Vec::new();
                merge(&mut items, more);
                whole.insert(key.clone(), Value::Array(items));
            }
            (Some(object @ Value::Object(_)), Value::Object(_)) => merge_object(object, more),
            (None, Value::Object(_)) => {
                let mut object = Value::Object(Map::new());
                merge_object(&mut object, more);
                whole.insert(key.clone(), object);
            }
            _ => {
                whole.insert(key.clone(), more.clone());
            }
        }
    }
}

/// All text of a message.
pub fn text(message: &Value) -> String {
    let parts = message["content"]
        .as_array()
        .expect("a message has content");
    let texts = parts
        .iter()
        .filter_map(|part| part["text"]["value"].as_str());
    texts.collect()
}
