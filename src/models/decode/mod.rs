//! Decodes the body of a chat completion, streamed or not, into [`TurnEvent`]s.
//!
//! Accepts what servers send in practice, which is more than the specification allows.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::Value;

use super::body::{Body, text_of};
use super::error::UpstreamError;
use super::error_object::ErrorObject;
use super::event_stream::{EventStream, Limits};
use super::turn::{FinishReason, TurnEvent, Usage};
use crate::domain::json_escapes::{self, SurrogateDecoder};

mod calls;
mod names;

use calls::Calls;
pub(super) use names::CallNames;

/// Time to wait for the end of a body after `[DONE]`, so that the connection can be reused.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(50);

/// Decodes a body. [`TurnEvent::Finish`] is the last event of a complete answer.
pub(super) fn events(
    body: Body,
    names: CallNames,
    limits: Limits,
) -> impl Stream<Item = Result<TurnEvent, UpstreamError>> + Send + 'static {
    async_stream::try_stream! {
        let mut body = limited(body, limits.answer);
        let first = beginning(&mut body).await?;
        let mut decoder = Decoder::new(names);
        let mut ready = Vec::new();
        if first.starts_with(b"{") {
            // Some servers send one document although a stream was requested.
            let document = document(first, &mut body).await?;
            decoder.decode(&document, &mut ready)?;
        } else {
            let mut stream = EventStream::new(limits.line);
            let mut received = Vec::new();
            stream.push(&first, &mut received)?;
            let mut ended = false;
            loop {
                for data in received.drain(..) {
                    decoder.decode(&data, &mut ready)?;
                    for event in ready.drain(..) {
                        yield event;
                    }
                }
                if ended || decoder.is_done {
                    break;
                }
                match body.next().await {
                    Some(chunk) => stream.push(&chunk?, &mut received)?,
                    None => {
                        stream.finish(&mut received);
                        ended = true;
                    }
                }
            }
            if !ended {
                let rest = async { while body.next().await.is_some() {} };
                let _ = tokio::time::timeout(DRAIN_TIMEOUT, rest).await;
            }
        }
        decoder.finish(&mut ready)?;
        for event in ready {
            yield event;
        }
    }
}

fn limited(body: Body, limit: usize) -> Body {
    let mut left = limit;
    let check = move |chunk: Result<Bytes, UpstreamError>| {
        let chunk = chunk?;
        left = left.checked_sub(chunk.len()).ok_or_else(|| {
            UpstreamError::broken(format!(
                "The model server's answer has more than {limit} bytes \
                 (ASSISTD_MAX_UPSTREAM_ANSWER_BYTES)."
            ))
        })?;
        Ok(chunk)
    };
    body.map(check).boxed()
}

/// The start of the body, long enough to tell a document from a stream. Leading white space and byte
/// order marks are skipped.
async fn beginning(body: &mut Body) -> Result<Vec<u8>, UpstreamError> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let mut start = Vec::new();
    while let Some(chunk) = body.next().await {
        start.extend_from_slice(&chunk?);
        let mut text = start.trim_ascii_start();
        while let Some(rest) = text.strip_prefix(BYTE_ORDER_MARK) {
            text = rest.trim_ascii_start();
        }
        let skipped = start.len() - text.len();
        start.drain(..skipped);
        if !BYTE_ORDER_MARK.starts_with(&start) {
            return Ok(start);
        }
    }
    Err(UpstreamError::disconnected())
}

async fn document(first: Vec<u8>, body: &mut Body) -> Result<String, UpstreamError> {
    let mut bytes = first;
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(text_of(bytes))
}

#[derive(Default)]
struct Decoder {
    calls: Calls,
    is_refusal: bool,
    /// An incomplete surrogate pair at the end of the last text.
    halves: SurrogateDecoder,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    is_done: bool,
}

