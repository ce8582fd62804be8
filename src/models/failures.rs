//! The last failed call of each upstream, for operators.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::error::UpstreamError;
use crate::domain::Timestamp;

/// Longest message that is kept, in characters.
const MAX_MESSAGE: usize = 500;

#[derive(Debug, Clone)]
pub struct LastFailure {
    pub at: Timestamp,
    /// The kind of error, as in metrics.
    pub kind: &'static str,
    /// For operators; without keys.
    pub message: String,
}

/// By the upstream's name.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<String, LastFailure>>);

impl Failures {
    /// `error` must not contain keys.
    pub(super) fn record(&self, upstream: &str, error: &UpstreamError) {
        let failure = LastFailure {
            at: chrono::Utc::now(),
            kind: error.kind(),
            message: error.to_string().chars().take(MAX_MESSAGE).collect(),
        };
        self.0.lock().insert(upstream.to_owned(), failure);
    }

    pub(super) fn last(&self, upstream: &str) -> Option<LastFailure> {
        self.0.lock().get(upstream).cloned()
    }
}
