//! Puts the pieces of an answer's tool calls together.

use serde_json::Value;

use super::names::CallNames;
use crate::domain::json_escapes::HalfPairs;
use crate::models::TurnEvent;
use crate::models::error::UpstreamError;

/// The tool calls of one answer.
#[derive(Default)]
pub(super) struct Calls {
    names: CallNames,
    calls: Vec<Call>,
    /// How many calls were announced.
    announced: usize,
}

/// A tool call under way.
#[derive(Default)]
struct Call {
    /// The server's own numbering, where it has one.
    index: Option<i64>,
    id: Option<String>,
    name: Option<String>,
    /// Its number among the announced calls. A call is announced when its name is known, and a
    /// bundle of calls not before it is complete.
    number: Option<usize>,
    /// The arguments until it is announced.
    arguments: String,
    halves: HalfPairs,
    extent: Extent,
}

/// One piece of a tool call as it came.
struct Piece {
    index: Option<i64>,
    id: Option<String>,
    name: Option<String>,
    /// Of [marked](crate::domain::json_escapes::marked) JSON.
    arguments: String,
}

impl Piece {
    fn of(call: &Value, function: &Value) -> Self {
        let word = |value: &Value| {
            value
                .as_str()
                .filter(|s| !s.is_empty())
                .map(HalfPairs::whole)
        };
        Self {
            index: call["index"].as_i64(),
            id: word(&call["id"]),
            name: word(&function["name"]),
            arguments: match &function["arguments"] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                object => with_whole_strings(object).to_string(),
            },
        }
    }
}

/// A value of marked JSON with the strings that it stands for.
fn with_whole_strings(value: &Value) -> Value {
    match value {
        Value::String(text) => HalfPairs::whole(text).into(),
        Value::Array(items) => items.iter().map(with_whole_strings).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (HalfPairs::whole(name), with_whole_strings(value)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

impl Calls {
    pub(super) fn new(names: CallNames) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }

    /// Whether no call was announced.
    pub(super) fn is_empty(&self) -> bool {
        self.announced == 0
    }

    /// Takes a piece: the fields of the call and of its function.
    pub(super) fn piece(&mut self, call: &Value, function: &Value, out: &mut Vec<TurnEvent>) {
        let piece = Piece::of(call, function);
        let at = self.find(&piece).unwrap_or_else(|| {
            self.calls.push(Call {
                index: piece.index,
                id: piece.id,
                ..Call::default()
            });
            self.calls.len() - 1
        });
        let call = &mut self.calls[at];
        let arguments = call.halves.push(&piece.arguments);
        call.extent.push(&arguments);
        if let Some(index) = call.number {
            out.extend(continued(index, arguments));
            return;
        }
        call.arguments.push_str(&arguments);
        if call.name.is_none() {
            call.name = piece.name;
        }
        match &call.name {
            Some(name) if !self.names.is_bundle(name) => {
                let name = self.names.plain(name);
                out.push(self.announce(at, name));
            }
            Some(_) | None => {}
        }
    }

    /// The open call that a piece continues, or none when it starts a new one.
    fn find(&self, piece: &Piece) -> Option<usize> {
        let same_index = |call: &Call| piece.index.is_none() || call.index == piece.index;
        if piece.id.is_some() {
            // The same index with another id is another call.
            return self
                .calls
                .iter()
                .rposition(|call| same_index(call) && call.id == piece.id);
        }
        let found = self.calls.iter().rposition(same_index)?;
        let call = &self.calls[found];
        // A name where the call before already has all its arguments.
        let starts_anew = piece.name.is_some() && call.name.is_some() && call.extent.is_complete();
        (!starts_anew).then_some(found)
    }

    fn announce(&mut self, at: usize, name: String) -> TurnEvent {
        // Two calls of one answer must not share an id.
        let is_free = |id: &String| {
            let mut others = self.calls.iter().filter(|call| call.number.is_some());
            others.all(|other| other.id.as_ref() != Some(id))
        };
        let id = self.calls[at].id.clone().filter(is_free);
        self.calls[at].number = Some(self.announced);
        let arguments = std::mem::take(&mut self.calls[at].arguments);
        self.begin(id, name, arguments)
    }

    fn begin(&mut self, id: Option<String>, name: String, arguments: String) -> TurnEvent {
        let index = self.announced;
        self.announced += 1;
        TurnEvent::ToolCall {
            index,
            id,
            name: Some(name),
            arguments,
        }
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// When a call has arguments and no name.
    pub(super) fn finish(&mut self, out: &mut Vec<TurnEvent>) -> Result<(), UpstreamError> {
        for at in 0..self.calls.len() {
            let call = &mut self.calls[at];
            let half = call.halves.finish().unwrap_or_default();
            if let Some(index) = call.number {
                out.extend(continued(index, half.to_owned()));
                continue;
            }
            call.arguments.push_str(half);
            let Some(name) = call.name.take() else {
                if call.arguments.trim().is_empty() {
                    continue;
                }
                return Err(UpstreamError::broken(
                    "The model server sent a tool call without a name.",
                ));
            };
            let bundled = self.names.unbundle(&call.arguments);
            if bundled.is_empty() {
                out.push(self.announce(at, name));
            }
            for (name, arguments) in bundled {
                out.push(self.begin(None, name, arguments));
            }
        }
        Ok(())
    }
}

/// More of an announced call's arguments, if there is more.
fn continued(index: usize, arguments: String) -> Option<TurnEvent> {
    (!arguments.is_empty()).then_some(TurnEvent::ToolCall {
        index,
        id: None,
        name: None,
        arguments,
    })
}

/// Follows the text of a JSON object, array or string, to see where it ends.
#[derive(Default)]
struct Extent {
    begun: bool,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Whether it is something else. Such arguments are never known to be complete.
    other: bool,
}

impl Extent {
    fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                byte if byte.is_ascii_whitespace() => continue,
                _ => self.other |= !self.begun,
            }
            self.begun = true;
        }
    }

    fn is_complete(&self) -> bool {
        self.begun && !self.other && self.depth == 0 && !self.in_string
    }
}
