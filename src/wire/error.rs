//! The error of parsing JSON.

/// Why JSON was refused, in the terms of OpenAI's error envelope. Over HTTP it becomes a 400.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    pub message: String,
    /// The path of the refused parameter, such as `tools[0].function.name`.
    pub param: Option<String>,
    pub code: Option<&'static str>,
}

impl ParseError {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param: None,
            code: None,
        }
    }

    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }
}
