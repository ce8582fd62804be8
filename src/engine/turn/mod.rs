//! One model turn: the upstream's pieces become steps, messages and events.

use std::collections::HashMap;

use futures::StreamExt;

use crate::domain::event::{ContentDelta, RunEvent, ToolCallDelta};
use crate::domain::ids::{self, MessageId, StepId};
use crate::domain::message::{Content, IncompleteReason, Message, MessageStatus, Role};
use crate::domain::run::Usage;
use crate::domain::run_step::{RunStep, StepDetails, StepStatus};
use crate::domain::tool::{CodeCall, FunctionCall, SearchCall, ToolCall, ToolCallBody};
use crate::engine::annotate::Annotator;
use crate::engine::run_loop::{Driver, Halt};
use crate::engine::tools::code_interpreter::argument::CodeArgument;
use crate::engine::tools::code_interpreter::definition as code_interpreter;
use crate::engine::tools::file_search::definition::{self as file_search, Settings};
use crate::models::{self, FinishReason, TurnEvent, TurnStream, UpstreamError, tokens};

/// What has come of a turn so far.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The message being written, with its step.
    pub(super) message: Option<(RunStep, Message)>,
    /// The step of the calls being written.
    pub(super) calls: Option<RunStep>,
    /// That step once it is stored and its built-in tools are at work.
    pub(super) running: Option<RunStep>,
    /// What the upstream says it cost.
    pub(super) usage: Option<Usage>,
    /// What the prompt was cut to, for counting it should the upstream not do so.
    pub(super) budget: Option<u32>,
    /// Finds references in the message.
    pub(super) annotator: Annotator,
    /// Reads the code out of the arguments, call by call.
    code: HashMap<usize, CodeArgument>,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// The model has said what it had to say.
    Finished,
    /// A token limit cut it off.
    OutOfTokens,
    /// A content filter cut it off.
    Filtered,
    /// It waits for the outputs of its calls.
    WantsTools,
}

impl Turn {
    /// Whether anything was shown to readers.
    pub(super) fn has_begun(&self) -> bool {
        self.message.is_some() || self.calls.is_some()
    }

    /// Everything the model wrote that is still open.
    fn written(&self) -> String {
        let mut text = String::new();
        if let Some((_, message)) = &self.message {
            for part in &message.content {
                if let Content::Text { value, .. } | Content::Refusal { refusal: value } = part {
                    text.push_str(value);
                }
            }
        }
        if let Some(RunStep {
            details: StepDetails::ToolCalls { calls },
            ..
        }) = &self.calls
        {
            for call in calls {
                match &call.body {
                    ToolCallBody::Function(call) => {
                        text.push_str(&call.name);
                        text.push_str(&call.arguments);
                    }
                    ToolCallBody::CodeInterpreter(call) => {
                        text.push_str(code_interpreter::NAME);
                        text.push_str(&call.input);
                    }
                    ToolCallBody::FileSearch(call) => {
                        text.push_str(file_search::NAME);
                        text.push_str(&call.arguments);
                    }
                }
            }
        }
        text
    }
}

impl Driver {
    /// Reads a model's answer to its end. An error of the upstream's is the inner result.
    pub(super) async fn read(
        &mut self,
        turn: &mut Turn,
        mut answer: TurnStream,
    ) -> Result<Result<TurnEnd, UpstreamError>, Halt> {
        loop {
            let event = match self.interruptible(answer.next()).await? {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Ok(Err(error)),
                None => {
                    let message = "The model's answer ended before it was complete.".to_owned();
                    return Ok(Err(UpstreamError::Broken { message }));
                }
            };
            match event {
                TurnEvent::Text(text) => self.write(turn, ContentDelta::Text(text)),
                TurnEvent::Refusal(text) => self.write(turn, ContentDelta::Refusal(text)),
                TurnEvent::Reasoning(_) => {}
                TurnEvent::ToolCall {
                    index,
                    id,
                    name,
                    arguments,
                } => {
                    self.call(turn, index, id, name, arguments).await?;
                }
                TurnEvent::Usage(usage) => turn.usage = Some(from_upstream(usage)),
                TurnEvent::Finish(reason) => {
                    drop(answer);
                    return self.finish_turn(turn, reason).await.map(Ok);
                }
            }
        }
    }

