//! Scripted models as their users meet them: a script, requests, and what comes back.

use std::sync::LazyLock;
use std::time::Duration;

use futures::StreamExt;
use scripted_model::{BUNDLED_SCRIPT, DEFAULT_MODEL, Response, ScriptedModels};
use serde_json::{Value, json};

mod analyst;
mod answers;
mod bundled;
mod faults;
mod librarian;
mod rules;
mod scripts;

#[derive(Debug, Default, PartialEq)]
struct Answer {
    text: String,
    text_deltas: usize,
    refusal: String,
    reasoning: String,
    calls: Vec<(String, String)>,
    usage: Value,
    finish_reason: Option<String>,
    failure: Option<Failure>,
}

#[derive(Debug, PartialEq)]
enum Failure {
    Status(u16, Value, Option<Duration>),
    ErrorEvent(Value),
    Garbage,
    ConnectionLost,
}

fn script(yaml: &str) -> ScriptedModels {
    ScriptedModels::parse(yaml, "test").expect("the script of a test is valid")
}

fn rules(yaml: &str) -> ScriptedModels {
    let indented: String = yaml.lines().map(|line| format!("      {line}\n")).collect();
    script(&format!("models:\n  t:\n    rules:\n{indented}"))
}

/// The bundled script at full speed.
fn bundled() -> ScriptedModels {
    static MODELS: LazyLock<ScriptedModels> = LazyLock::new(|| {
        let is_pace =
            |line: &&str| line.contains("latency: ") || line.contains("tokens_per_second: ");
        let lines = BUNDLED_SCRIPT.lines().filter(|line| !is_pace(line));
        script(&lines.collect::<Vec<_>>().join("\n"))
    });
    MODELS.clone()
}

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

fn function(name: &str, parameters: Value) -> Value {
    json!({ "type": "function", "function": { "name": name, "description": "", "parameters": parameters } })
}

/// The number of words of the messages, which stands for that of their tokens.
fn prompt_tokens(request: &Value) -> u32 {
    let messages = request["messages"].as_array().into_iter().flatten();
    let texts = messages.filter_map(|message| message["content"].as_str());
    texts
        .map(|text| text.split_whitespace().count() as u32)
        .sum()
}

fn send(models: &ScriptedModels, request: &Value) -> Response {
    models.chat(request, prompt_tokens(request))
}

async fn read(response: Response) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let mut body = response.body;
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|_| Failure::ConnectionLost)?);
    }
    String::from_utf8(bytes).map_err(|_| Failure::Garbage)
}

async fn ask(models: &ScriptedModels, mut request: Value) -> Answer {
    request["stream"] = json!(true);
    request["stream_options"] = json!({ "include_usage": true });
    if request["model"].is_null() {
        request["model"] = json!("scripted/t");
    }
    let response = send(models, &request);
    let mut answer = Answer::default();
    if response.status != 200 {
        let (status, retry_after) = (response.status, response.retry_after);
        let body = read(response).await.expect("an error answer is complete");
        let body: Value = serde_json::from_str(&body).expect("an error answer is JSON");
        answer.failure = Some(Failure::Status(status, body["error"].clone(), retry_after));
        return answer;
    }
    assert_eq!(response.content_type, "text/event-stream");
    let mut body = response.body;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(event) => answer.add(&event),
            Err(_) => answer.failure = Some(Failure::ConnectionLost),
        }
    }
    answer
}

impl Answer {
    /// Adds an event; a chunk of the body is a whole one.
    fn add(&mut self, event: &[u8]) {
        let Ok(event) = std::str::from_utf8(event) else {
            self.failure = Some(Failure::Garbage);
            return;
        };
        let data = event.strip_prefix("data: ").expect("events have data only");
        if data.trim_end() == "[DONE]" {
            return;
        }
        let chunk: Value = serde_json::from_str(data).expect("data is JSON");
        if chunk.get("error").is_some() {
            self.failure = Some(Failure::ErrorEvent(chunk["error"].clone()));
            return;
        }
        if let Some(usage) = chunk.get("usage") {
            self.usage = usage.clone();
        }
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        if let Some(text) = delta["content"].as_str().filter(|text| !text.is_empty()) {
            self.text.push_str(text);
            self.text_deltas += 1;
        }
        self.refusal
            .push_str(delta["refusal"].as_str().unwrap_or_default());
        let reasoning = delta["reasoning_content"].as_str();
        self.reasoning.push_str(reasoning.unwrap_or_default());
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            if let Some(name) = function["name"].as_str() {
                self.calls.push((name.to_owned(), String::new()));
            }
            let index = call["index"].as_u64().expect("calls are numbered") as usize;
            let arguments = function["arguments"].as_str().expect("arguments are text");
            self.calls[index].1.push_str(arguments);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
    }

    fn status(&self) -> Option<u16> {
        match self.failure {
            Some(Failure::Status(status, _, _)) => Some(status),
            _ => None,
        }
    }

    fn error(&self) -> &Value {
        match &self.failure {
            Some(Failure::Status(_, error, _)) => error,
            _ => panic!("not an error: {self:?}"),
        }
    }

    fn finish(&self) -> &str {
        self.finish_reason.as_deref().unwrap_or_default()
    }
}

async fn text(models: &ScriptedModels, request: Value) -> String {
    ask(models, request).await.text
}
