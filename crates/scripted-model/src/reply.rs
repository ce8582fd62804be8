//! An answer on the wire: cut into tokens, within its limits, at its pace, with its faults.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::decide::Answer;
use super::file::FinishFile;
use super::prompt::Prompt;
use super::script::Break;
use super::script::BreakKind;
use super::script::Pace;
use crate::models::error::UpstreamError;
use crate::models::tokens;

/// What a broken server sends: neither UTF-8 nor JSON.
const GARBAGE: &[u8] = b"data: {\"choices\": [\xff\xfe\n\n";

/// Longest time that an answer takes, whatever its script says.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// An answer ready to be sent.
pub(super) struct Reply {
    model: String,
    pieces: Vec<Piece>,
    calls: Vec<StartedCall>,
    finish: &'static str,
    usage: Value,
    include_usage: bool,
    pace: Pace,
    broken: Option<Break>,
}

/// Some tokens of an answer, as many as it takes for whole characters.
struct Piece {
    delta: Delta,
    tokens: u32,
}

enum Delta {
    Reasoning(String),
    Text(String),
    Refusal(String),
    /// The call of this number begins.
    Call(usize),
    Arguments(usize, String),
}

struct StartedCall {
    id: String,
    name: String,
}

impl Reply {
    /// Applies the request's limits to an answer. Counts tokens, so not for an async thread.
    pub(super) fn new(
        mut answer: Answer,
        prompt: &Prompt,
        prompt_tokens: u32,
        pace: Pace,
        broken: Option<Break>,
    ) -> Self {
        let end = prompt
            .stop
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| answer.text.find(stop.as_str()));
        if let Some(end) = end.min() {
            answer.text.truncate(end);
        }
        let mut pieces = Vec::new();
        pieces.extend(cut(&prompt.model, &answer.reasoning, Delta::Reasoning));
        pieces.extend(cut(&prompt.model, &answer.text, Delta::Text));
        pieces.extend(cut(&prompt.model, &answer.refusal, Delta::Refusal));
        let mut calls = Vec::with_capacity(answer.calls.len());
        for (index, call) in answer.calls.into_iter().enumerate() {
            let name_tokens = tokens::count_text(&prompt.model, &call.name);
            pieces.push(Piece {
                delta: Delta::Call(index),
                tokens: name_tokens,
            });
            pieces.extend(cut(&prompt.model, &call.arguments, |text| {
                Delta::Arguments(index, text)
            }));
            calls.push(StartedCall {
                id: id("call_", 24),
                name: call.name,
            });
        }
        let limit = prompt.max_tokens.unwrap_or(u32::MAX);
        let mut completion = 0_u32;
        let fitting = pieces.iter().take_while(|piece| {
            completion = completion.saturating_add(piece.tokens);
            completion <= limit
        });
        let kept = fitting.count();
        let truncated = kept < pieces.len();
        pieces.truncate(kept);
        let finish = match (truncated, answer.finish) {
            (true, _) | (false, Some(FinishFile::Length)) => "length",
            (false, Some(FinishFile::ContentFilter)) => "content_filter",
            (false, Some(FinishFile::ToolCalls)) => "tool_calls",
            (false, Some(FinishFile::Stop)) => "stop",
            (false, None) if calls.is_empty() => "stop",
            (false, None) => "tool_calls",
        };
        let counted = pieces.iter().map(|piece| piece.tokens).sum();
        let prompt_tokens = answer.usage.prompt_tokens.unwrap_or(prompt_tokens);
        let completion_tokens = answer.usage.completion_tokens.unwrap_or(counted);
        let usage = json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens.saturating_add(completion_tokens),
            "prompt_tokens_details": { "cached_tokens": answer.usage.cached_tokens, "audio_tokens": 0 },
            "completion_tokens_details": {
                "reasoning_tokens": answer.usage.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        });
        Self {
            model: prompt.model.clone(),
            pieces,
            calls,
            finish,
            usage,
            include_usage: prompt.include_usage,
            pace,
            broken,
        }
    }

    /// The answer as a stream of chat completion chunks.
    pub(super) fn stream(self) -> BoxStream<'static, Result<Bytes, UpstreamError>> {
        let start = Instant::now();
        async_stream::stream! {
            let envelope = Envelope::new("chat.completion.chunk", &self);
            let mut sent = 0_u32;
            wait_until(start + self.pace.due(0)).await;
            yield Ok(envelope.chunk(json!({ "role": "assistant", "content": "" }), None));
            for piece in &self.pieces {
                if self.broken.is_some_and(|broken| sent >= broken.after) {
                    break;
                }
                wait_until(start + self.pace.due(sent)).await;
                yield Ok(envelope.chunk(self.delta(&piece.delta), None));
                sent = sent.saturating_add(piece.tokens);
            }
            match self.broken.map(|broken| broken.how) {
                Some(BreakKind::Disconnect) => {
                    yield Err(UpstreamError::disconnected());
                    return;
                }
                Some(BreakKind::Garbage) => {
                    yield Ok(Bytes::from_static(GARBAGE));
                    return;
                }
                Some(BreakKind::ErrorEvent) => {
                    yield Ok(event(&error_object()));
                    return;
                }
                None => {}
            }
            yield Ok(envelope.chunk(json!({}), Some(self.finish)));
            if self.include_usage {
                yield Ok(envelope.usage(&self.usage));
            }
            yield Ok(Bytes::from_static(b"data: [DONE]\n\n"));
        }
        .boxed()
    }

    /// The answer as one chat completion.
    pub(super) fn document(self) -> BoxStream<'static, Result<Bytes, UpstreamError>> {
        let start = Instant::now();
        async_stream::stream! {
            let tokens = self.pieces.iter().map(|piece| piece.tokens).sum();
            wait_until(start + self.pace.due(tokens)).await;
            let mut text = Bytes::from(self.completion().to_string());
            match self.broken.map(|broken| broken.how) {
                Some(BreakKind::Disconnect) => {
                    yield Ok(text.split_to(text.len() / 2));
                    yield Err(UpstreamError::disconnected());
                }
                Some(BreakKind::Garbage) => yield Ok(Bytes::from_static(GARBAGE)),
                Some(BreakKind::ErrorEvent) => yield Ok(error_object().to_string().into()),
                None => yield Ok(text),
            }
        }
        .boxed()
    }

    fn completion(&self) -> Value {
        let mut reasoning = String::new();
        let mut text = String::new();
        let mut refusal = String::new();
        let mut calls: Vec<(usize, String)> = Vec::new();
        for piece in &self.pieces {
            match &piece.delta {
                Delta::Reasoning(more) => reasoning.push_str(more),
                Delta::Text(more) => text.push_str(more),
                Delta::Refusal(more) => refusal.push_str(more),
                Delta::Call(index) => calls.push((*index, String::new())),
                Delta::Arguments(_, more) => {
                    if let Some((_, arguments)) = calls.last_mut() {
                        arguments.push_str(more);
                    }
                }
            }
        }
        let or_null = |text: String| {
            if text.is_empty() {
                Value::Null
            } else {
                Value::String(text)
            }
        };
        let empty_answer = refusal.is_empty() && calls.is_empty();
        let mut message = json!({
            "role": "assistant",
            "content": if empty_answer { Value::String(text) } else { or_null(text) },
            "refusal": or_null(refusal),
        });
        if !calls.is_empty() {
            let calls = calls.into_iter().map(|(index, arguments)| {
                let StartedCall { id, name } = &self.calls[index];
                json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
            });
            message["tool_calls"] = calls.collect();
        }
        if !reasoning.is_empty() {
            message["reasoning_content"] = Value::String(reasoning);
        }
        let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": self.finish });
        let mut completion = Envelope::new("chat.completion", self).0;
        completion["choices"] = json!([choice]);
        completion["usage"] = self.usage.clone();
        completion
    }

    fn delta(&self, delta: &Delta) -> Value {
        match delta {
            Delta::Reasoning(text) => json!({ "reasoning_content": text }),
            Delta::Text(text) => json!({ "content": text }),
            Delta::Refusal(text) => json!({ "refusal": text }),
            Delta::Call(index) => {
                let StartedCall { id, name } = &self.calls[*index];
                let function = json!({ "name": name, "arguments": "" });
                json!({ "tool_calls": [{ "index": index, "id": id, "type": "function", "function": function }] })
            }
            Delta::Arguments(index, text) => {
                json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
            }
        }
    }
}

