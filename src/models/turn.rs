//! A model's answer as a stream of events.

use futures::stream::BoxStream;

use super::error::UpstreamError;

#[derive(Clone, Debug, PartialEq)]
pub enum TurnEvent {
    Text(String),
    Refusal(String),
    /// The next piece of the model's reasoning, which is not part of the answer.
    Reasoning(String),
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
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
}

/// Tokens of one turn, as the upstream counted them. `cached` is a part of the prompt, `reasoning`
/// a part of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt: u32,
    pub completion: u32,
    pub total: u32,
    pub cached: u32,
    pub reasoning: u32,
}

/// Dropping it cancels the call.
pub type TurnStream = BoxStream<'static, Result<TurnEvent, UpstreamError>>;
