//! Why a use case was refused, or failed. The HTTP layer words the response to each.

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

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("no {object} {id}")]
    NotFound { object: &'static str, id: String },
    #[error("no file {0}")]
    FileNotFound(String),
    #[error("no file {file} in vector store {store}")]
    VectorStoreFileNotFound { store: VectorStoreId, file: FileId },
    #[error("no vector store {0}")]
    ResourceNotFound(VectorStoreId),
    #[error("{param}: no object {id} in the list")]
    UnknownCursor { param: &'static str, id: String },
    /// The request contradicts an object that it refers to.
    #[error(transparent)]
    Invalid(#[from] ParseError),
    #[error(transparent)]
    Run(#[from] RunRefusal),
    #[error("vector store {0} has expired and cannot be searched")]
    SearchInExpiredStore(VectorStoreId),
    #[error("vector store {0} has expired and takes no files")]
    AddToExpiredStore(VectorStoreId),
    #[error("vector store {0} would have too many files")]
    AddToFullStore(VectorStoreId),
    #[error("a file was deleted while it was being added")]
    FileDeletedMeanwhile,
    #[error("files with extension {extension} cannot be searched")]
    FileNotSearchable { extension: String },
    #[error("files with extension {extension} are not images")]
    FileNotImage { extension: String },
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
    /// A key of 32 random bytes was generated twice.
    #[error("the generated API key exists already")]
    DuplicateKey,
    #[error("no API key could be generated: {0}")]
    Random(#[from] rand::rand_core::OsError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("the disk of the database is full: {0}")]
    DatabaseFull(StoreError),
    /// The database cannot be reached now; the same call may succeed later.
    #[error("the database is unavailable: {0}")]
    DatabaseUnavailable(StoreError),
    #[error(transparent)]
    Database(StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum RunRefusal {
    #[error("thread {thread} has an active run {run}")]
    ThreadHasActiveRun { thread: ThreadId, run: RunId },
    #[error("thread {thread} takes no messages while run {run} is active")]
    ThreadLocked { thread: ThreadId, run: RunId },
    /// At every try, another run was active that had ended by the time it was looked up.
    #[error("thread contended by other runs")]
    ThreadContended,
    #[error("nothing to run on")]
    NothingToRun,
    #[error("code_interpreter is not available: {0}")]
    CodeInterpreterUnavailable(String),
    #[error("the project may have {0} runs at a time")]
    TooManyRuns(i32),
    #[error("a run in status {} cannot be updated", .0.as_str())]
    NotUpdatable(RunStatus),
    #[error("a run in status {} cannot be cancelled", .0.as_str())]
    NotCancellable(RunStatus),
    #[error("a run in status {} does not accept tool outputs", .0.as_str())]
    TakesNoOutputs(RunStatus),
    #[error("tool outputs for {given:?} instead of {expected:?}")]
    WrongToolOutputs {
        expected: Vec<String>,
        given: Vec<String>,
    },
}

impl ServiceError {
    pub(super) fn not_found(object: &'static str, id: impl ToString) -> Self {
        Self::NotFound {
            object,
            id: id.to_string(),
        }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull(_) => Self::DatabaseFull(error),
            error if error.is_transient() => Self::DatabaseUnavailable(error),
            error => Self::Database(error),
        }
    }
}

impl From<sqlx::Error> for ServiceError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<ListError> for ServiceError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::UnknownCursor { param, id } => Self::UnknownCursor { param, id },
            ListError::Store(error) => error.into(),
        }
    }
}

impl From<AddFilesError> for ServiceError {
    fn from(error: AddFilesError) -> Self {
        match error {
            AddFilesError::Expired(id) => Self::AddToExpiredStore(id),
            AddFilesError::Full(id) => Self::AddToFullStore(id),
            AddFilesError::FileDeleted => Self::FileDeletedMeanwhile,
            AddFilesError::Store(error) => error.into(),
        }
    }
}

impl From<CreateRunError> for ServiceError {
    fn from(error: CreateRunError) -> Self {
        match error {
            CreateRunError::NothingToRun => RunRefusal::NothingToRun.into(),
            CreateRunError::ThreadBusy => RunRefusal::ThreadContended.into(),
            CreateRunError::TooManyRuns(max) => RunRefusal::TooManyRuns(max).into(),
            CreateRunError::Store(error) => error.into(),
        }
    }
}
