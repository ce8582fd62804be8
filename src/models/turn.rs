//! A model's answer in pieces.

use futures::stream::BoxStream;

use super::error::UpstreamError;

/// A piece of a model's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum TurnEvent {
    /// More of the answer's text.
    Text(String),
    /// More of a refusal.
    Refusal(String),
    /// More of the model's reasoning, where a server shows it. Not part of the answer.
    Reasoning(String),
    /// More of a tool call.
    ToolCall {
        /// Which call of this answer, counted from 0 in the order in which their names came.
        index: usize,
        /// The server's id, on the first piece only and not always. Unique within the answer, but
        /// servers may use it again in the next.
        id: Option<String>,
        /// The tool's name, on the first piece only and always: the offered one where it is meant.
        name: Option<String>,
        /// More of the arguments' JSON text. It need not be valid: the model wrote it.
        arguments: String,
    },
    /// What the answer cost, if the server says so; once, just before the end.
    Usage(Usage),
    /// Why the answer ended: the last event of every complete answer.
    Finish(FinishReason),
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The answer is complete, without tool calls.
    Stop,
    /// A token limit cut it off.
    Length,
    /// It ends in tool calls.
    ToolCalls,
    /// A content filter cut it off.
    ContentFilter,
}

/// Tokens of one turn, as the upstream counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens of the answer.
    pub completion: u32,
    /// Both.
    pub total: u32,
    /// Those of the prompt that came from the upstream's cache.
    pub cached: u32,
    /// Those of the answer that were reasoning.
    pub reasoning: u32,
}

/// A model's answer as it comes. Dropping it ends the call.
pub type TurnStream = BoxStream<'static, Result<TurnEvent, UpstreamError>>;
