//! Assembles the tool calls of an answer from their pieces.

use serde_json::Value;

use super::names::CallNames;
use crate::domain::json_escapes::SurrogateDecoder;
use crate::models::error::UpstreamError;
use crate::models::turn::TurnEvent;

#[derive(Default)]
pub(super) struct Calls {
    names: CallNames,
    calls: Vec<Call>,
    announced: usize,
}

#[derive(Default)]
struct Call {
    index: Option<i64>,
    id: Option<String>,
    name: Option<String>,
    /// Its index among the announced calls. A call is announced when its name is known, a bundle of
    /// calls when it is complete.
    announced_as: Option<usize>,
    /// The arguments that arrived before it was announced.
    arguments: String,
    halves: SurrogateDecoder,
    extent: Extent,
}

struct Piece {
    index: Option<i64>,
    id: Option<String>,
    name: Option<String>,
    /// Text of [marked](crate::domain::json_escapes::mark_surrogates) JSON.
    arguments: String,
}

impl Piece {
    fn of(call: &Value, function: &Value) -> Self {
        let text = |value: &Value| {
            value
                .as_str()
                .filter(|s| !s.is_empty())
                .map(SurrogateDecoder::decode)
        };
        Self {
            index: call["index"].as_i64(),
            id: text(&call["id"]),
            name: text(&function["name"]),
            arguments: match &function["arguments"] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                object => with_whole_strings(object).to_string(),
            },
        }
    }
}

/// The value of marked JSON with unmarked strings.
fn with_whole_strings(value: &Value) -> Value {
    match value {
        Value::String(text) => SurrogateDecoder::decode(text).into(),
        Value::Array(items) => items.iter().map(with_whole_strings).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (SurrogateDecoder::decode(name), with_whole_strings(value)))
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

    pub(super) fn is_empty(&self) -> bool {
        self.announced == 0
    }

    pub(super) fn push(&mut self, call: &Value, function: &Value, out: &mut Vec<TurnEvent>) {
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
        if let Some(index) = call.announced_as {
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

    /// The index of the call that a piece continues; `None` if it starts a new one.
    fn find(&self, piece: &Piece) -> Option<usize> {
        let has_same_index = |call: &Call| piece.index.is_none() || call.index == piece.index;
        if piece.id.is_some() {
            // Another id makes it another call, even with the same index.
            return self
                .calls
                .iter()
                .rposition(|call| has_same_index(call) && call.id == piece.id);
        }
        let last = self.calls.iter().rposition(has_same_index)?;
        let call = &self.calls[last];
        // A name after complete arguments starts a new call.
        let starts_call = piece.name.is_some() && call.name.is_some() && call.extent.is_complete();
        (!starts_call).then_some(last)
    }

    fn announce(&mut self, at: usize, name: String) -> TurnEvent {
        // Ids are unique within an answer, even if the server repeats one.
        let is_unused = |id: &String| {
            let mut others = self.calls.iter().filter(|call| call.announced_as.is_some());
            others.all(|other| other.id.as_ref() != Some(id))
        };
        let id = self.calls[at].id.clone().filter(is_unused);
        self.calls[at].announced_as = Some(self.announced);
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

    /// Announces what is still open. A call with arguments and no name is an error.
    pub(super) fn finish(&mut self, out: &mut Vec<TurnEvent>) -> Result<(), UpstreamError> {
        for at in 0..self.calls.len() {
            let call = &mut self.calls[at];
            let half = call.halves.finish().unwrap_or_default();
            if let Some(index) = call.announced_as {
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

fn continued(index: usize, arguments: String) -> Option<TurnEvent> {
    (!arguments.is_empty()).then_some(TurnEvent::ToolCall {
        index,
        id: None,
        name: None,
        arguments,
    })
}

/// Tracks whether the text of a JSON object, array or string is complete.
#[derive(Default)]
struct Extent {
    is_started: bool,
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    /// Whether it is another kind of text, which is never known to be complete.
    is_other: bool,
}

impl Extent {
    fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_in_string => self.is_escaped = true,
                b'"' => self.is_in_string = !self.is_in_string,
                _ if self.is_in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                byte if byte.is_ascii_whitespace() => continue,
                _ => self.is_other |= !self.is_started,
            }
            self.is_started = true;
        }
    }

    fn is_complete(&self) -> bool {
        self.is_started && !self.is_other && self.depth == 0 && !self.is_in_string
    }
}
