//! The rules that every run's stream keeps, whatever happened to the run.

use std::collections::BTreeMap;

use serde_json::Value;

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
    open_messages: BTreeMap<String, String>,
    open_steps: BTreeMap<String, Value>,
}

/// Checks a run's stream from its beginning to `done`:
/// - it begins with the run's creation and ends with the only event that ends a stream;
/// - positions grow, where they are told;
/// - every message and step is created once, goes on in between, and ends once;
/// - a message's deltas add up to its text.
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

    let mut told = Told::default();
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
                self.open_messages.insert(id, String::new());
            }
            "in_progress" => assert!(open.is_some(), "{id} goes on before it began"),
            "delta" => {
                let open = open.unwrap_or_else(|| panic!("a delta outside of {id}"));
                for part in data["delta"]["content"].as_array().into_iter().flatten() {
                    open.push_str(part["text"]["value"].as_str().expect("tests stream text"));
                }
            }
            "completed" | "incomplete" => {
                let written = self.open_messages.remove(&id);
                let written = written.unwrap_or_else(|| panic!("{id} ends and was not open"));
                assert_eq!(data["status"], happened);
                assert_eq!(text(data), written, "deltas of {id}");
                self.messages.insert(id, data.clone());
            }
            _ => panic!("unknown event of a message: {happened}"),
        }
    }

    fn step(&mut self, happened: &str, data: &Value) {
        let id = id(data);
        let open = self.open_steps.contains_key(&id);
        match happened {
            "created" => {
                assert!(!open && !self.steps.contains_key(&id), "{id} again");
                assert_eq!(data["status"], "in_progress");
                self.open_steps.insert(id, data.clone());
            }
            "in_progress" | "delta" => assert!(open, "{id} goes on and is not open"),
            "completed" | "failed" | "cancelled" | "expired" => {
                assert!(open, "{id} ends and was not open");
                assert_eq!(data["status"], happened);
                self.open_steps.remove(&id);
                self.steps.insert(id, data.clone());
            }
            _ => panic!("unknown event of a step: {happened}"),
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
