//! A model's answer as a stream of events.

use futures::stream::BoxStream;

use super::error::UpstreamError;

#[derive(Clone, Debug, PartialEq)]
pub enum TurnEvent {
    /// The next piece of the answer's text.
    Text(String),
    /// The next piece of a refusal.
    Refusal(String),
    /// The next piece of the model's reasoning, which is not part of the answer.
    Reasoning(String),
    /// The next piece of a tool call.
    ToolCall {
        /// The call's index in the answer, in the order in which names arrived.
        index: usize,
        /// The server's id, on the first piece if at all. Unique within the answer, but servers may
        /// reuse it in the next.
        id: Option<String>,
        /// The tool's name, on the first piece and only there: the offered name, even if the model
        /// uses another form of it.
        name: Option<String>,
        /// The next piece of the arguments' JSON text, which need not be valid: the model wrote it.
        arguments: String,
    },
    /// The tokens of the turn, if the server reports them: once, before `Finish`.
    Usage(Usage),
    /// The last event of every complete answer.
    Finish(FinishReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// Complete, without tool calls.
    Stop,
    /// Cut off by a token limit.
    Length,
    /// Complete, with tool calls.
    ToolCalls,
    /// Cut off by a content filter.
    ContentFilter,
}

/// Tokens of one turn, as the upstream counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt: u32,
    pub completion: u32,
    pub total: u32,
    /// Tokens of the prompt from the upstream's cache.
    pub cached: u32,
    /// Tokens of the answer that were reasoning.
    pub reasoning: u32,
}

/// Dropping it cancels the call.
pub type TurnStream = BoxStream<'static, Result<TurnEvent, UpstreamError>>;
