//! Stored files and uploads in parts.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::ids::{FileId, PartId, UploadId};

/// A stored file. Its bytes lie in the blob store under its id.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct File {
    /// Its id.
    pub id: FileId,
    /// When it was created.
    pub created_at: Timestamp,
    /// After this it is deleted; `None` is never.
    pub expires_at: Option<Timestamp>,
    /// Name as the client sent it, folders and all.
    pub filename: String,
    /// Size in bytes.
    pub bytes: i64,
    /// What it is for.
    pub purpose: Purpose,
}

/// A file as its maker describes it, before it has an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Name as the client sent it, folders and all.
    pub filename: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its life in seconds; `None` is for ever.
    pub expires_after: Option<i64>,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Purpose {
    /// Input of assistants' tools.
    Assistants,
    /// Output of assistants' tools.
    AssistantsOutput,
    /// Input of the batch API.
    Batch,
    /// Training data.
    #[serde(rename = "fine-tune")]
    #[sqlx(rename = "fine-tune")]
    FineTune,
    /// Pictures for messages.
    Vision,
    /// Anything.
    UserData,
    /// Evaluation data.
    Evals,
}

impl Purpose {
    /// The purposes a client may name when it uploads, in the order error texts list them.
    pub const UPLOADABLE: [(&'static str, Self); 6] = [
        ("fine-tune", Self::FineTune),
        ("assistants", Self::Assistants),
        ("batch", Self::Batch),
        ("user_data", Self::UserData),
        ("vision", Self::Vision),
        ("evals", Self::Evals),
    ];

    /// The name on the wire.
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

/// A file that arrives in parts, as its maker describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    /// The file to be.
    pub file: NewFile,
    /// Declared size of the whole, in bytes.
    pub bytes: i64,
    /// Declared media type.
    pub mime_type: String,
}

/// A file that arrives in parts.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// When it was created.
    pub created_at: Timestamp,
    /// Until when parts are taken.
    pub expires_at: Timestamp,
    /// Name of the file to be.
    pub filename: String,
    /// Declared size of the whole, in bytes.
    pub bytes: i64,
    /// Declared media type.
    pub mime_type: String,
    /// What the file will be for.
    pub purpose: Purpose,
    /// Where it stands.
    pub status: UploadStatus,
    /// Life of the file to be, in seconds after its creation.
    pub file_expires_after: Option<i64>,
    /// The file, once complete.
    pub file_id: Option<FileId>,
}

impl Upload {
    /// Most bytes of one upload, and of all its parts together: the API's "8 GB".
    pub const MAX_BYTES: i64 = 8 << 30;

    /// The file that the upload is to become.
    pub fn new_file(&self) -> NewFile {
        NewFile {
            filename: self.filename.clone(),
            purpose: self.purpose,
            expires_after: self.file_expires_after,
        }
    }
}

/// Where an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum UploadStatus {
    /// Parts are taken.
    Pending,
    /// The file exists.
    Completed,
    /// Given up by the client.
    Cancelled,
    /// Given up by time.
    Expired,
}

impl UploadStatus {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// One part of an upload.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Part {
    /// Its id.
    pub id: PartId,
    /// The upload it belongs to.
    pub upload_id: UploadId,
    /// When it was created.
    pub created_at: Timestamp,
    /// Size in bytes.
    pub bytes: i64,
}

impl Part {
    /// Most bytes of one part: the API's "64 MB".
    pub const MAX_BYTES: u64 = 64 << 20;
}

/// How much of the beginning of a file [`picture_type`] needs.
pub const PICTURE_HEAD_BYTES: u64 = 12;

/// The media type of a picture that models take, by its first bytes, since its name may be wrong.
pub fn picture_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        _ if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") => Some("image/webp"),
        _ => None,
    }
}
