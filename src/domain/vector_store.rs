//! Vector stores: collections of files that are indexed and can be searched.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{BatchId, FileId, VectorStoreId};
use crate::domain::{Metadata, Timestamp};

/// Most files in one store.
pub const MAX_FILES: usize = 10_000;

/// A stored vector store.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorStore {
    /// Its id.
    pub id: VectorStoreId,
    /// When it was created.
    pub created_at: Timestamp,
    /// What people call it.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What the client attached to it.
    pub metadata: Metadata,
    /// After how many days without a run or a search it expires; `None` is never.
    pub expires_after_days: Option<i32>,
    /// When it does, if nothing happens until then.
    pub expires_at: Option<Timestamp>,
    /// Whether that time has come: it is neither searched nor added to any more.
    pub is_expired: bool,
    /// When a run or a search last used it; its creation until then.
    pub last_active_at: Timestamp,
    /// Size of what is indexed, in bytes.
    pub usage_bytes: i64,
    /// Its files by their status.
    pub file_counts: FileCounts,
}

/// What a search must know of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchableStore {
    /// Its id.
    pub id: VectorStoreId,
    /// Whether it is not searched any more.
    pub is_expired: bool,
    /// The model of its vectors; `None` until the first is made.
    pub embedding_model: Option<String>,
}

/// How much each of the two ways of searching counts. Not both are zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// Nearness of vectors.
    #[serde(rename = "embedding_weight")]
    pub meaning: f64,
    /// Words in common.
    #[serde(rename = "text_weight")]
    pub words: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            meaning: 1.0,
            words: 1.0,
        }
    }
}

impl VectorStore {
    /// Where it stands.
    pub fn status(&self) -> VectorStoreStatus {
        if self.is_expired {
            VectorStoreStatus::Expired
        } else if self.file_counts.in_progress > 0 {
            VectorStoreStatus::InProgress
        } else {
            VectorStoreStatus::Completed
        }
    }
}

/// Where a vector store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VectorStoreStatus {
    /// It was not used for too long.
    Expired,
    /// Some file is not indexed yet.
    InProgress,
    /// All files are indexed, or never will be.
    Completed,
}

/// Files by their status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileCounts {
    /// Waiting, or being indexed.
    pub in_progress: i64,
    /// Indexed.
    pub completed: i64,
    /// Given up.
    pub failed: i64,
    /// Cancelled with their batch.
    pub cancelled: i64,
}

impl FileCounts {
    /// All of them.
    pub fn total(&self) -> i64 {
        let Self {
            in_progress,
            completed,
            failed,
            cancelled,
        } = self;
        in_progress + completed + failed + cancelled
    }
}

/// A vector store as its maker describes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewVectorStore {
    /// What people call it.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What the client attaches to it.
    pub metadata: Metadata,
    /// Days without use until it expires; `None` is never.
    pub expires_after_days: Option<i32>,
    /// What is in it from the start, each file once.
    pub files: Vec<NewStoreFile>,
}

/// What is to change of a vector store. The outer `None` keeps what is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VectorStoreChanges {
    /// A new name, or none.
    pub name: Option<Option<String>>,
    /// Another expiry in days, or none.
    pub expires_after_days: Option<Option<i32>>,
    /// Other metadata.
    pub metadata: Option<Metadata>,
}

/// A file that is to be put into a store.
#[derive(Debug, Clone, PartialEq)]
pub struct NewStoreFile {
    /// Which.
    pub file: FileId,
    /// What searches may filter by. `None` is nothing, or what a file that is in the store already
    /// has.
    pub attributes: Option<Attributes>,
    /// How it is cut. `None` is the default, or how a file that is in the store already was cut.
    pub chunking: Option<Chunking>,
}

/// A file in a store.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorStoreFile {
    /// The file.
    pub file: FileId,
    /// The store.
    pub vector_store: VectorStoreId,
    /// When it was put in.
    pub created_at: Timestamp,
    /// How far it is.
    pub status: FileStatus,
    /// Why it was given up, if it was.
    pub last_error: Option<IndexError>,
    /// Size of what is indexed of it, in bytes.
    pub usage_bytes: i64,
    /// How it is cut.
    pub chunking: Chunking,
    /// What searches may filter by.
    pub attributes: Attributes,
}

/// How far a file in a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum FileStatus {
    /// Waiting, or being indexed.
    InProgress,
    /// It is found by searches.
    Completed,
    /// Given up by the client, with its batch.
    Cancelled,
    /// Given up; the error says why.
    Failed,
}

