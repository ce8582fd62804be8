//! Why a run stops.

use std::fmt::Display;

use crate::domain::ids::RunId;
use crate::domain::run::{RunError, RunErrorCode, RunIncompleteReason};
use crate::files::FileError;
use crate::models::{FailureCode, UpstreamError};
use crate::retrieval::SearchError;
use crate::sandbox_client::SandboxError;
use crate::store::StoreError;

/// A reason from outside for a worker to stop before its run has ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopSignal {
    Cancel,
    Expire,
    /// Another worker has claimed the run, or the run was deleted.
    LeaseLost,
    Drain,
}

#[derive(Debug)]
pub(super) enum StopReason {
    Signalled(StopSignal),
    /// The database is not available. The run is released when it is back.
    Unavailable(StoreError),
    Failed(RunError),
    /// The run fails because of an error of this server. Clients do not see the cause.
    Internal(String),
    Sandbox(SandboxError),
    Incomplete(RunIncompleteReason),
}

impl StopReason {
    pub(super) fn internal(cause: impl Display) -> Self {
        Self::Internal(cause.to_string())
    }

    pub(super) fn server_error(message: impl Into<String>) -> Self {
        Self::Failed(RunError {
            code: RunErrorCode::ServerError,
            message: message.into(),
        })
    }

    /// Whether the run fails, or could not be terminated because the database refuses the commit.
    pub(super) fn is_failure(&self) -> bool {
        match self {
            Self::Failed(_) | Self::Internal(_) | Self::Sandbox(_) => true,
            Self::Signalled(_) | Self::Unavailable(_) | Self::Incomplete(_) => false,
        }
    }

    pub(super) fn leaves_run_open(&self) -> bool {
        match self {
            Self::Signalled(StopSignal::LeaseLost | StopSignal::Drain) | Self::Unavailable(_) => {
                true
            }
            Self::Signalled(StopSignal::Cancel | StopSignal::Expire)
            | Self::Failed(_)
            | Self::Internal(_)
            | Self::Sandbox(_)
            | Self::Incomplete(_) => false,
        }
    }

    pub(super) fn log(&self, run: &RunId) {
        match self {
            Self::Signalled(StopSignal::LeaseLost) => {
                tracing::warn!(run.id = %run, "run {run}: lease lost or run deleted; stopping");
            }
            Self::Unavailable(error) => tracing::warn!(
                run.id = %run,
                error.cause = %error,
                "run {run}: the database is not available; releasing the run when it is: {error}"
            ),
            Self::Internal(cause) => tracing::error!(
                run.id = %run,
                error.cause = %cause,
                "run {run} failed with an internal error: {cause}"
            ),
            Self::Sandbox(error) => tracing::warn!(
                run.id = %run,
                error.cause = %error,
                "run {run} failed: code_interpreter could not be used: {error}"
            ),
            Self::Signalled(StopSignal::Cancel | StopSignal::Expire | StopSignal::Drain)
            | Self::Failed(_)
            | Self::Incomplete(_) => {}
        }
    }
}

pub(super) fn internal_error() -> RunError {
    RunError {
        code: RunErrorCode::ServerError,
        message: "Sorry, something went wrong.".into(),
    }
}

pub(super) fn sandbox_error(error: &SandboxError) -> RunError {
    let code = match error {
        SandboxError::Busy => RunErrorCode::RateLimitExceeded,
        SandboxError::Unavailable(_)
        | SandboxError::Unreachable(_)
        | SandboxError::Refused(_)
        | SandboxError::Lost(_)
        | SandboxError::Input(_) => RunErrorCode::ServerError,
    };
    RunError {
        code,
        message: error.message(),
    }
}

impl From<StoreError> for StopReason {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => Self::Signalled(StopSignal::LeaseLost),
            error if error.is_transient() => Self::Unavailable(error),
            error => Self::internal(error),
        }
    }
}

impl From<UpstreamError> for StopReason {
    fn from(error: UpstreamError) -> Self {
        let code = match error.failure_code() {
            FailureCode::RateLimitExceeded => RunErrorCode::RateLimitExceeded,
            FailureCode::ServerError => RunErrorCode::ServerError,
            FailureCode::InvalidPrompt => RunErrorCode::InvalidPrompt,
        };
        Self::Failed(RunError {
            code,
            message: error.message(),
        })
    }
}

impl From<SandboxError> for StopReason {
    fn from(error: SandboxError) -> Self {
        Self::Sandbox(error)
    }
}

impl From<FileError> for StopReason {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Store(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

impl From<SearchError> for StopReason {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Store(error) => error.into(),
            SearchError::Embed(error) => {
                Self::server_error(format!("The files could not be searched: {error}."))
            }
        }
    }
}
