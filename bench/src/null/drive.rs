//! Executes a run: one model turn, streamed as events if there is a reader.

use super::Call;
use super::Memory;
use super::Message;
use super::Run;
use super::objects;
use crate::http::CallError;
use crate::http::transport;
use crate::lines::Lines;
use axum::body::Bytes;
use http_body_util::BodyExt;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// The reader of a run's events; none for a polled run.
struct Events(Option<UnboundedSender<Bytes>>);

impl Events {
    /// Sends an event; its JSON is built only if there is a reader.
    fn send(&self, name: &str, data: impl FnOnce() -> String) {
        if let Some(sender) = &self.0 {
            // A reader that hangs up does not end the run.
            let _ = sender.send(format!("event: {name}\ndata: {}\n\n", data()).into());
        }
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Delta<'a>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_calls: Vec<CallDelta<'a>>,
}

#[derive(Deserialize)]
struct CallDelta<'a> {
    id: Option<&'a str>,
    #[serde(borrow)]
    function: FunctionDelta<'a>,
}

#[derive(Deserialize)]
struct FunctionDelta<'a> {
    name: Option<&'a str>,
    #[serde(borrow)]
    arguments: Cow<'a, str>,
}

/// Executes one turn of a queued run; it ends `completed`, `requires_action`, or `failed` if the upstream
/// fails.
pub(super) async fn drive(
    memory: Arc<Memory>,
    run: Arc<Run>,
    events: Option<UnboundedSender<Bytes>>,
) {
    let events = Events(events);
    let answered = run.progress.lock().call.clone();
    if let Some(call) = &answered {
        let id = memory.new_id("step");
        let step = objects::tool_step(&run, &id, "completed", Some(call));
        events.send("thread.run.step.completed", || step.clone());
        run.progress.lock().steps.push(step);
    } else {
        events.send("thread.run.created", || objects::run(&run));
    }
    events.send("thread.run.queued", || objects::run(&run));
    run.progress.lock().status = "in_progress";
    events.send("thread.run.in_progress", || objects::run(&run));

    let mut turn = Turn {
        memory: &memory,
        run: &run,
        events: &events,
        step: memory.new_id("step"),
        message: memory.new_id("msg"),
        text: String::new(),
        call: None,
    };
    let outcome = turn.take(answered.as_ref()).await;
    let status = match outcome {
        Ok(()) => turn.end(),
        Err(_) => "failed",
    };
    run.progress.lock().status = status;
    events.send(&format!("thread.run.{status}"), || objects::run(&run));
    events.send("done", || "[DONE]".to_owned());
}

struct Turn<'a> {
    memory: &'a Memory,
    run: &'a Run,
    events: &'a Events,
    step: String,
    message: String,
    text: String,
    call: Option<Call>,
}

impl Turn<'_> {
    async fn take(&mut self, answered: Option<&Call>) -> Result<(), CallError> {
        let path = "/v1/chat/completions";
        let request = self.request(answered);
        let mut body = self.memory.upstream.open(path, request).await?;
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| transport(path, &error))?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            lines.feed(&bytes, |line| {
                if let Some(data) = line.strip_prefix(b"data: ")
                    && let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data)
                    && let Some(choice) = chunk.choices.into_iter().next()
                {
                    self.apply(choice.delta);
                }
            });
        }
        Ok(())
    }

    fn request(&self, answered: Option<&Call>) -> String {
        let assistant = &self.run.assistant;
        let mut body = format!(
            r#"{{"model":"{}","stream":true,"stream_options":{{"include_usage":true}},"#,
            assistant.model
        );
        if assistant.tools != "[]" {
            body.push_str(r#""tools":"#);
            body.push_str(&assistant.tools);
            body.push(',');
        }
        body.push_str(r#""messages":["#);
        for (n, message) in self.run.messages.lock().iter().enumerate() {
            if n > 0 {
                body.push(',');
            }
            let (role, text) = (message.role, objects::quoted(&message.text));
            body.push_str(&format!(r#"{{"role":"{role}","content":{text}}}"#));
        }
        if let Some(call) = answered {
            let Call {
                id,
                name,
                arguments,
                output,
            } = call;
            let arguments = objects::quoted(arguments);
            let output = objects::quoted(output.as_deref().unwrap_or_default());
            body.push_str(&format!(
                r#",{{"role":"assistant","tool_calls":[{{"id":"{id}","type":"function","function":{{"name":"{name}","arguments":{arguments}}}}}]}},{{"role":"tool","tool_call_id":"{id}","content":{output}}}"#
            ));
        }
        body.push_str("]}");
        body
    }

    fn apply(&mut self, delta: Delta<'_>) {
        for part in delta.tool_calls {
            self.apply_call(part);
        }
        let Some(piece) = delta.content.filter(|piece| !piece.is_empty()) else {
            return;
        };
        let first = self.text.is_empty();
        if first {
            for name in ["thread.run.step.created", "thread.run.step.in_progress"] {
                self.events.send(name, || {
                    objects::message_step(self.run, &self.step, "in_progress", &self.message)
                });
            }
            for name in ["thread.message.created", "thread.message.in_progress"] {
                self.events
                    .send(name, || objects::empty_message(self.run, &self.message));
            }
        }
        self.events.send("thread.message.delta", || {
            objects::message_delta(&self.message, first, &piece)
        });
        self.text.push_str(&piece);
    }

    fn apply_call(&mut self, part: CallDelta<'_>) {
        let arguments = part.function.arguments;
        let event = "thread.run.step.delta";
        if let Some(call) = &mut self.call {
            call.arguments.push_str(&arguments);
            self.events.send(event, || {
                let arguments = objects::quoted(&arguments);
                objects::tool_delta(
                    &self.step,
                    &format!(
                        r#"{{"index":0,"type":"function","function":{{"arguments":{arguments}}}}}"#
                    ),
                )
            });
            return;
        }
        for name in ["thread.run.step.created", "thread.run.step.in_progress"] {
            self.events.send(name, || {
                objects::tool_step(self.run, &self.step, "in_progress", None)
            });
        }
        let call = Call {
            id: part.id.unwrap_or_default().to_owned(),
            name: part.function.name.unwrap_or_default().to_owned(),
            arguments: arguments.into_owned(),
            output: None,
        };
        self.events.send(event, || {
            let Call { id, name, .. } = &call;
            objects::tool_delta(&self.step, &format!(
                r#"{{"index":0,"id":"{id}","type":"function","function":{{"name":"{name}","arguments":"","output":null}}}}"#
            ))
        });
        self.call = Some(call);
    }

    /// Stores the turn's results; the run's next status.
    fn end(self) -> &'static str {
        if let Some(call) = self.call {
            self.run.progress.lock().call = Some(call);
            return "requires_action";
        }
        let Run { id, thread, .. } = self.run;
        self.events.send("thread.message.completed", || {
            objects::message(thread, &self.message, "assistant", &self.text, Some(id))
        });
        let step = objects::message_step(self.run, &self.step, "completed", &self.message);
        self.events
            .send("thread.run.step.completed", || step.clone());
        self.run.progress.lock().steps.push(step);
        self.run.messages.lock().push(Message {
            id: self.message,
            role: "assistant",
            text: self.text,
            run: Some(id.clone()),
        });
        "completed"
    }
}
