//! A fake Chat Completions upstream; the model's name decides its speed.
//!
//! Every token is a [`Stamp`]. A request with tools whose last message is no tool result is answered
//! with a call of the first function. Embeddings are derived from the text.

use crate::clock;
use crate::retrieval;
use crate::stamp::Stamp;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::stream;
use serde::Deserialize;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The speed and length of an answer. Its text form is a model name.
///
/// The name starts like a known model's, so that a server counts tokens and looks up the context window
/// as in production.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Milliseconds from the request to the first token.
    pub(crate) first_ms: u64,
    /// Milliseconds from one token to the next.
    pub(crate) gap_ms: u64,
    /// Tokens in the answer, at least 1.
    pub(crate) tokens: u64,
}

impl Pace {
    /// An answer without delays.
    pub(crate) const fn instant(tokens: u64) -> Self {
        Self {
            first_ms: 0,
            gap_ms: 0,
            tokens,
        }
    }

    /// The duration of the whole answer.
    pub(crate) const fn duration(self) -> Duration {
        Duration::from_millis(self.first_ms + self.gap_ms * (self.tokens - 1))
    }

    fn due(self, start: Instant, token: u64) -> Instant {
        start + Duration::from_millis(self.first_ms + self.gap_ms * token)
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            first_ms,
            gap_ms,
            tokens,
        } = self;
        write!(f, "gpt-4o-bench-{first_ms}-{gap_ms}-{tokens}")
    }
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut numbers = name.rsplit('-').map(str::parse::<u64>);
        let mut number = || numbers.next().and_then(Result::ok);
        // Parsed from the end.
        match (number(), number(), number()) {
            (Some(tokens @ 1..), Some(gap_ms), Some(first_ms)) => Ok(Self {
                first_ms,
                gap_ms,
                tokens,
            }),
            _ => Err(format!(
                "model '{name}' does not end in FIRST_MS-GAP_MS-TOKENS"
            )),
        }
    }
}

/// The routes: `POST /v1/chat/completions`, `POST /v1/embeddings`, and `GET /calls` with the number
/// of completions so far.
pub(crate) fn router() -> Router {
    let calls = Arc::new(AtomicU64::new(0));
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/embeddings", post(embed))
        .route("/calls", get(count))
        .layer(DefaultBodyLimit::max(64 << 20))
        .with_state(calls)
}

async fn count(State(calls): State<Arc<AtomicU64>>) -> String {
    calls.load(Ordering::Relaxed).to_string()
}

#[derive(Deserialize)]
struct Completion {
    model: String,
    #[serde(default)]
    stream: bool,
    messages: Vec<Message>,
    tools: Option<Vec<Tool>>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
}

#[derive(Deserialize)]
struct Tool {
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
}

