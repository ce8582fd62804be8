//! One model turn as a state machine without I/O: events of the upstream go in, and the effects
//! that the run loop has to carry out come out.
//!
//! A turn may write text before it calls tools. That text is a message of its own, which has to be
//! stored before the calls: the turn waits with the first call for [`Turn::message_committed`].

pub(super) mod delta;
pub(super) mod replay;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::Timestamp;
use crate::domain::event::{ContentDelta, RunEvent, ToolCallDelta};
use crate::domain::ids::{self, AssistantId, FileId, MessageId, RunId, StepId, ThreadId};
use crate::domain::message::{Content, Message, MessageStatus, Role};
use crate::domain::run::{Run, RunConfig, Usage};
use crate::domain::run_step::{RunStep, StepDetails, StepStatus};
use crate::domain::tool::{ToolCall, ToolCallBody};
use crate::engine::annotate::Annotator;
use crate::engine::close::{end_message, end_step};
use crate::engine::tools::code_interpreter::argument::CodeArgument;
use crate::engine::tools::code_interpreter::definition as code_interpreter;
use crate::engine::tools::file_search::definition as file_search;
use crate::engine::turn::delta::{append_content, apply_call_delta};
use crate::models::{self, FinishReason, TurnEvent};

/// Where a turn takes times and new ids from.
pub(super) trait Source {
    /// Later than every time returned before.
    fn now(&mut self) -> Timestamp;

    fn message_id(&mut self) -> MessageId {
        MessageId::generate()
    }

    fn step_id(&mut self) -> StepId {
        StepId::generate()
    }

    fn call_id(&mut self) -> String {
        ids::tool_call_id()
    }
}

#[derive(Debug, Default)]
pub(super) struct TurnInput {
    pub(super) annotator: Annotator,
    pub(super) committed_message: Option<MessageId>,
    pub(super) images: Vec<FileId>,
    pub(super) next_search: usize,
}