/// A chunk. The fields stay untyped, so that an unexpected value in one does not lose the others.
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
    fn new(names: CallNames) -> Self {
        Self {
            calls: Calls::new(names),
            ..Self::default()
        }
    }

    fn decode(&mut self, data: &str, out: &mut Vec<TurnEvent>) -> Result<(), UpstreamError> {
        let data = data.trim();
        if data == "[DONE]" {
            self.is_done = true;
        }
        if data.is_empty() || self.is_done {
            return Ok(());
        }
        let chunk: Chunk =
            serde_json::from_str(&json_escapes::mark_surrogates(data)).map_err(|_| {
                UpstreamError::broken(
                    "The model server sent something that is not a chat completion.",
                )
            })?;
        if !chunk.error.is_null() || chunk.object == "error" {
            let whole = json_escapes::parse(data).unwrap_or(Value::Null);
            return Err(ErrorObject::from_json(&whole).into_stream_error());
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
            Some(choice) => self.decode_choice(choice, out),
            None => Ok(()),
        }
    }

    fn decode_choice(
        &mut self,
        choice: &Value,
        out: &mut Vec<TurnEvent>,
    ) -> Result<(), UpstreamError> {
        let delta = match &choice["delta"] {
            Value::Null => &choice["message"],
            delta => delta,
        };
        for field in ["reasoning_content", "reasoning"] {
            if let Some(text) = delta[field].as_str().filter(|text| !text.is_empty()) {
                out.push(TurnEvent::Reasoning(SurrogateDecoder::decode(text)));
                break;
            }
        }
        self.decode_content(&delta["content"], out);
        if let Some(text) = delta["refusal"].as_str() {
            self.push_text(true, text, out);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.end_text(out);
            self.calls.push(call, &call["function"], out);
        }
        if delta["function_call"].is_object() {
            self.end_text(out);
            self.calls.push(&Value::Null, &delta["function_call"], out);
        }
        if let Some(reason) = choice["finish_reason"]
            .as_str()
            .filter(|reason| !reason.is_empty())
        {
            self.finish = Some(finish_reason(reason)?);
        }
        Ok(())
    }

    /// Content is a string or a list of parts.
    fn decode_content(&mut self, content: &Value, out: &mut Vec<TurnEvent>) {
        match content {
            Value::String(text) => self.push_text(false, text, out),
            Value::Array(parts) => {
                for part in parts {
                    self.decode_part(part, out);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
        }
    }

    fn decode_part(&mut self, part: &Value, out: &mut Vec<TurnEvent>) {
        match part["type"].as_str() {
            Some("thinking") => {
                let texts = part["thinking"].as_array().into_iter().flatten();
                let reasoning: String = texts.filter_map(|t| t["text"].as_str()).collect();
                out.push(TurnEvent::Reasoning(SurrogateDecoder::decode(&reasoning)));
            }
            Some("refusal") => {
                self.push_text(true, part["refusal"].as_str().unwrap_or_default(), out)
            }
            Some(_) | None => self.push_text(false, part["text"].as_str().unwrap_or_default(), out),
        }
    }

    /// `marked` is text of [marked](json_escapes::mark_surrogates) JSON.
    fn push_text(&mut self, is_refusal: bool, marked: &str, out: &mut Vec<TurnEvent>) {
        if marked.is_empty() {
            return;
        }
        if is_refusal != self.is_refusal {
            self.end_text(out);
            self.is_refusal = is_refusal;
        }
        let text = self.halves.push(marked);
        out.extend(text_event(is_refusal, text));
    }

    fn end_text(&mut self, out: &mut Vec<TurnEvent>) {
        let half = self.halves.finish().unwrap_or_default();
        out.extend(text_event(self.is_refusal, half.to_owned()));
    }

    fn finish(mut self, out: &mut Vec<TurnEvent>) -> Result<(), UpstreamError> {
        if self.finish.is_none() && !self.is_done {
            return Err(UpstreamError::disconnected());
        }
        self.end_text(out);
        self.calls.finish(out)?;
        let reason = match self.finish.unwrap_or(FinishReason::Stop) {
            FinishReason::Stop if !self.calls.is_empty() => FinishReason::ToolCalls,
            FinishReason::ToolCalls if self.calls.is_empty() => FinishReason::Stop,
            reason => reason,
        };
        out.extend(self.usage.map(TurnEvent::Usage));
        out.push(TurnEvent::Finish(reason));
        Ok(())
    }
}

fn text_event(is_refusal: bool, text: String) -> Option<TurnEvent> {
    let event = match is_refusal {
        true => TurnEvent::Refusal,
        false => TurnEvent::Text,
    };
    (!text.is_empty()).then(|| event(text))
}

fn finish_reason(reason: &str) -> Result<FinishReason, UpstreamError> {
    match reason.to_ascii_lowercase().as_str() {
        "length" | "max_tokens" | "model_length" => Ok(FinishReason::Length),
        "tool_calls" | "function_call" | "tool_use" => Ok(FinishReason::ToolCalls),
        "content_filter" | "safety" => Ok(FinishReason::ContentFilter),
        // The server stopped generating; the text so far is not an answer.
        "error" | "abort" => Err(UpstreamError::disconnected()),
        _ => Ok(FinishReason::Stop),
    }
}

fn usage(usage: &Value) -> Option<Usage> {
    let count = |value: &Value| {
        let whole = value
            .as_u64()
            .or_else(|| value.as_f64().map(|f| f as u64))?;
        Some(u32::try_from(whole).unwrap_or(u32::MAX))
    };
    let prompt = count(&usage["prompt_tokens"])?;
    let completion = count(&usage["completion_tokens"]).unwrap_or(0);
    Some(Usage {
        prompt,
        completion,
        total: count(&usage["total_tokens"]).unwrap_or(prompt.saturating_add(completion)),
        cached: count(&usage["prompt_tokens_details"]["cached_tokens"])
            .or_else(|| count(&usage["prompt_cache_hit_tokens"]))
            .unwrap_or(0),
        reasoning: count(&usage["completion_tokens_details"]["reasoning_tokens"]).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests;
