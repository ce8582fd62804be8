//! Turns the bytes of a chat completion, streamed or not, into [`TurnEvent`]s.
//!
//! Takes what servers really send, not only what the specification allows. Knows nothing of HTTP.

use std::time::Duration;

use bytes::Bytes;
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
use super::event_stream::EventStream;
use super::event_stream::Limits;
use super::text_of;
use crate::domain::json_escapes;
use crate::domain::json_escapes::HalfPairs;

mod calls;
mod names;

use calls::Calls;
pub(super) use names::CallNames;

/// How long to wait for the end of a body after `[DONE]`, so that its connection can be used again.
const DRAIN: Duration = Duration::from_millis(50);

type Body = stream::BoxStream<'static, Result<Bytes, UpstreamError>>;

/// Reads an answer's body. [`TurnEvent::Finish`] is the last event of a complete answer.
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
            // Some servers answer with one document although a stream was asked for.
            let document = document(first, &mut body).await?;
            decoder.event(&document, &mut ready)?;
        } else {
            let mut stream = EventStream::new(limits.line);
            let mut arrived = Vec::new();
            stream.push(&first, &mut arrived)?;
            let mut ended = false;
            loop {
                for data in arrived.drain(..) {
                    decoder.event(&data, &mut ready)?;
                    for event in ready.drain(..) {
                        yield event;
                    }
                }
                if ended || decoder.done {
                    break;
                }
                match body.next().await {
                    Some(chunk) => stream.push(&chunk?, &mut arrived)?,
                    None => {
                        stream.finish(&mut arrived);
                        ended = true;
                    }
                }
            }
            if !ended {
                let rest = async { while body.next().await.is_some() {} };
                let _ = tokio::time::timeout(DRAIN, rest).await;
            }
        }
        decoder.finish(&mut ready)?;
        for event in ready {
            yield event;
        }
    }
}

/// The body, which ends with an error when it is longer than this many bytes.
fn limited(body: Body, limit: usize) -> Body {
    let mut left = limit;
    let within = move |chunk: Result<Bytes, UpstreamError>| {
        let chunk = chunk?;
        left = left.checked_sub(chunk.len()).ok_or_else(|| {
            UpstreamError::broken(format!(
                "The model server's answer has more than {limit} bytes \
                 (ASSISTD_MAX_UPSTREAM_ANSWER_BYTES)."
            ))
        })?;
        Ok(chunk)
    };
    body.map(within).boxed()
}

/// The beginning of the body, as far as it takes to see what it is, without white space and byte
/// order marks.
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

/// The state of one answer: what is open, and what the end will report.
#[derive(Default)]
struct Decoder {
    calls: Calls,
    /// Whether the last text was a refusal.
    refuses: bool,
    /// The end of that text.
    halves: HalfPairs,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    /// Whether the server has said that nothing more comes.
    done: bool,
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
    fn new(names: CallNames) -> Self {
        Self {
            calls: Calls::new(names),
            ..Self::default()
        }
    }

    /// Takes the data of one event.
    fn event(&mut self, data: &str, out: &mut Vec<TurnEvent>) -> Result<(), UpstreamError> {
        let data = data.trim();
        if data == "[DONE]" {
            self.done = true;
        }
        if data.is_empty() || self.done {
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_str(&json_escapes::marked(data)).map_err(|_| {
            UpstreamError::broken("The model server sent something that is not a chat completion.")
        })?;
        if !chunk.error.is_null() || chunk.object == "error" {
            let whole = json_escapes::parse(data).unwrap_or(Value::Null);
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
                out.push(TurnEvent::Reasoning(HalfPairs::whole(text)));
                break;
            }
        }
        self.content(&delta["content"], out);
        if let Some(text) = delta["refusal"].as_str() {
            self.text(true, text, out);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.end_text(out);
            self.calls.piece(call, &call["function"], out);
        }
        if delta["function_call"].is_object() {
            self.end_text(out);
            self.calls.piece(&Value::Null, &delta["function_call"], out);
        }
        if let Some(word) = choice["finish_reason"]
            .as_str()
            .filter(|word| !word.is_empty())
        {
            self.finish = Some(finish_reason(word)?);
        }
        Ok(())
    }

    /// Takes content: a string, or a list of parts.
    fn content(&mut self, content: &Value, out: &mut Vec<TurnEvent>) {
        match content {
            Value::String(text) => self.text(false, text, out),
            Value::Array(parts) => {
                for part in parts {
                    self.part(part, out);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
        }
    }

    fn part(&mut self, part: &Value, out: &mut Vec<TurnEvent>) {
        match part["type"].as_str() {
            Some("thinking") => {
                let texts = part["thinking"].as_array().into_iter().flatten();
                let thought: String = texts.filter_map(|t| t["text"].as_str()).collect();
                out.push(TurnEvent::Reasoning(HalfPairs::whole(&thought)));
            }
            Some("refusal") => self.text(true, part["refusal"].as_str().unwrap_or_default(), out),
            Some(_) | None => self.text(false, part["text"].as_str().unwrap_or_default(), out),
        }
    }

    /// Takes more text of the answer, or of a refusal.
    fn text(&mut self, refuses: bool, marked: &str, out: &mut Vec<TurnEvent>) {
        if marked.is_empty() {
            return;
        }
        if refuses != self.refuses {
            self.end_text(out);
            self.refuses = refuses;
        }
        let text = self.halves.push(marked);
        out.extend(text_event(refuses, text));
    }

    /// Gives out what was held back of the text so far.
    fn end_text(&mut self, out: &mut Vec<TurnEvent>) {
        let half = self.halves.finish().unwrap_or_default();
        out.extend(text_event(self.refuses, half.to_owned()));
    }

    /// Adds the events that close the answer.
    ///
    /// # Errors
    /// When the answer stopped half-way.
    fn finish(mut self, out: &mut Vec<TurnEvent>) -> Result<(), UpstreamError> {
        if self.finish.is_none() && !self.done {
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

fn text_event(refuses: bool, text: String) -> Option<TurnEvent> {
    let event = match refuses {
        true => TurnEvent::Refusal,
        false => TurnEvent::Text,
    };
    (!text.is_empty()).then(|| event(text))
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