#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Publish(Vec<RunEvent>),
    /// Commit this message, which ends before the turn's calls, then call
    /// [`Turn::message_committed`].
    CommitMessage(Box<CompletedMessage>),
    End(TurnEnd),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct CompletedMessage {
    pub(super) step: RunStep,
    pub(super) message: Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnEnd {
    Finished,
    OutOfTokens,
    Filtered,
    CallsTools,
}

/// The upstream sent a tool call whose index leaves a gap.
#[derive(Debug, thiserror::Error)]
#[error("the upstream skipped from tool call {expected} to {index}")]
pub(super) struct SkippedCall {
    expected: usize,
    index: usize,
}

#[derive(Debug)]
struct RunContext {
    run: RunId,
    thread: ThreadId,
    assistant: AssistantId,
    expires_at: Timestamp,
    config: Arc<RunConfig>,
}

#[derive(Debug)]
struct CallPiece {
    index: usize,
    id: Option<String>,
    name: Option<String>,
    arguments: String,
}

#[derive(Debug)]
pub(super) struct Turn {
    context: RunContext,
    annotator: Annotator,
    committed_message: Option<MessageId>,
    images: Vec<FileId>,
    next_search: usize,
    message: Option<(RunStep, Message)>,
    /// The first call, while the message before it is being committed.
    waiting_call: Option<CallPiece>,
    calls_step: Option<RunStep>,
    calls: Vec<ToolCall>,
    code_arguments: HashMap<usize, CodeArgument>,
    usage: Option<Usage>,
}

impl Turn {
    pub(super) fn new(run: &Run, input: TurnInput) -> Self {
        Self {
            context: RunContext {
                run: run.id.clone(),
                thread: run.thread.clone(),
                assistant: run.assistant.clone(),
                expires_at: run.state.expires_at,
                config: run.config.clone(),
            },
            annotator: input.annotator,
            committed_message: input.committed_message,
            images: input.images,
            next_search: input.next_search,
            message: None,
            waiting_call: None,
            calls_step: None,
            calls: Vec::new(),
            code_arguments: HashMap::new(),
            usage: None,
        }
    }

    pub(super) fn handle(
        &mut self,
        event: TurnEvent,
        source: &mut impl Source,
    ) -> Result<Vec<Effect>, SkippedCall> {
        Ok(match event {
            TurnEvent::Text(text) => publish(self.write(ContentDelta::Text(text), source)),
            TurnEvent::Refusal(text) => publish(self.write(ContentDelta::Refusal(text), source)),
            TurnEvent::Reasoning(_) => Vec::new(),
            TurnEvent::ToolCall {
                index,
                id,
                name,
                arguments,
            } => {
                let piece = CallPiece {
                    index,
                    id,
                    name,
                    arguments,
                };
                return self.call(piece, source);
            }
            TurnEvent::Usage(usage) => {
                self.usage = Some(from_upstream(usage));
                Vec::new()
            }
            TurnEvent::Finish(reason) => self.finish(reason, source),
        })
    }

    pub(super) fn message_committed(
        &mut self,
        source: &mut impl Source,
    ) -> Result<Vec<Effect>, SkippedCall> {
        if let Some((_, message)) = self.message.take() {
            self.committed_message = Some(message.id);
        }
        match self.waiting_call.take() {
            Some(piece) => self.append_call(piece, source).map(publish),
            None => Ok(Vec::new()),
        }
    }

    /// Appends to the message what was held back of it because it might have become a reference.
    pub(super) fn flush(&mut self) -> Vec<RunEvent> {
        let mut events = Vec::new();
        if let Some((_, message)) = &mut self.message {
            for delta in self.annotator.finish() {
                events.push(append(message, delta));
            }
        }
        events
    }

    /// Whether readers have seen anything of the turn. If not, it can be repeated.
    pub(super) fn has_begun(&self) -> bool {
        self.message.is_some() || self.calls_step.is_some()
    }

    pub(super) fn open_message(&self) -> Option<&(RunStep, Message)> {
        self.message.as_ref()
    }

    pub(super) fn open_calls(&self) -> Option<RunStep> {
        self.calls_step.as_ref().map(|step| RunStep {
            details: StepDetails::ToolCalls {
                calls: self.calls.clone(),
            },
            ..step.clone()
        })
    }

    pub(super) fn committed_message(&self) -> Option<&MessageId> {
        self.committed_message.as_ref()
    }

    pub(super) fn images(&self) -> &[FileId] {
        &self.images
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    pub(super) fn set_usage(&mut self, usage: Usage) {
        self.usage = Some(usage);
    }

    /// Everything the model wrote that is not committed, to count its tokens.
    pub(super) fn written(&self) -> String {
        let mut text = String::new();
        if let Some((_, message)) = &self.message {
            for part in &message.content {
                if let Content::Text { value, .. } | Content::Refusal { refusal: value } = part {
                    text.push_str(value);
                }
            }
        }
        for call in &self.calls {
            let (name, arguments) = match &call.body {
                ToolCallBody::Function(call) => (call.name.as_str(), &call.arguments),
                ToolCallBody::CodeInterpreter(call) => (code_interpreter::NAME, &call.input),
                ToolCallBody::FileSearch(call) => (file_search::NAME, &call.arguments),
            };
            text.push_str(name);
            text.push_str(arguments);
        }
        text
    }

    fn finish(&mut self, reason: FinishReason, source: &mut impl Source) -> Vec<Effect> {
        let mut events = self.flush();
        if !self.has_begun() && self.committed_message.is_some() {
            // The repeated turn made no tool calls. Its text was already committed, so that message
            // is the answer; the usage of this attempt has no step to be attached to.
            self.usage = Some(Usage::default());
        } else if !self.has_begun() {
            // Readers get a message even if the model wrote nothing.
            events.extend(self.write(ContentDelta::Text(String::new()), source));
        }
        let end = match reason {
            FinishReason::Length => TurnEnd::OutOfTokens,
            FinishReason::ContentFilter => TurnEnd::Filtered,
            FinishReason::Stop | FinishReason::ToolCalls if self.calls_step.is_some() => {
                TurnEnd::CallsTools
            }
            FinishReason::Stop | FinishReason::ToolCalls => TurnEnd::Finished,
        };
        let mut effects = publish(events);
        effects.push(Effect::End(end));
        effects
    }

    fn write(&mut self, delta: ContentDelta, source: &mut impl Source) -> Vec<RunEvent> {
        // Text after the calls of a turn has no place in the API: its message would have to stand
        // between the calls and their outputs. Text that is committed is not written again.
        if self.calls_step.is_some() || self.committed_message.is_some() {
            return Vec::new();
        }
        let mut events = Vec::new();
        if self.message.is_none() {
            let opened = self.open_new_message(source, &mut events);
            self.message = Some(opened);
        }
        let Some((_, message)) = &mut self.message else {
            return events;
        };
        match delta {
            ContentDelta::Text(text) if !text.is_empty() => {
                for delta in self.annotator.push(&text) {
                    events.push(append(message, delta));
                }
            }
            ContentDelta::Refusal(_) => {
                for delta in self.annotator.finish() {
                    events.push(append(message, delta));
                }
                events.push(append(message, delta));
            }
            ContentDelta::Text(_) | ContentDelta::Annotated { .. } | ContentDelta::Image(_) => {
                events.push(append(message, delta));
            }
        }
        events
    }

    fn open_new_message(
        &mut self,
        source: &mut impl Source,
        events: &mut Vec<RunEvent>,
    ) -> (RunStep, Message) {
        let id = source.message_id();
        let details = StepDetails::MessageCreation {
            message: id.clone(),
        };
        let step = self.open_step(details, source, events);
        let mut message = Message {
            id,
            thread: self.context.thread.clone(),
            created_at: source.now(),
            status: MessageStatus::InProgress,
            incomplete_reason: None,
            ended_at: None,
            role: Role::Assistant,
            content: Vec::new(),
            attachments: Vec::new(),
            assistant: Some(self.context.assistant.clone()),
            run: Some(self.context.run.clone()),
            metadata: Default::default(),
        };
        events.push(RunEvent::MessageCreated(Box::new(message.clone())));
        events.push(RunEvent::MessageInProgress(Box::new(message.clone())));
        for image in std::mem::take(&mut self.images) {
            events.push(append(&mut message, ContentDelta::Image(image)));
        }
        (step, message)
    }

    fn open_step(
        &self,
        details: StepDetails,
        source: &mut impl Source,
        events: &mut Vec<RunEvent>,
    ) -> RunStep {
        let step = RunStep {
            id: source.step_id(),
            run: self.context.run.clone(),
            thread: self.context.thread.clone(),
            assistant: self.context.assistant.clone(),
            created_at: source.now(),
            status: StepStatus::InProgress,
            expires_at: self.context.expires_at,
            ended_at: None,
            last_error: None,
            details,
            usage: None,
        };
        events.push(RunEvent::StepCreated(Box::new(step.clone())));
        events.push(RunEvent::StepInProgress(Box::new(step.clone())));
        step
    }

    fn call(
        &mut self,
        piece: CallPiece,
        source: &mut impl Source,
    ) -> Result<Vec<Effect>, SkippedCall> {
        if piece.index > 0 && !self.context.config.parallel_tool_calls {
            // Some upstreams send more calls although they were asked for one.
            return Ok(Vec::new());
        }
        let events = self.flush();
        let Some((step, message)) = &self.message else {
            return self.append_call(piece, source).map(publish);
        };
        let (mut step, mut message) = (step.clone(), message.clone());
        end_message(&mut message, source.now(), None);
        // The tokens of the turn are attached to the step of its calls.
        let usage = Usage::default();
        end_step(&mut step, source.now(), StepStatus::Completed, usage);
        self.waiting_call = Some(piece);
        let mut effects = publish(events);
        effects.push(Effect::CommitMessage(Box::new(CompletedMessage {
            step,
            message,
        })));
        Ok(effects)
    }

    fn append_call(
        &mut self,
        piece: CallPiece,
        source: &mut impl Source,
    ) -> Result<Vec<RunEvent>, SkippedCall> {
        let CallPiece {
            index,
            id,
            name,
            arguments,
        } = piece;
        let mut events = Vec::new();
        let step = match &self.calls_step {
            Some(step) => step.id.clone(),
            None => {
                let details = StepDetails::ToolCalls { calls: Vec::new() };
                let step = self.open_step(details, source, &mut events);
                self.calls_step.insert(step).id.clone()
            }
        };
        let delta_event = |delta| RunEvent::StepDelta {
            step: step.clone(),
            index,
            delta,
        };
        if index == self.calls.len() {
            let id = self.own_call_id(id, source);
            let delta = self.open_call(id, name.unwrap_or_default());
            events.push(delta_event(delta));
        }
        let expected = self.calls.len();
        let Some(call) = self.calls.get_mut(index) else {
            return Err(SkippedCall { expected, index });
        };
        let delta = match &mut call.body {
            ToolCallBody::Function(call) => {
                call.arguments.push_str(&arguments);
                Some(arguments)
                    .filter(|arguments| !arguments.is_empty())
                    .map(ToolCallDelta::FunctionArguments)
            }
            ToolCallBody::FileSearch(call) => {
                // The API does not show the queries of a search.
                call.arguments.push_str(&arguments);
                None
            }
            ToolCallBody::CodeInterpreter(call) => {
                let code = self.code_arguments.entry(index).or_default();
                let code = code.push(&arguments);
                call.input.push_str(&code);
                Some(code)
                    .filter(|code| !code.is_empty())
                    .map(ToolCallDelta::CodeInput)
            }
        };
        events.extend(delta.map(delta_event));
        Ok(events)
    }

    /// The upstream's id of a call if it looks like one of ours and is new in this turn, otherwise
    /// a new one.
    fn own_call_id(&self, upstream_id: Option<String>, source: &mut impl Source) -> String {
        let is_usable =
            |id: &String| id.starts_with("call_") && self.calls.iter().all(|call| call.id != *id);
        upstream_id
            .filter(is_usable)
            .unwrap_or_else(|| source.call_id())
    }

    fn open_call(&mut self, id: String, name: String) -> ToolCallDelta {
        let config = &self.context.config;
        let delta = if code_interpreter::is_call_to(config, &name) {
            ToolCallDelta::CodeBegan { id }
        } else if let Some(settings) = file_search::settings_of_call(config, &name) {
            ToolCallDelta::SearchBegan {
                id,
                ranker: settings.ranker,
                score_threshold: settings.score_threshold,
            }
        } else {
            ToolCallDelta::FunctionBegan { id, name }
        };
        let index = self.calls.len();
        apply_call_delta(&mut self.calls, index, delta.clone());
        if let Some(ToolCallBody::FileSearch(call)) = self.calls.last_mut().map(|it| &mut it.body) {
            call.ordinal = self.next_search;
            self.next_search += 1;
        }
        delta
    }
}

fn append(message: &mut Message, delta: ContentDelta) -> RunEvent {
    let first = append_content(&mut message.content, delta.clone());
    RunEvent::MessageDelta {
        message: message.id.clone(),
        index: message.content.len() - 1,
        first,
        delta,
    }
}

fn publish(events: Vec<RunEvent>) -> Vec<Effect> {
    match events.is_empty() {
        true => Vec::new(),
        false => vec![Effect::Publish(events)],
    }
}

fn from_upstream(usage: models::Usage) -> Usage {
    Usage {
        prompt: usage.prompt,
        completion: usage.completion,
        cached: usage.cached,
        reasoning: usage.reasoning,
    }
}
