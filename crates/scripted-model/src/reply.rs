//! An answer as it is sent: token by token, within the limits of the request, at its pace and with
//! its faults.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::answer::Answer;
use crate::decide::Decision;
use crate::prompt::Prompt;
use crate::script::{Cutoff, CutoffKind, Pace};
use crate::tokens::{self, TextPiece};
use crate::yaml::{FinishYaml, UsageYaml};

/// Bytes that are neither UTF-8 nor JSON.
const GARBAGE: &[u8] = b"data: {\"choices\": [\xff\xfe\n\n";

/// Maximum time that an answer takes; a script cannot exceed it.
const MAX_WAIT: Duration = Duration::from_hours(24);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection was lost")]
pub struct ConnectionLost;

type Body = BoxStream<'static, Result<Bytes, ConnectionLost>>;

pub(crate) struct Reply {
    model: String,
    pieces: Vec<Piece>,
    calls: Vec<StartedCall>,
    finish_reason: &'static str,
    usage: Value,
    is_streamed: bool,
    includes_usage: bool,
    pace: Pace,
    cutoff: Option<Cutoff>,
}

struct Piece {
    delta: Delta,
    tokens: u32,
}

enum Delta {
    Reasoning(String),
    Text(String),
    Refusal(String),
    Call(usize),
    Arguments(usize, String),
}

struct StartedCall {
    id: String,
    name: String,
}

impl Reply {
    /// Applies the limits of the request to an answer. Counts its tokens.
    pub(crate) fn new(decision: Decision, prompt: &Prompt, prompt_tokens: u32) -> Self {
        let Decision {
            mut answer,
            pace,
            cutoff,
        } = decision;
        let stops = prompt.stop.iter().filter(|stop| !stop.is_empty());
        if let Some(end) = stops.filter_map(|stop| answer.text.find(stop)).min() {
            answer.text.truncate(end);
        }
        let (finish, usage) = (answer.finish, answer.usage);
        let (mut pieces, calls) = split(answer);
        let limit = prompt.max_tokens.unwrap_or(u32::MAX);
        let mut total = 0_u32;
        let fitting = pieces.iter().take_while(|piece| {
            total = total.saturating_add(piece.tokens);
            total <= limit
        });
        let kept = fitting.count();
        let is_truncated = kept < pieces.len();
        pieces.truncate(kept);
        let finish_reason = match finish {
            _ if is_truncated => "length",
            Some(FinishYaml::Length) => "length",
            Some(FinishYaml::ContentFilter) => "content_filter",
            Some(FinishYaml::ToolCalls) => "tool_calls",
            Some(FinishYaml::Stop) => "stop",
            None if calls.is_empty() => "stop",
            None => "tool_calls",
        };
        Self {
            model: prompt.model.clone(),
            usage: usage_object(usage, prompt_tokens, count(&pieces)),
            pieces,
            calls,
            finish_reason,
            is_streamed: prompt.is_streamed,
            includes_usage: prompt.includes_usage,
            pace,
            cutoff,
        }
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.is_streamed
    }

    pub(crate) fn into_event_stream(self) -> Body {
        let start = Instant::now();
        async_stream::stream! {
            let envelope = Envelope::new("chat.completion.chunk", &self);
            let mut sent_tokens = 0_u32;
            wait_until(start + self.pace.delay(0)).await;
            yield Ok(envelope.chunk(json!({ "role": "assistant", "content": "" }), None));
            for piece in &self.pieces {
                if self.cutoff.is_some_and(|cutoff| sent_tokens >= cutoff.after) {
                    break;
                }
                wait_until(start + self.pace.delay(sent_tokens)).await;
                yield Ok(envelope.chunk(self.delta(&piece.delta), None));
                sent_tokens = sent_tokens.saturating_add(piece.tokens);
            }
            match self.cutoff.map(|cutoff| cutoff.kind) {
                Some(CutoffKind::Disconnect) => {
                    yield Err(ConnectionLost);
                    return;
                }
                Some(CutoffKind::Garbage) => {
                    yield Ok(Bytes::from_static(GARBAGE));
                    return;
                }
                Some(CutoffKind::ErrorEvent) => {
                    yield Ok(event(&error_object()));
                    return;
                }
                None => {}
            }
            yield Ok(envelope.chunk(json!({}), Some(self.finish_reason)));
            if self.includes_usage {
                yield Ok(envelope.usage(&self.usage));
            }
            yield Ok(Bytes::from_static(b"data: [DONE]\n\n"));
        }
        .boxed()
    }

