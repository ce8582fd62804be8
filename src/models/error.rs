//! Failures of calls to models.

use std::time::Duration;

/// Maximum length of an upstream's message that is passed on, in characters.
const MAX_MESSAGE: usize = 1_000;

/// A failed call to a model. The public functions of this module return errors whose texts are fit
/// for clients: they hold neither keys nor addresses.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UpstreamError {
    /// Too many requests (429), or the quota of the account behind the key is used up.
    #[error("{message}")]
    RateLimited {
        message: String,
        /// The pause that the upstream asked for.
        retry_after: Option<Duration>,
        /// Whether the quota is used up, so that retrying does not help.
        is_quota_exhausted: bool,
    },
    /// The prompt, or prompt and answer together, exceed the model's context window.
    #[error("{message}")]
    ContextLength {
        message: String,
        /// The model's context window in tokens, if the upstream names it.
        limit: Option<u32>,
    },
    /// The upstream refuses the request (400, 404, 422 and other client errors).
    #[error("{message}")]
    InvalidRequest {
        status: u16,
        /// The `code` of the error object, such as `model_not_found`.
        code: Option<String>,
        param: Option<String>,
        message: String,
    },
    /// The upstream refuses the key that this server holds (401, 403).
    #[error("{message}")]
    Auth {
        /// Written here, since servers repeat keys in their messages.
        message: String,
    },
    /// Not reachable, overloaded, failing, or disconnected in the middle of an answer.
    #[error("{message}")]
    Unavailable {
        message: String,
        retry_after: Option<Duration>,
        is_transient: bool,
    },
    /// The answer is not a chat completion.
    #[error("{message}")]
    Broken { message: String },
}

/// The `last_error.code` values of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCode {
    RateLimitExceeded,
    ServerError,
    InvalidPrompt,
}

/// Settings that are not valid; the text names the setting and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub(super) String);

impl UpstreamError {
    pub fn message(&self) -> String {
        self.to_string()
    }

    pub fn failure_code(&self) -> FailureCode {
        match self {
            Self::RateLimited { .. } => FailureCode::RateLimitExceeded,
            Self::ContextLength { .. } => FailureCode::InvalidPrompt,
            Self::InvalidRequest { status, .. } if *status != 404 => FailureCode::InvalidPrompt,
            Self::InvalidRequest { .. }
            | Self::Auth { .. }
            | Self::Unavailable { .. }
            | Self::Broken { .. } => FailureCode::ServerError,
        }
    }

    /// `Some` if the same call may succeed later, with the pause that the upstream asked for.
    pub(super) fn retry_after(&self) -> Option<Option<Duration>> {
        match self {
            Self::RateLimited {
                is_quota_exhausted: false,
                retry_after,
                ..
            }
            | Self::Unavailable {
                is_transient: true,
                retry_after,
                ..
            } => Some(*retry_after),
            Self::RateLimited {
                is_quota_exhausted: true,
                ..
            }
            | Self::Unavailable {
                is_transient: false,
                ..
            }
            | Self::ContextLength { .. }
            | Self::InvalidRequest { .. }
            | Self::Auth { .. }
            | Self::Broken { .. } => None,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate_limited",
            Self::ContextLength { .. } => "context_length",
            Self::InvalidRequest { .. } => "invalid_request",
            Self::Auth { .. } => "auth",
            Self::Unavailable { .. } => "unavailable",
            Self::Broken { .. } => "broken",
        }
    }

    pub(super) fn disconnected() -> Self {
        Self::Unavailable {
            message: "The model server closed the connection before its answer was complete."
                .into(),
            retry_after: None,
            is_transient: true,
        }
    }

    /// The error with a text for clients: without the key and not longer than 1,000 characters. Only
    /// for classified errors: the key may be a part of any word by which they are classified.
    pub(super) fn redacted(mut self, key: Option<&str>) -> Self {
        let (Self::RateLimited { message, .. }
        | Self::ContextLength { message, .. }
        | Self::InvalidRequest { message, .. }
        | Self::Auth { message }
        | Self::Unavailable { message, .. }
        | Self::Broken { message }) = &mut self;
        if let Some(key) = key {
            *message = message.replace(key, "***");
        }
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
        }
        self
    }

    pub(super) fn broken(what: impl Into<String>) -> Self {
        Self::Broken {
            message: what.into(),
        }
    }
}