/// Why a file was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexError {
    /// What kind of reason.
    pub code: IndexErrorCode,
    /// For people, in a sentence they can act on.
    pub message: String,
}

impl IndexError {
    /// The file was imported, and its contents have not come after it. Whoever brings them finds the
    /// file by this error: another text would leave out those that have this one.
    pub fn without_contents() -> Self {
        Self {
            code: IndexErrorCode::InvalidFile,
            message: "The contents of this file are not on this server. Upload it again, or let \
                      the operator attach them with `assistd import --files`: it is indexed then."
                .to_owned(),
        }
    }
}

/// Kinds of reasons why a file is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexErrorCode {
    /// Our fault, or an upstream's.
    ServerError,
    /// Files of this kind cannot be indexed.
    UnsupportedFile,
    /// The file is broken, encrypted, too large or without text.
    InvalidFile,
}

/// How a file's text is cut into chunks, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunking {
    /// Most tokens of a chunk, 100 to 4,096.
    pub max_tokens: i32,
    /// Tokens that a chunk repeats of the one before: at most half of the above.
    pub overlap_tokens: i32,
}

impl Chunking {
    /// What `auto` stands for.
    pub const AUTO: Self = Self {
        max_tokens: 800,
        overlap_tokens: 400,
    };
}

/// What a file in a store is filtered by: at most 16, keys of at most 64 characters.
pub type Attributes = BTreeMap<String, AttributeValue>;

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttributeValue {
    /// Yes or no.
    Flag(bool),
    /// A number, as the client wrote it.
    Number(serde_json::Number),
    /// At most 512 characters.
    Text(String),
}

/// Files that were added to a store together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// The store.
    pub vector_store: VectorStoreId,
    /// When it was created.
    pub created_at: Timestamp,
    /// Whether it was cancelled before all files were through.
    pub is_cancelled: bool,
    /// Its files by their status.
    pub file_counts: FileCounts,
}

impl Batch {
    /// Where it stands.
    pub fn status(&self) -> BatchStatus {
        let counts = &self.file_counts;
        if self.is_cancelled {
            BatchStatus::Cancelled
        } else if counts.in_progress > 0 {
            BatchStatus::InProgress
        } else if counts.failed > 0 && counts.failed == counts.total() {
            BatchStatus::Failed
        } else {
            BatchStatus::Completed
        }
    }
}

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    /// Some file is not through.
    InProgress,
    /// All files are through; some may have failed.
    Completed,
    /// Cancelled before all files were through.
    Cancelled,
    /// Every file failed.
    Failed,
}

/// A condition on the attributes of a file in a store. A comparison with an attribute that the
/// file does not have, or that is of another type, is false; its negations (`Ne`, not `In`) are
/// true.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All of these; of none, true.
    And(Vec<Filter>),
    /// Any of these; of none, false.
    Or(Vec<Filter>),
    /// An attribute compared with a value.
    Compare {
        /// The attribute.
        key: String,
        /// How.
        operator: Comparison,
        /// With what.
        value: AttributeValue,
    },
    /// An attribute looked for among values.
    Member {
        /// The attribute.
        key: String,
        /// Among these; texts and numbers only.
        values: Vec<AttributeValue>,
        /// Whether it must be there (`in`) or must not (`nin`).
        wanted: bool,
    },
}

/// How an attribute is compared. Texts are ordered by their bytes; flags have no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(in_progress: i64, completed: i64, failed: i64, cancelled: i64) -> FileCounts {
        FileCounts {
            in_progress,
            completed,
            failed,
            cancelled,
        }
    }

    #[test]
    fn a_batch_stands_where_its_files_stand() {
        let status = |is_cancelled, file_counts| {
            let batch = Batch {
                id: BatchId::generate(),
                vector_store: VectorStoreId::generate(),
                created_at: Timestamp::UNIX_EPOCH,
                is_cancelled,
                file_counts,
            };
            batch.status()
        };
        assert_eq!(status(false, counts(1, 5, 1, 0)), BatchStatus::InProgress);
        assert_eq!(status(false, counts(0, 5, 1, 0)), BatchStatus::Completed);
        assert_eq!(status(false, counts(0, 0, 2, 0)), BatchStatus::Failed);
        assert_eq!(status(false, counts(0, 0, 0, 0)), BatchStatus::Completed);
        assert_eq!(status(true, counts(0, 3, 0, 2)), BatchStatus::Cancelled);
    }
}