    pub(crate) fn into_document(self) -> Body {
        let start = Instant::now();
        async_stream::stream! {
            wait_until(start + self.pace.delay(count(&self.pieces))).await;
            let mut text = Bytes::from(self.completion().to_string());
            match self.cutoff.map(|cutoff| cutoff.kind) {
                Some(CutoffKind::Disconnect) => {
                    yield Ok(text.split_to(text.len() / 2));
                    yield Err(ConnectionLost);
                }
                Some(CutoffKind::Garbage) => yield Ok(Bytes::from_static(GARBAGE)),
                Some(CutoffKind::ErrorEvent) => yield Ok(error_object().to_string().into()),
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
        let or_null = |text: String| match text.is_empty() {
            true => Value::Null,
            false => Value::String(text),
        };
        let is_text_answer = refusal.is_empty() && calls.is_empty();
        let mut message = json!({
            "role": "assistant",
            "content": if is_text_answer { Value::String(text) } else { or_null(text) },
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
        let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": self.finish_reason });
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
    /// The time from the request until this number of tokens has been sent.
    fn delay(self, tokens: u32) -> Duration {
        let time = self
            .tokens_per_second
            .map(|rate| f64::from(tokens) / rate)
            .unwrap_or_default();
        let time = Duration::try_from_secs_f64(time).unwrap_or(MAX_WAIT);
        self.latency.saturating_add(time).min(MAX_WAIT)
    }
}

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

fn split(answer: Answer) -> (Vec<Piece>, Vec<StartedCall>) {
    let text_pieces = |text: &str, delta: &dyn Fn(String) -> Delta| -> Vec<Piece> {
        let piece = |TextPiece { text, tokens }| Piece {
            delta: delta(text),
            tokens,
        };
        tokens::split(text).into_iter().map(piece).collect()
    };
    let mut pieces = text_pieces(&answer.reasoning, &Delta::Reasoning);
    pieces.extend(text_pieces(&answer.text, &Delta::Text));
    pieces.extend(text_pieces(&answer.refusal, &Delta::Refusal));
    let mut calls = Vec::with_capacity(answer.calls.len());
    for (index, call) in answer.calls.into_iter().enumerate() {
        pieces.push(Piece {
            delta: Delta::Call(index),
            tokens: tokens::count(&call.name),
        });
        let arguments = |text| Delta::Arguments(index, text);
        pieces.extend(text_pieces(&call.arguments, &arguments));
        calls.push(StartedCall {
            id: id("call_", 24),
            name: call.name,
        });
    }
    (pieces, calls)
}

fn count(pieces: &[Piece]) -> u32 {
    pieces.iter().map(|piece| piece.tokens).sum()
}

/// The `usage` of an answer: what its rule states, else what was counted.
fn usage_object(stated: UsageYaml, prompt_tokens: u32, completion_tokens: u32) -> Value {
    let prompt_tokens = stated.prompt_tokens.unwrap_or(prompt_tokens);
    let completion_tokens = stated.completion_tokens.unwrap_or(completion_tokens);
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens.saturating_add(completion_tokens),
        "prompt_tokens_details": { "cached_tokens": stated.cached_tokens, "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": stated.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

fn id(prefix: &str, length: usize) -> String {
    let random = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    format!("{prefix}{}", &random[..length])
}