async fn complete(State(calls): State<Arc<AtomicU64>>, body: Bytes) -> Response {
    let arrived = clock::now_ns();
    let start = Instant::now();
    let number = calls.fetch_add(1, Ordering::Relaxed);
    let request: Completion = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(&error.to_string()),
    };
    let pace: Pace = match request.model.parse() {
        Ok(pace) => pace,
        Err(error) => return refuse(&error),
    };
    if !request.stream {
        return refuse("only streamed completions are served");
    }
    let answered = request.messages.last().is_some_and(|m| m.role == "tool");
    let body = match request.tools.as_deref().and_then(<[Tool]>::first) {
        Some(tool) if !answered => {
            sleep_until(pace.due(start, 0)).await;
            Body::from(call_function(&tool.function.name, number))
        }
        _ => {
            let answer = Answer {
                pace,
                start,
                arrived,
                messages: request.messages.len() as u64,
            };
            answer.into_body().await
        }
    };
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// Answers with vectors derived from the texts.
async fn embed(body: Bytes) -> Response {
    #[derive(Deserialize)]
    struct Embeddings {
        model: String,
        input: Vec<String>,
    }
    let request: Embeddings = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(&error.to_string()),
    };
    let mut answer = String::from(r#"{"object":"list","data":["#);
    for (index, text) in request.input.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        answer.push_str(comma);
        answer.push_str(r#"{"object":"embedding","embedding":"#);
        retrieval::write_vector(&retrieval::vector_of(text), &mut answer);
        answer.push_str(&format!(r#","index":{index}}}"#));
    }
    let model = serde_json::Value::from(request.model);
    answer.push_str(&format!(
        r#"],"model":{model},"usage":{{"prompt_tokens":1,"total_tokens":1}}}}"#
    ));
    ([(CONTENT_TYPE, "application/json")], answer).into_response()
}

fn refuse(message: &str) -> Response {
    let error = serde_json::json!({"error": {
        "message": message, "type": "invalid_request_error", "param": null, "code": null,
    }});
    (StatusCode::BAD_REQUEST, axum::Json(error)).into_response()
}

struct Answer {
    pace: Pace,
    start: Instant,
    arrived: u64,
    messages: u64,
}

impl Answer {
    async fn into_body(self) -> Body {
        if self.pace.duration().is_zero() {
            let mut whole = String::new();
            for token in 0..self.pace.tokens {
                self.push(token, &mut whole);
            }
            return Body::from(whole);
        }
        // Headers are sent with the first token, as most servers do.
        sleep_until(self.pace.due(self.start, 0)).await;
        Body::from_stream(stream::unfold((self, 0), |(answer, token)| async move {
            if token == answer.pace.tokens {
                return None;
            }
            sleep_until(answer.pace.due(answer.start, token)).await;
            let mut text = String::new();
            answer.push(token, &mut text);
            Some((Ok::<_, Infallible>(text), (answer, token + 1)))
        }))
    }

    /// Appends a token's event, and after the last token the end of the answer.
    fn push(&self, token: u64, out: &mut String) {
        let sent = clock::now_ns();
        let stamp = match token {
            0 => Stamp::First {
                arrived: self.arrived,
                sent,
                messages: self.messages,
            },
            _ => Stamp::Next { sent },
        };
        out.push_str(CHUNK);
        out.push_str(r#""choices":[{"index":0,"delta":{"#);
        if token == 0 {
            out.push_str(r#""role":"assistant","#);
        }
        out.push_str(r#""content":""#);
        stamp.write(out);
        out.push_str("\"},\"finish_reason\":null}]}\n\n");
        if token + 1 == self.pace.tokens {
            finish("stop", self.pace.tokens, out);
        }
    }
}

const CHUNK: &str = concat!(
    r#"data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1,"#,
    r#""model":"bench","#
);

fn finish(reason: &str, tokens: u64, out: &mut String) {
    let total = 30 + tokens;
    out.push_str(&format!(
        "{CHUNK}\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"{reason}\"}}]}}\n\n\
         {CHUNK}\"choices\":[],\"usage\":{{\"prompt_tokens\":30,\"completion_tokens\":{tokens},\
         \"total_tokens\":{total}}}}}\n\ndata: [DONE]\n\n"
    ));
}

/// The function name of assistd's sandbox.
const CODE_INTERPRETER: &str = "code_interpreter";

fn call_function(name: &str, number: u64) -> String {
    let mut out = format!(
        "{CHUNK}\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"tool_calls\":[{{\
         \"index\":0,\"id\":\"call_{number:024}\",\"type\":\"function\",\
         \"function\":{{\"name\":\"{name}\",\"arguments\":\"\"}}}}]}},\"finish_reason\":null}}]}}\n\n"
    );
    let pieces = match name {
        CODE_INTERPRETER => [r#"{\"code\":"#, r#"\"1+1\"}"#],
        _ => [r#"{\"city\":"#, r#"\"Oslo\"}"#],
    };
    for piece in pieces {
        out.push_str(&format!(
            "{CHUNK}\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{{\"index\":0,\
             \"function\":{{\"arguments\":\"{piece}\"}}}}]}},\"finish_reason\":null}}]}}\n\n"
        ));
    }
    finish("tool_calls", 12, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_read_back_from_its_model_name() {
        let pace = Pace {
            first_ms: 200,
            gap_ms: 20,
            tokens: 100,
        };
        assert_eq!(pace.to_string().parse(), Ok(pace));
        assert!("gpt-4o".parse::<Pace>().is_err());
        assert!("gpt-4o-bench-0-0-0".parse::<Pace>().is_err());
    }

    #[test]
    fn every_event_of_an_answer_is_json() {
        let answer = Answer {
            pace: Pace::instant(3),
            start: Instant::now(),
            arrived: 1,
            messages: 2,
        };
        let mut out = call_function("get_weather", 1);
        out.push_str(&call_function(CODE_INTERPRETER, 2));
        (0..3).for_each(|token| answer.push(token, &mut out));
        let events = out.split("\n\n").filter(|e| !e.is_empty());
        for event in events {
            let data = event.strip_prefix("data: ").expect("an event has one line");
            if data != "[DONE]" {
                serde_json::from_str::<serde::de::IgnoredAny>(data).expect(data);
            }
        }
    }
}