    async fn finish_turn(
        &mut self,
        turn: &mut Turn,
        reason: FinishReason,
    ) -> Result<TurnEnd, Halt> {
        self.flush(turn);
        if turn.usage.is_none() {
            turn.usage = Some(self.count(turn).await?);
        }
        if !turn.has_begun() && self.said.is_some() {
            // Done again, the turn calls nothing this time: what it said before is the answer,
            // and there is no step that could tell what this one cost.
            turn.usage = Some(Usage::default());
        } else if !turn.has_begun() {
            // A model may say nothing; readers still get a message, if an empty one.
            self.write(turn, ContentDelta::Text(String::new()));
        }
        Ok(match reason {
            FinishReason::Length => TurnEnd::OutOfTokens,
            FinishReason::ContentFilter => TurnEnd::Filtered,
            FinishReason::Stop | FinishReason::ToolCalls if turn.calls.is_some() => {
                TurnEnd::WantsTools
            }
            FinishReason::Stop | FinishReason::ToolCalls => TurnEnd::Finished,
        })
    }

    /// Appends to the turn's message, which begins with its first piece.
    fn write(&mut self, turn: &mut Turn, delta: ContentDelta) {
        if turn.calls.is_some() || self.said.is_some() {
            // Talk after the calls of a turn has no place in the API: its message would have to
            // come between the calls and their outputs. And nothing is said twice.
            return;
        }
        let (_, message) = turn.message.get_or_insert_with(|| self.open_message());
        match delta {
            ContentDelta::Text(text) if !text.is_empty() => {
                for piece in turn.annotator.push(&text) {
                    self.append(message, piece);
                }
            }
            ContentDelta::Refusal(_) => {
                for piece in turn.annotator.finish() {
                    self.append(message, piece);
                }
                self.append(message, delta);
            }
            ContentDelta::Text(_) | ContentDelta::Annotated { .. } | ContentDelta::Image(_) => {
                self.append(message, delta);
            }
        }
    }

    /// Shows what was held back of the turn's message, now that no more text comes.
    pub(super) fn flush(&mut self, turn: &mut Turn) {
        if let Some((_, message)) = &mut turn.message {
            for piece in turn.annotator.finish() {
                self.append(message, piece);
            }
        }
    }

    fn append(&mut self, message: &mut Message, delta: ContentDelta) {
        let first = append(&mut message.content, delta.clone());
        let index = message.content.len() - 1;
        let message = message.id.clone();
        self.publisher.publish([RunEvent::MessageDelta {
            message,
            index,
            first,
            delta,
        }]);
    }

    fn open_message(&mut self) -> (RunStep, Message) {
        let id = MessageId::generate();
        let step = self.open_step(StepDetails::MessageCreation {
            message: id.clone(),
        });
        let mut message = Message {
            id,
            thread: self.run.thread.clone(),
            created_at: self.clock.now(),
            status: MessageStatus::InProgress,
            incomplete_reason: None,
            ended_at: None,
            role: Role::Assistant,
            content: Vec::new(),
            attachments: Vec::new(),
            assistant: Some(self.run.assistant.clone()),
            run: Some(self.run.id.clone()),
            metadata: Default::default(),
        };
        self.publisher.publish([
            RunEvent::MessageCreated(Box::new(message.clone())),
            RunEvent::MessageInProgress(Box::new(message.clone())),
        ]);
        for image in std::mem::take(&mut self.images) {
            self.append(&mut message, ContentDelta::Image(image));
        }
        (step, message)
    }

    fn open_step(&mut self, details: StepDetails) -> RunStep {
        let step = RunStep {
            id: StepId::generate(),
            run: self.run.id.clone(),
            thread: self.run.thread.clone(),
            assistant: self.run.assistant.clone(),
            created_at: self.clock.now(),
            status: StepStatus::InProgress,
            expires_at: self.run.state.expires_at,
            ended_at: None,
            last_error: None,
            details,
            usage: None,
        };
        self.publisher.publish([
            RunEvent::StepCreated(Box::new(step.clone())),
            RunEvent::StepInProgress(Box::new(step.clone())),
        ]);
        step
    }

