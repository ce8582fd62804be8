//! Turns the bytes of a chat completion, streamed or not, into [`TurnEvent`]s.
//!
//! Takes what servers really send, not only what the specification allows. Knows nothing of HTTP.

use std::time::Duration;

use bytes::Bytes;
use eventsource_stream::EventStreamError;
use eventsource_stream::Eventsource;
use futures::Stream;
use futures::StreamExt;
use futures::stream;
use serde::Deserialize;
use serde_json::Value;

use super::FinishReason;
use super::TurnEvent;
use super::Usage;
use super::error::Detail;
use super::error::UpstreamError;

/// How long to wait for the end of a body after `[DONE]`, so that its connection can be used again.
const DRAIN: Duration = Duration::from_millis(50);
/// Longest answer that is read as one JSON document, in bytes.
const DOCUMENT_LIMIT: usize = 64 << 20;

/// Reads an answer's body. [`TurnEvent::Finish`] is the last event of a complete answer.
pub(super) fn events(
    mut body: stream::BoxStream<'static, Result<Bytes, UpstreamError>>,
) -> impl Stream<Item = Result<TurnEvent, UpstreamError>> + Send + 'static {
    async_stream::try_stream! {
        let first = beginning(&mut body).await?;
        let mut decoder = Decoder::default();
        let mut ready = Vec::new();
        if first.trim_ascii_start().starts_with(b"{") {
            // Some servers answer with one document although a stream was asked for.
            let document = document(first, &mut body).await?;
            decoder.event(&document, &mut ready)?;
            for event in ready.drain(..) {
                yield event;
            }
            for event in decoder.finish()? {
                yield event;
            }
            return;
        }
        // The last blank line dispatches an event that the server did not close; the first one
        // keeps any further byte order mark from the parser's beginning.
        let blank = || Ok(Bytes::from_static(b"\n\n"));
        let start = stream::iter([blank(), Ok(first)]);
        let mut lines = start.chain(body).chain(stream::iter([blank()])).eventsource();
        while let Some(line) = lines.next().await {
            let data = line.map_err(transport)?.data;
            if data.trim() == "[DONE]" {
                decoder.done = true;
                let _ = tokio::time::timeout(DRAIN, async { while lines.next().await.is_some() {} }).await;
                break;
            }
            decoder.event(&data, &mut ready)?;
            for event in ready.drain(..) {
                yield event;
            }
        }
        for event in decoder.finish()? {
            yield event;
        }
    }
}

type Body = stream::BoxStream<'static, Result<Bytes, UpstreamError>>;

/// The beginning of the body, as far as it takes to see what it is, without white space chunks and
/// byte order mark (at which the parser of event streams panics).
async fn beginning(body: &mut Body) -> Result<Bytes, UpstreamError> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let mut start = Vec::new();
    while let Some(chunk) = body.next().await {
        start.extend_from_slice(&chunk?);
        let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&start);
        if !BYTE_ORDER_MARK.starts_with(text) && !text.trim_ascii().is_empty() {
            return Ok(Bytes::copy_from_slice(text));
        }
    }
    Err(UpstreamError::disconnected())
}

async fn document(first: Bytes, body: &mut Body) -> Result<String, UpstreamError> {
    let mut bytes = first.to_vec();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() > DOCUMENT_LIMIT {
            return Err(UpstreamError::broken(
                "The model server's answer is too large.",
            ));
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| UpstreamError::broken("The model server's answer is not UTF-8."))
}

fn transport(error: EventStreamError<UpstreamError>) -> UpstreamError {
    match error {
        EventStreamError::Transport(error) => error,
        EventStreamError::Utf8(_) | EventStreamError::Parser(_) => {
            UpstreamError::broken("The model server's stream is not a valid event stream.")
        }
    }
}

/// The state of one answer: which tool calls are open, and what the end will report.
#[derive(Default)]
struct Decoder {
    calls: Vec<Call>,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    done: bool,
}

/// A tool call under way.
struct Call {
    /// The server's own numbering, where it has one.
    index: Option<i64>,
    id: Option<String>,
    /// Whether its first event was given out; that waits for the name.
    announced: bool,
    /// Everything received so far.
    arguments: String,
}

/// One piece of a tool call as it came.
#[derive(Default)]
struct Piece {
    index: Option<i64>,
    id: Option<String>,
    name: Option<String>,
    arguments: String,
}

/// The outline of a chunk; leaves stay untyped, so that an odd one does not spoil the rest.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Value,
    #[serde(default)]
    usage: Value,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    object: Value,
}

