//! Import and export of a project's data.
//!
//! ```text
//!  source/     files, folders, streams → API objects, in chunks, parents first
//!  read/       an API object → domain object            write.rs  domain object → API object
//!  order.rs    the order within a thread, where dates are ambiguous
//!  import.rs   chunks → the store, in transactions      export/   the store → one of two formats
//!  contents.rs content of files, found by id, or by name and size
//! ```
//!
//! An import never changes existing objects, so it can be repeated: what an interrupted import has
//! stored stays, and the next one continues.

mod contents;
mod export;
mod import;
mod order;
mod read;
mod source;
mod write;

use std::path::{Path, PathBuf};

use crate::files::FileError;
use crate::files::blobs::{BlobError, Blobs};
use crate::store::{ListError, Pool, StoreError};

pub use contents::{Attached, Missing};
pub use export::{Export, Exported, Target, export};
pub use import::{Report, Tally, import};
pub use source::Source;

/// The `object` in the first line of an export in assistd's own format.
const FORMAT: &str = "assistd.export";

const VERSION: u64 = 1;

/// Field of an object in that format with the values that the API does not show.
const UNSHOWN: &str = "assistd";

/// `export_schema` of the manifest layout.
const MANIFEST: &str = "assistants-export-manifest/v1";
const THREAD: &str = "assistants-thread-export/v1";

const OBJECTS: &str = "objects.jsonl";

/// Name of the folder with the content of files, each under the file's id.
const CONTENTS: &str = "files";

#[derive(Debug)]
pub struct Import<'a> {
    pub pool: &'a Pool,
    pub blobs: &'a Blobs,
    /// Name of the project, which is created if it does not exist.
    pub project: &'a str,
    pub dry_run: bool,
    /// A folder with original files, whose content is attached to imported ones.
    pub files: Option<&'a Path>,
}

/// Called with the progress: the amount that is done, and the total if it is known.
pub type Progress<'a> = &'a dyn Fn(Stage, u64, Option<u64>);

/// What is being processed. An import counts the bytes of objects, an export the objects;
/// `Contents` is counted by file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Objects,
    Contents,
}

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{at}: {problem}")]
    Format { at: String, problem: String },
    #[error("{} is there already; give a folder that is empty or new", .0.display())]
    Occupied(PathBuf),
    #[error("this format is a folder of files; give the name of one")]
    NeedsFolder,
    #[error("there is no project {0:?}")]
    NoProject(String),
    #[error("the contents of {id}: {source}")]
    Contents { id: String, source: FileError },
    /// A list changed while it was exported.
    #[error(transparent)]
    List(#[from] ListError),
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

/// Kinds of objects in the order of their dependencies. Each is without what another kind holds: a
/// thread, for example, is without its messages and runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    File,
    VectorStore,
    Batch,
    StoreFile,
    Assistant,
    Thread,
    Run,
    Step,
    Message,
}

impl Kind {
    /// The kind that the API names `object`.
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

    /// Whether it is a thread or belongs to one.
    fn is_of_thread(self) -> bool {
        match self {
            Self::File | Self::VectorStore | Self::Batch | Self::StoreFile | Self::Assistant => {
                false
            }
            Self::Thread | Self::Run | Self::Step | Self::Message => true,
        }
    }
}
