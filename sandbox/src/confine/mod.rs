//! What keeps a session in: one file for each mechanism.
//!
//! The order matters, see [`crate::zygote::session_process`]. What fails here fails the session: nothing is
//! skipped in silence.

pub mod filesystem;
pub mod landlock;
pub mod limits;
pub mod namespaces;
pub mod syscalls;

use std::fmt::Display;

/// A layer of confinement that could not be put up.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct Failure {
    what: String,
    cause: String,
}

impl Failure {
    /// `what` was tried, and `cause` came of it.
    pub fn new(what: impl Into<String>, cause: impl Display) -> Self {
        Self {
            what: what.into(),
            cause: cause.to_string(),
        }
    }
}

/// Says what was tried, beside the error that came of it.
pub trait Trying<T> {
    /// Turns the error into a [`Failure`] of `what`.
    fn trying(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: Display> Trying<T> for Result<T, E> {
    fn trying(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(what, error))
    }
}
