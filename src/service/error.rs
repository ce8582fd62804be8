//! Why a use case was refused, or failed.

use std::time::Duration;

use crate::domain::ids::{FileId, RunId, ThreadId, VectorStoreId};
use crate::domain::run::RunStatus;
use crate::files::FileError;
use crate::files::blobs::BlobError;
use crate::retrieval::SearchError;
use crate::store::runs::CreateRunError;
use crate::store::vector_store_files::AddFilesError;
use crate::store::{ListError, StoreError};
use crate::wire::ParseError;

/// Why a use case was refused, or failed. HTTP answers with OpenAI's texts for each.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("no {object} {id}")]
    NotFound { object: &'static str, id: String },
    #[error("no file {0}")]
    FileNotFound(String),
    #[error("no file {file} in vector store {store}")]
    VectorStoreFileNotFound { store: VectorStoreId, file: FileId },
    /// A vector store in `tool_resources` does not exist.
    #[error("no vector store {0}")]
    ResourceNotFound(VectorStoreId),
    /// The request contradicts an object that it refers to.
    #[error(transparent)]
    Invalid(#[from] ParseError),
    #[error("thread {thread} has an active run {run}")]
    ThreadHasActiveRun { thread: ThreadId, run: RunId },
    #[error("thread {thread} takes no messages while run {run} is active")]
    ThreadLocked { thread: ThreadId, run: RunId },
    /// At every try, another run was active that had ended by the time it was looked up.
    #[error("thread contended by other runs")]
    ThreadContended,
    /// Neither a message nor instructions say what the model should do.
    #[error("nothing to run on")]
    NothingToRun,
    #[error("code_interpreter is not available: {0}")]
    CodeInterpreterUnavailable(String),
    #[error("a run in status {} cannot be updated", .0.as_str())]
    RunNotUpdatable(RunStatus),
    #[error("a run in status {} cannot be cancelled", .0.as_str())]
    RunNotCancellable(RunStatus),
    #[error("a run in status {} does not accept tool outputs", .0.as_str())]
    RunTakesNoOutputs(RunStatus),
    #[error("tool outputs for {given:?} instead of {expected:?}")]
    WrongToolOutputs {
        expected: Vec<String>,
        given: Vec<String>,
    },
    #[error("vector store {0} is expired")]
    VectorStoreExpired(VectorStoreId),
    /// A file of a type that file_search cannot read.
    #[error("files with extension {extension} cannot be searched")]
    FileNotSearchable { extension: String },
    /// A file that is not a picture in a format that models accept.
    #[error("files with extension {extension} are not pictures")]
    FileNotPicture { extension: String },
    #[error(transparent)]
    AddFiles(#[from] AddFilesError),
    #[error("the project may have {0} runs at a time")]
    TooManyRuns(i32),
    /// A key of 32 random bytes was generated twice.
    #[error("the generated API key exists already")]
    DuplicateKey,
    #[error("a project named {0} exists")]
    ProjectNameTaken(String),
    #[error("limit of {limit} requests per minute reached")]
    TooManyRequests { limit: i32, retry_after: Duration },
    #[error("limit of {limit} tokens per minute reached")]
    TooManyTokens {
        limit: i64,
        /// Tokens of the last minute.
        used: i64,
        retry_after: Duration,
    },
    /// The operating system's source of random numbers failed.
    #[error("no API key could be generated: {0}")]
    Random(#[from] rand::rand_core::OsError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ServiceError {
    pub(super) fn not_found(object: &'static str, id: impl ToString) -> Self {
        Self::NotFound {
            object,
            id: id.to_string(),
        }
    }
}

impl From<CreateRunError> for ServiceError {
    fn from(error: CreateRunError) -> Self {
        match error {
            CreateRunError::NothingToRun => Self::NothingToRun,
            CreateRunError::ThreadBusy => Self::ThreadContended,
            CreateRunError::TooManyRuns(max) => Self::TooManyRuns(max),
            CreateRunError::Store(error) => Self::Store(error),
        }
    }
}

impl From<sqlx::Error> for ServiceError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
