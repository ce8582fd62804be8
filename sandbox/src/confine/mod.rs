//! The confinement of a session: one file for each mechanism.
//!
//! `zygote::session_process` applies them in an order that matters. Any error fails the session.

pub mod filesystem;
pub mod landlock;
pub mod limits;
pub mod namespaces;
pub mod syscalls;

use std::fmt::Display;

/// A confinement step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct ConfineError {
    step: String,
    cause: String,
}

impl ConfineError {
    /// `what` was tried, and `cause` came of it.
    pub fn new(step: impl Into<String>, cause: impl Display) -> Self {
        Self {
            step: step.into(),
            cause: cause.to_string(),
        }
    }
}

/// Adds the name of the failed step to an error.
pub trait Context<T> {
    fn context(self, step: &str) -> Result<T, ConfineError>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn context(self, step: &str) -> Result<T, ConfineError> {
        self.map_err(|error| ConfineError::new(step, error))
    }
}
