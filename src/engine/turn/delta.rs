//! Applies deltas to the objects that they are part of.

use crate::domain::event::{ContentDelta, ToolCallDelta};
use crate::domain::message::Content;
use crate::domain::tool::{CodeCall, CodeOutput, FunctionCall, SearchCall, ToolCall, ToolCallBody};

/// Appends to a message's content, and returns whether a new part began.
pub(in crate::engine) fn append_content(content: &mut Vec<Content>, delta: ContentDelta) -> bool {
    match (content.last_mut(), delta) {
        (Some(Content::Text { value, .. }), ContentDelta::Text(text)) => value.push_str(&text),
        (
            Some(Content::Text { value, annotations }),
            ContentDelta::Annotated { annotation, .. },
        ) => {
            value.push_str(&annotation.text);
            annotations.push(annotation);
        }
        (Some(Content::Refusal { refusal }), ContentDelta::Refusal(text)) => {
            refusal.push_str(&text);
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

pub(in crate::engine) fn apply_call_delta(
    calls: &mut Vec<ToolCall>,
    index: usize,
    delta: ToolCallDelta,
) {
    let (id, body) = match delta {
        ToolCallDelta::FunctionBegan { id, name } => {
            let call = FunctionCall {
                name,
                arguments: String::new(),
                output: None,
            };
            (id, ToolCallBody::Function(call))
        }
        ToolCallDelta::SearchBegan {
            id,
            ranker,
            score_threshold,
        } => {
            let call = SearchCall {
                arguments: String::new(),
                ranker,
                score_threshold,
                ordinal: 0,
                results: None,
            };
            (id, ToolCallBody::FileSearch(call))
        }
        ToolCallDelta::CodeBegan { id } => (id, ToolCallBody::CodeInterpreter(CodeCall::default())),
        delta => {
            if let Some(call) = calls.get_mut(index) {
                append_to_call(&mut call.body, delta);
            }
            return;
        }
    };
    calls.push(ToolCall { id, body });
}

fn append_to_call(body: &mut ToolCallBody, delta: ToolCallDelta) {
    match (body, delta) {
        (ToolCallBody::Function(call), ToolCallDelta::FunctionArguments(arguments)) => {
            call.arguments.push_str(&arguments);
        }
        (ToolCallBody::CodeInterpreter(call), ToolCallDelta::CodeInput(code)) => {
            call.input.push_str(&code);
        }
        (ToolCallBody::CodeInterpreter(call), ToolCallDelta::CodeLogs { output, logs }) => {
            let outputs = call.outputs.get_or_insert_default();
            match outputs.get_mut(output) {
                Some(CodeOutput::Logs(text)) => text.push_str(&logs),
                _ => outputs.push(CodeOutput::Logs(logs)),
            }
        }
        (ToolCallBody::CodeInterpreter(call), ToolCallDelta::CodeImage { file, .. }) => {
            let outputs = call.outputs.get_or_insert_default();
            outputs.push(CodeOutput::Image(file));
        }
        // A call only gets deltas of its own kind.
        _ => {}
    }
}