    /// Appends to a call. The first call of a turn ends the message before it.
    async fn call(
        &mut self,
        turn: &mut Turn,
        index: usize,
        id: Option<String>,
        name: Option<String>,
        arguments: String,
    ) -> Result<(), Halt> {
        if index > 0 && !self.run.config.parallel_tool_calls {
            // Asked for one call a turn, some servers send more all the same.
            return Ok(());
        }
        self.flush(turn);
        if let Some((step, message)) = turn.message.take() {
            self.end_message_before_calls(step, message).await?;
        }
        if turn.calls.is_none() {
            turn.calls = Some(self.open_step(StepDetails::ToolCalls { calls: Vec::new() }));
        }
        let Some(RunStep {
            id: step,
            details: StepDetails::ToolCalls { calls },
            ..
        }) = &mut turn.calls
        else {
            return Err(Halt::internal(&"a step of calls holds none"));
        };
        let mut events = Vec::new();
        if index == calls.len() {
            let name = name.unwrap_or_default();
            // Ids of upstreams are kept where they look like ours and are new in this turn.
            let id = id
                .filter(|id| id.starts_with("call_") && calls.iter().all(|call| call.id != *id))
                .unwrap_or_else(ids::tool_call_id);
            let (began, body) = if code_interpreter::is_meant(&self.run.config, &name) {
                turn.code.insert(index, CodeArgument::default());
                let began = ToolCallDelta::CodeBegan { id: id.clone() };
                (began, ToolCallBody::CodeInterpreter(CodeCall::default()))
            } else if let Some(settings) = self.search_settings(&name) {
                let Settings {
                    ranker,
                    score_threshold,
                    ..
                } = settings;
                let began = ToolCallDelta::SearchBegan {
                    id: id.clone(),
                    ranker: ranker.clone(),
                    score_threshold,
                };
                let call = SearchCall {
                    arguments: String::new(),
                    ranker,
                    score_threshold,
                    place: self.next_search(),
                    results: None,
                };
                (began, ToolCallBody::FileSearch(call))
            } else {
                let began = ToolCallDelta::FunctionBegan {
                    id: id.clone(),
                    name: name.clone(),
                };
                let call = FunctionCall {
                    name,
                    arguments: String::new(),
                    output: None,
                };
                (began, ToolCallBody::Function(call))
            };
            events.push(RunEvent::StepDelta {
                step: step.clone(),
                index,
                delta: began,
            });
            calls.push(ToolCall { id, body });
        }
        let Some(call) = calls.get_mut(index) else {
            return Err(Halt::internal(&"the upstream skipped a tool call"));
        };
        let (written, delta) = match &mut call.body {
            ToolCallBody::Function(call) => {
                call.arguments.push_str(&arguments);
                (
                    !arguments.is_empty(),
                    ToolCallDelta::FunctionArguments(arguments),
                )
            }
            ToolCallBody::FileSearch(call) => {
                // Clients are not shown what is searched for.
                call.arguments.push_str(&arguments);
                (false, ToolCallDelta::FunctionArguments(arguments))
            }
            ToolCallBody::CodeInterpreter(call) => {
                let code = turn.code.entry(index).or_default().push(&arguments);
                call.input.push_str(&code);
                (!code.is_empty(), ToolCallDelta::CodeInput(code))
            }
        };
        if written {
            events.push(RunEvent::StepDelta {
                step: step.clone(),
                index,
                delta,
            });
        }
        self.publisher.publish(events);
        Ok(())
    }

    /// Counts what the upstream did not: exact for known vocabularies, an estimate otherwise.
    pub(super) async fn count(&mut self, turn: &Turn) -> Result<Usage, Halt> {
        let model = self.run.config.model.clone();
        tokens::ready(&model).await;
        Ok(Usage {
            prompt: self.count_prompt(turn.budget).await?,
            completion: tokens::count_text(&model, &turn.written()),
            ..Usage::default()
        })
    }
}

/// Appends to a message's content; whether a new part began.
pub(super) fn append(content: &mut Vec<Content>, delta: ContentDelta) -> bool {
    match (content.last_mut(), delta) {
        (Some(Content::Text { value, .. }), ContentDelta::Text(more)) => value.push_str(&more),
        (
            Some(Content::Text { value, annotations }),
            ContentDelta::Annotated { annotation, .. },
        ) => {
            value.push_str(&annotation.text);
            annotations.push(annotation);
        }
        (Some(Content::Refusal { refusal }), ContentDelta::Refusal(more)) => {
            refusal.push_str(&more);
        }
        (_, delta) => {
            content.push(match delta {
                ContentDelta::Text(text) => Content::text(text),
                ContentDelta::Annotated { annotation, .. } => Content::Text {
                    value: annotation.text.clone(),
                    annotations: vec![annotation],
                },
                ContentDelta::Refusal(refusal) => Content::Refusal { refusal },
                ContentDelta::Image(file) => Content::ImageFile { file, detail: None },
            });
            return true;
        }
    }
    false
}

/// Marks a message as ended.
pub(super) fn end_message(
    message: &mut Message,
    at: crate::domain::Timestamp,
    reason: Option<IncompleteReason>,
) {
    message.status = match reason {
        None => MessageStatus::Completed,
        Some(_) => MessageStatus::Incomplete,
    };
    message.incomplete_reason = reason;
    message.ended_at = Some(at);
}

fn from_upstream(usage: models::Usage) -> Usage {
    Usage {
        prompt: usage.prompt,
        completion: usage.completion,
        cached: usage.cached,
        reasoning: usage.reasoning,
    }
}