impl Decoder {
    /// Takes the data of one event.
    fn event(&mut self, data: &str, out: &mut Vec<TurnEvent>) -> Result<(), UpstreamError> {
        let data = data.trim();
        if data.is_empty() {
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_str(data).map_err(|_| {
            UpstreamError::broken("The model server sent something that is not a chat completion.")
        })?;
        if !chunk.error.is_null() || chunk.object == "error" {
            let whole = serde_json::from_str(data).unwrap_or(Value::Null);
            return Err(Detail::from_json(&whole).into_stream_error());
        }
        if let Some(usage) = usage(&chunk.usage) {
            self.usage = Some(usage);
        }
        let first = chunk.choices.as_array().and_then(|choices| {
            choices
                .iter()
                .find(|choice| choice["index"].as_i64().unwrap_or(0) == 0)
        });
        match first {
            Some(choice) => self.choice(choice, out),
            None => Ok(()),
        }
    }

    fn choice(&mut self, choice: &Value, out: &mut Vec<TurnEvent>) -> Result<(), UpstreamError> {
        let delta = match &choice["delta"] {
            Value::Null => &choice["message"],
            delta => delta,
        };
        for field in ["reasoning_content", "reasoning"] {
            if let Some(text) = delta[field].as_str().filter(|text| !text.is_empty()) {
                out.push(TurnEvent::Reasoning(text.to_owned()));
                break;
            }
        }
        content(&delta["content"], out);
        if let Some(text) = delta["refusal"].as_str().filter(|text| !text.is_empty()) {
            out.push(TurnEvent::Refusal(text.to_owned()));
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.piece(piece(call, &call["function"]), out);
        }
        if delta["function_call"].is_object() {
            self.piece(piece(&Value::Null, &delta["function_call"]), out);
        }
        if let Some(word) = choice["finish_reason"]
            .as_str()
            .filter(|word| !word.is_empty())
        {
            self.finish = Some(finish_reason(word)?);
        }
        Ok(())
    }

    fn piece(&mut self, piece: Piece, out: &mut Vec<TurnEvent>) {
        let index = self.find(&piece).unwrap_or_else(|| {
            self.calls.push(Call {
                index: piece.index,
                id: piece.id.clone(),
                announced: false,
                arguments: String::new(),
            });
            self.calls.len() - 1
        });
        let (earlier, rest) = self.calls.split_at_mut(index);
        let call = &mut rest[0];
        call.arguments.push_str(&piece.arguments);
        if call.announced {
            if !piece.arguments.is_empty() {
                let arguments = piece.arguments;
                out.push(TurnEvent::ToolCall {
                    index,
                    id: None,
                    name: None,
                    arguments,
                });
            }
        } else if let Some(name) = piece.name {
            call.announced = true;
            // Two calls of one answer must not share an id.
            let taken = earlier.iter().any(|other| other.id == call.id);
            out.push(TurnEvent::ToolCall {
                index,
                id: call.id.clone().filter(|_| !taken),
                name: Some(name),
                arguments: call.arguments.clone(),
            });
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
        let starts_anew = piece.name.is_some()
            && call.announced
            && serde_json::from_str::<serde::de::IgnoredAny>(&call.arguments).is_ok();
        (!starts_anew).then_some(found)
    }

    /// The events that close the answer, or an error when it stopped half-way.
    fn finish(self) -> Result<Vec<TurnEvent>, UpstreamError> {
        if self.finish.is_none() && !self.done {
            return Err(UpstreamError::disconnected());
        }
        if self.calls.iter().any(|call| !call.announced) {
            return Err(UpstreamError::broken(
                "The model server sent a tool call without a name.",
            ));
        }
        let reason = match self.finish.unwrap_or(FinishReason::Stop) {
            FinishReason::Stop if !self.calls.is_empty() => FinishReason::ToolCalls,
            FinishReason::ToolCalls if self.calls.is_empty() => FinishReason::Stop,
            reason => reason,
        };
        let usage = self.usage.map(TurnEvent::Usage);
        Ok(usage
            .into_iter()
            .chain([TurnEvent::Finish(reason)])
            .collect())
    }
}

/// Text as a string, or as a list of parts.
fn content(content: &Value, out: &mut Vec<TurnEvent>) {
    match content {
        Value::String(text) if !text.is_empty() => out.push(TurnEvent::Text(text.clone())),
        Value::Array(parts) => {
            for part in parts {
                let text = |field: &str| part[field].as_str().map(str::to_owned);
                match part["type"].as_str() {
                    Some("thinking") => {
                        let texts = part["thinking"].as_array().into_iter().flatten();
                        let thought: String = texts.filter_map(|t| t["text"].as_str()).collect();
                        out.push(TurnEvent::Reasoning(thought));
                    }
                    Some("refusal") => out.extend(text("refusal").map(TurnEvent::Refusal)),
                    Some(_) | None => out.extend(text("text").map(TurnEvent::Text)),
                }
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
    }
}

fn piece(call: &Value, function: &Value) -> Piece {
    let word = |value: &Value| value.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    Piece {
        index: call["index"].as_i64(),
        id: word(&call["id"]),
        name: word(&function["name"]),
        arguments: match &function["arguments"] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            object => object.to_string(),
        },
    }
}

fn finish_reason(word: &str) -> Result<FinishReason, UpstreamError> {
    match word.to_ascii_lowercase().as_str() {
        "length" | "max_tokens" | "model_length" => Ok(FinishReason::Length),
        "tool_calls" | "function_call" | "tool_use" => Ok(FinishReason::ToolCalls),
        "content_filter" | "safety" => Ok(FinishReason::ContentFilter),
        // The server gave up; what came so far is not an answer.
        "error" | "abort" => Err(UpstreamError::disconnected()),
        _ => Ok(FinishReason::Stop),
    }
}

fn usage(usage: &Value) -> Option<Usage> {
    let number = |value: &Value| {
        let whole = value
            .as_u64()
            .or_else(|| value.as_f64().map(|f| f as u64))?;
        Some(u32::try_from(whole).unwrap_or(u32::MAX))
    };
    let prompt = number(&usage["prompt_tokens"])?;
    let completion = number(&usage["completion_tokens"]).unwrap_or(0);
    Some(Usage {
        prompt,
        completion,
        total: number(&usage["total_tokens"]).unwrap_or(prompt.saturating_add(completion)),
        cached: number(&usage["prompt_tokens_details"]["cached_tokens"])
            .or_else(|| number(&usage["prompt_cache_hit_tokens"]))
            .unwrap_or(0),
        reasoning: number(&usage["completion_tokens_details"]["reasoning_tokens"]).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests;
