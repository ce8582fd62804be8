//! Files, and uploads in parts.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::ids::{FileId, PartId, UploadId};

/// A stored file. Its content is the blob named by its id.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct File {
    pub id: FileId,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// As the client sent it, which may include directories.
    pub filename: String,
    pub bytes: i64,
    pub purpose: Purpose,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    pub filename: String,
    pub purpose: Purpose,
    /// Lifetime in seconds; `None` means unlimited.
    pub expires_after: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Purpose {
    Assistants,
    AssistantsOutput,
    Batch,
    #[serde(rename = "fine-tune")]
    #[sqlx(rename = "fine-tune")]
    FineTune,
    Vision,
    UserData,
    Evals,
}

impl Purpose {
    /// Purposes that a client may name when it uploads, in the order of error texts.
    pub const UPLOADABLE: [(&'static str, Self); 6] = [
        ("fine-tune", Self::FineTune),
        ("assistants", Self::Assistants),
        ("batch", Self::Batch),
        ("user_data", Self::UserData),
        ("vision", Self::Vision),
        ("evals", Self::Evals),
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assistants => "assistants",
            Self::AssistantsOutput => "assistants_output",
            Self::Batch => "batch",
            Self::FineTune => "fine-tune",
            Self::Vision => "vision",
            Self::UserData => "user_data",
            Self::Evals => "evals",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    pub file: NewFile,
    pub bytes: i64,
    pub mime_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Upload {
    pub id: UploadId,
    pub created_at: Timestamp,
    /// Parts are accepted until this time.
    pub expires_at: Timestamp,
    pub filename: String,
    /// Declared total size in bytes.
    pub bytes: i64,
    pub mime_type: String,
    pub purpose: Purpose,
    pub status: UploadStatus,
    pub file_expires_after: Option<i64>,
    pub file_id: Option<FileId>,
}

impl Upload {
    /// Maximum size of an upload in bytes: the API's "8 GB".
    pub const MAX_BYTES: i64 = 8 << 30;

    pub fn new_file(&self) -> NewFile {
        NewFile {
            filename: self.filename.clone(),
            purpose: self.purpose,
            expires_after: self.file_expires_after,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum UploadStatus {
    Pending,
    Completed,
    Cancelled,
    Expired,
}

impl UploadStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Part {
    pub id: PartId,
    pub upload_id: UploadId,
    pub created_at: Timestamp,
    pub bytes: i64,
}

impl Part {
    /// Maximum size of a part in bytes: the API's "64 MB".
    pub const MAX_BYTES: u64 = 64 << 20;
}

/// Number of leading bytes that [`image_type`] needs.
pub const IMAGE_HEAD_BYTES: u64 = 12;

/// The media type of an image that models accept, detected from its content, because names may be
/// wrong.
pub fn image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        _ if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") => Some("image/webp"),
        _ => None,
    }
}
