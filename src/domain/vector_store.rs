//! Vector stores, their files and batches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{BatchId, FileId, VectorStoreId};
use crate::domain::{Metadata, Timestamp};

pub const MAX_FILES: usize = 10_000;

#[derive(Debug, Clone, PartialEq)]
pub struct VectorStore {
    pub id: VectorStoreId,
    pub created_at: Timestamp,
    pub name: Option<String>,
    pub description: Option<String>,
    pub metadata: Metadata,
    /// Expires after this many days without use by a run or a search; `None` means never.
    pub expires_after_days: Option<i32>,
    pub expires_at: Option<Timestamp>,
    /// Whether it has expired: it can no longer be searched or added to.
    pub is_expired: bool,
    /// When a run or a search last used it; initially its creation.
    pub last_active_at: Timestamp,
    /// Size of the indexed content in bytes.
    pub usage_bytes: i64,
    pub file_counts: FileCounts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchableStore {
    pub id: VectorStoreId,
    pub is_expired: bool,
    /// The model of its embeddings; `None` until the first one is stored.
    pub embedding_model: Option<String>,
}

/// Weights of semantic and lexical search in a hybrid search. At least one is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    #[serde(rename = "embedding_weight")]
    pub meaning: f64,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VectorStoreStatus {
    Expired,
    InProgress,
    /// Every file is indexed, failed or cancelled.
    Completed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileCounts {
    pub in_progress: i64,
    pub completed: i64,
    pub failed: i64,
    pub cancelled: i64,
}

impl FileCounts {
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

#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewVectorStore {
    pub name: Option<String>,
    pub description: Option<String>,
    pub metadata: Metadata,
    pub expires_after_days: Option<i32>,
    /// Its first files, without duplicates.
    pub files: Vec<NewStoreFile>,
}

/// Changes of a vector store. The outer `None` keeps a value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VectorStoreChanges {
    pub name: Option<Option<String>>,
    pub expires_after_days: Option<Option<i32>>,
    pub metadata: Option<Metadata>,
}

/// A file to add to a vector store. A file that is in the store already keeps its attributes or its
/// chunking if the new ones are `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct NewStoreFile {
    pub file: FileId,
    pub attributes: Option<Attributes>,
    pub chunking: Option<Chunking>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct VectorStoreFile {
    pub file: FileId,
    pub vector_store: VectorStoreId,
    pub created_at: Timestamp,
    pub status: FileStatus,
    pub last_error: Option<IndexError>,
    pub usage_bytes: i64,
    pub chunking: Chunking,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum FileStatus {
    InProgress,
    Completed,
    /// Cancelled with its batch.
    Cancelled,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexError {
    pub code: IndexErrorCode,
    pub message: String,
}

impl IndexError {
    /// The file was imported without its content. Attaching the content later finds the file by
    /// this very error, so the text must not change.
    pub fn without_contents() -> Self {
        Self {
            code: IndexErrorCode::InvalidFile,
            message: "The contents of this file are not on this server. Upload it again, or let \
                      the operator attach them with `assistd import --files`: it is indexed then."
                .to_owned(),
        }
    }
}

/// The error codes of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexErrorCode {
    /// This server or an upstream failed.
    ServerError,
    UnsupportedFile,
    /// The file is damaged, encrypted, too large or without text.
    InvalidFile,
}

/// How the text of a file is split into chunks, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunking {
    /// Maximum length of a chunk, 100 to 4,096.
    pub max_tokens: i32,
    /// Tokens that a chunk repeats from the previous one, at most half of `max_tokens`.
    pub overlap_tokens: i32,
}

impl Chunking {
    pub const AUTO: Self = Self {
        max_tokens: 800,
        overlap_tokens: 400,
    };
}

/// Attributes by which searches filter files: at most 16, with keys of at most 64 characters.
pub type Attributes = BTreeMap<String, AttributeValue>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttributeValue {
    Flag(bool),
    /// As the client wrote it.
    Number(serde_json::Number),
    /// At most 512 characters.
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub id: BatchId,
    pub vector_store: VectorStoreId,
    pub created_at: Timestamp,
    /// Whether it was cancelled while files were in progress.
    pub is_cancelled: bool,
    pub file_counts: FileCounts,
}

impl Batch {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    InProgress,
    /// No file is in progress; some may have failed.
    Completed,
    Cancelled,
    Failed,
}

/// A condition on the attributes of a file.
///
/// A comparison with an attribute that the file does not have, or that has another type, is false;
/// its negations (`Ne`, and `nin`) are true. Without conditions, `And` is true and `Or` is false.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Compare {
        key: String,
        operator: Comparison,
        value: AttributeValue,
    },
    Member {
        key: String,
        /// Texts and numbers only.
        values: Vec<AttributeValue>,
        /// `true` for `in`, `false` for `nin`.
        wanted: bool,
    },
}

/// Texts are ordered by their bytes; booleans have no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
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
