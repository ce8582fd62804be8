//! A project's data on its way in and out: formats to domain objects to the store, and back.
//!
//! ```text
//!  source.rs   files, folders, streams → API objects, a chunk at a time, parents first
//!  read.rs     an API object → what is stored           write.rs  and back
//!  order.rs    the order inside a thread, where dates leave it open
//!  import.rs   chunks → the store, in transactions      export.rs the store → one of two formats
//!  contents.rs file contents, found by id, or by name and size
//! ```
//!
//! An import never changes what is there, so it can be repeated: whatever an interrupted one has
//! done stays, and the next one goes on.

mod contents;
mod export;
mod import;
mod order;
mod read;
mod source;
mod write;

use std::path::PathBuf;

use crate::files::FileError;
use crate::files::blobs::BlobError;
use crate::store::{ListError, StoreError};

pub use contents::{Attached, Missing};
pub use export::{Export, Exported, Target, export};
pub use import::{Import, Report, Tally, import};
pub use source::Source;

/// What the first line of an export in our own format says it is.
const FORMAT: &str = "assistd.export";

/// The version of that format.
const VERSION: u64 = 1;

/// The field of an object in that format that has what the API does not show.
const UNSHOWN: &str = "assistd";

/// The schemas of the other format.
const MANIFEST: &str = "assistants-export-manifest/v1";
const THREAD: &str = "assistants-thread-export/v1";

/// The file with the objects of an export, in its folder.
const OBJECTS: &str = "objects.jsonl";

/// The folder of file contents in an export, each under the file's id.
const CONTENTS: &str = "files";

/// Told now and then how far it is: how much is done, and of how much, if that is known.
pub type Progress<'a> = &'a dyn Fn(Stage, u64, Option<u64>);

/// What an import or an export is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Objects: an import counts bytes, an export objects.
    Objects,
    /// Contents of files: files are counted.
    Contents,
}

/// Why an import or an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A file or folder of the export.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{at}: {problem}")]
    Format {
        /// File and line.
        at: String,
        /// What is wrong there.
        problem: String,
    },
    /// The export would be mixed with what is there.
    #[error("{} is there already; give a folder that is empty or new", .0.display())]
    Occupied(PathBuf),
    /// The other format needs a folder.
    #[error("this format is a folder of files; give the name of one")]
    NeedsFolder,
    /// There is no such project.
    #[error("there is no project {0:?}")]
    NoProject(String),
    /// Contents could not be read or stored.
    #[error("the contents of {id}: {source}")]
    Contents {
        /// The file.
        id: String,
        /// What is wrong.
        source: FileError,
    },
    /// A list changed while it was exported.
    #[error(transparent)]
    List(#[from] ListError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for TransferError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl TransferError {
    fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }

    fn contents(id: impl ToString, error: impl Into<FileError>) -> Self {
        Self::Contents {
            id: id.to_string(),
            source: error.into(),
        }
    }

    fn blob(id: impl ToString) -> impl FnOnce(BlobError) -> Self {
        |error| Self::contents(id, error)
    }
}

/// The kinds of objects that travel, in the order in which they depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A file, without its contents.
    File,
    /// A vector store, without its files.
    VectorStore,
    /// A batch of files in a vector store.
    Batch,
    /// A file in a vector store.
    StoreFile,
    /// An assistant.
    Assistant,
    /// A thread, without its messages and runs.
    Thread,
    /// A run, without its steps.
    Run,
    /// A step of a run.
    Step,
    /// A message.
    Message,
}

impl Kind {
    /// What the objects call themselves on the wire.
    fn of(object: &str) -> Option<Self> {
        Some(match object {
            "file" => Self::File,
            "vector_store" => Self::VectorStore,
            "vector_store.file_batch" | "vector_store.files_batch" => Self::Batch,
            "vector_store.file" => Self::StoreFile,
            "assistant" => Self::Assistant,
            "thread" => Self::Thread,
            "thread.run" => Self::Run,
            "thread.run.step" => Self::Step,
            "thread.message" => Self::Message,
            _ => return None,
        })
    }

    /// For people, many of them.
    pub fn plural(self) -> &'static str {
        match self {
            Self::File => "files",
            Self::VectorStore => "vector stores",
            Self::Batch => "file batches",
            Self::StoreFile => "files in vector stores",
            Self::Assistant => "assistants",
            Self::Thread => "threads",
            Self::Run => "runs",
            Self::Step => "run steps",
            Self::Message => "messages",
        }
    }

    /// Whether it belongs to a thread.
    fn is_of_thread(self) -> bool {
        match self {
            Self::File | Self::VectorStore | Self::Batch | Self::StoreFile | Self::Assistant => {
                false
            }
            Self::Thread | Self::Run | Self::Step | Self::Message => true,
        }
    }
}
