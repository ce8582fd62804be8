//! What a rule makes the model answer.

use crate::yaml::{FinishYaml, UsageYaml};

/// An answer before the limits of the request are applied to it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) reasoning: String,
    pub(crate) text: String,
    pub(crate) refusal: String,
    pub(crate) calls: Vec<ToolCall>,
    /// `None`: the finish reason that the answer implies.
    pub(crate) finish: Option<FinishYaml>,
    pub(crate) usage: UsageYaml,
}

#[derive(Debug, PartialEq)]
pub(crate) struct ToolCall {
    pub(crate) name: String,
    /// JSON text, or any other text that a script gives instead.
    pub(crate) arguments: String,
}