impl Pace {
    /// When what follows so many tokens is due, from the request on.
    fn due(self, tokens: u32) -> Duration {
        let time = self
            .tokens_per_second
            .map(|rate| f64::from(tokens) / rate)
            .unwrap_or_default();
        let time = Duration::try_from_secs_f64(time).unwrap_or(LONGEST_WAIT);
        self.latency.saturating_add(time).min(LONGEST_WAIT)
    }
}

/// The fields that every chunk of an answer repeats.
struct Envelope(Value);

impl Envelope {
    fn new(object: &str, reply: &Reply) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(json!({
            "id": id("chatcmpl-", 29),
            "object": object,
            "created": now.as_secs(),
            "model": reply.model,
            "system_fingerprint": null,
        }))
    }

    fn chunk(&self, delta: Value, finish: Option<&str>) -> Bytes {
        let mut chunk = self.0.clone();
        let choice =
            json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
        chunk["choices"] = json!([choice]);
        event(&chunk)
    }

    fn usage(&self, usage: &Value) -> Bytes {
        let mut chunk = self.0.clone();
        chunk["choices"] = json!([]);
        chunk["usage"] = usage.clone();
        event(&chunk)
    }
}

fn event(data: &Value) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

fn error_object() -> Value {
    json!({ "error": {
        "message": "The scripted model fails in the middle of its answer here.",
        "type": "server_error",
        "param": null,
        "code": null,
    } })
}

async fn wait_until(moment: Instant) {
    if moment > Instant::now() {
        tokio::time::sleep_until(moment).await;
    }
}

/// Cuts a text at its tokens. Tokens that hold parts of a character stay together.
fn cut(model: &str, text: &str, delta: impl Fn(String) -> Delta) -> Vec<Piece> {
    let tokenizer = tokens::tokenizer(model);
    let mut pieces = Vec::new();
    let mut bytes = Vec::new();
    let mut tokens = 0;
    for token in tokenizer.encode(text) {
        bytes.extend_from_slice(tokenizer.bpe.token_bytes(token));
        tokens += 1;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            pieces.push(Piece {
                delta: delta(text.to_owned()),
                tokens,
            });
            bytes.clear();
            tokens = 0;
        }
    }
    pieces
}

fn id(prefix: &str, length: usize) -> String {
    let random = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    format!("{prefix}{}", &random[..length])
}
