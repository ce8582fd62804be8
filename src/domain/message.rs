//! Messages and their content.

use serde::{Deserialize, Serialize};

use crate::domain::ids::{AssistantId, FileId, MessageId, RunId, ThreadId};
use crate::domain::{Metadata, Timestamp};

/// One message of a thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The thread it belongs to.
    pub thread: ThreadId,
    /// When it was created.
    pub created_at: Timestamp,
    /// Whether it is whole.
    pub status: MessageStatus,
    /// Why it is not whole, if it is not.
    pub incomplete_reason: Option<IncompleteReason>,
    /// When it was completed or given up; `None` while in progress.
    pub ended_at: Option<Timestamp>,
    /// Who speaks.
    pub role: Role,
    /// Its parts, in order.
    pub content: Vec<Content>,
    /// Files given along, for tools to use.
    pub attachments: Vec<Attachment>,
    /// The assistant that wrote it, if a run did.
    pub assistant: Option<AssistantId>,
    /// The run that wrote it, if one did.
    pub run: Option<RunId>,
    /// What the client attached to it.
    pub metadata: Metadata,
}

/// A message as a client writes it.
#[derive(Debug, Clone, Serialize)]
pub struct NewMessage {
    /// Who speaks.
    pub role: Role,
    /// Its parts.
    pub content: Vec<Content>,
    /// Files given along.
    pub attachments: Vec<Attachment>,
    /// What the client attaches to it.
    pub metadata: Metadata,
}

/// Whether a message is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum MessageStatus {
    /// A run is writing it.
    InProgress,
    /// Whole.
    Completed,
    /// Cut off; the reason says why.
    Incomplete,
}

/// Why a message was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum IncompleteReason {
    /// The upstream's content filter stepped in.
    ContentFilter,
    /// A token limit was reached.
    MaxTokens,
    /// The run was cancelled.
    RunCancelled,
    /// The run ran out of time.
    RunExpired,
    /// The run failed.
    RunFailed,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Role {
    /// The person, or the application on their behalf.
    User,
    /// The model, or an application that puts words into its mouth.
    Assistant,
}

/// One part of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Text.
    Text {
        /// The text, with annotation markers in it.
        value: String,
        /// What stretches of it refer to, in order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        annotations: Vec<Annotation>,
    },
    /// What the model said instead of answering.
    Refusal {
        /// Its words.
        refusal: String,
    },
    /// A stored picture.
    ImageFile {
        /// The stored file.
        file: FileId,
        /// How closely the model is to look; `None` in what a run wrote.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<ImageDetail>,
    },
    /// A picture elsewhere.
    ImageUrl {
        /// `http(s)` or `data:` URL.
        url: String,
        /// How closely the model is to look.
        detail: ImageDetail,
    },
}

impl Content {
    /// Text without annotations.
    pub fn text(value: impl Into<String>) -> Self {
        Self::Text {
            value: value.into(),
            annotations: Vec::new(),
        }
    }

    /// Length of its text in bytes; pictures have none.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text { value, .. } => value.len(),
            Self::Refusal { refusal } => refusal.len(),
            Self::ImageFile { .. } | Self::ImageUrl { .. } => 0,
        }
    }
}

/// What a stretch of text refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// The stretch itself.
    pub text: String,
    /// Where it begins, in Unicode code points.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// What it refers to.
    pub target: AnnotationTarget,
}

/// What an annotation refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnotationTarget {
    /// A file that code_interpreter made.
    FilePath(FileId),
    /// A file that file_search found.
    FileCitation(FileId),
}

/// How closely a model looks at a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageDetail {
    /// As the model likes.
    #[default]
    Auto,
    /// At little cost.
    Low,
    /// Closely.
    High,
}

/// A file given along with a message, and the tools it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The stored file.
    pub file_id: Option<FileId>,
    /// `code_interpreter`, `file_search`, or both.
    pub tools: Vec<AttachmentTool>,
}

/// A tool that an attachment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AttachmentTool {
    /// The file appears in the sandbox.
    CodeInterpreter,
    /// The file is indexed in the thread's vector store.
    FileSearch,
}
