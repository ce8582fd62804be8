//! Messages and their content.

use serde::{Deserialize, Serialize};

use crate::domain::ids::{AssistantId, FileId, MessageId, RunId, ThreadId};
use crate::domain::{Metadata, Timestamp};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub id: MessageId,
    pub thread: ThreadId,
    pub created_at: Timestamp,
    pub status: MessageStatus,
    /// Set if and only if the status is `incomplete`.
    pub incomplete_reason: Option<IncompleteReason>,
    /// When it was completed or became incomplete; `None` while in progress.
    pub ended_at: Option<Timestamp>,
    pub role: Role,
    pub content: Vec<Content>,
    pub attachments: Vec<Attachment>,
    /// `assistant` and `run` are `None` if a client wrote the message.
    pub assistant: Option<AssistantId>,
    pub run: Option<RunId>,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, Serialize)]
pub struct NewMessage {
    pub role: Role,
    pub content: Vec<Content>,
    pub attachments: Vec<Attachment>,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum MessageStatus {
    InProgress,
    Completed,
    Incomplete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum IncompleteReason {
    ContentFilter,
    MaxTokens,
    RunCancelled,
    RunExpired,
    RunFailed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Role {
    User,
    /// The model, or an application that supplies its answer.
    Assistant,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    Text {
        /// The text, including the markers of its annotations.
        value: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        annotations: Vec<Annotation>,
    },
    /// Text with which the model declined to answer.
    Refusal { refusal: String },
    ImageFile {
        file: FileId,
        /// `None` in messages of runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<ImageDetail>,
    },
    ImageUrl {
        /// `http(s)` or `data:` URL.
        url: String,
        detail: ImageDetail,
    },
}

impl Content {
    pub fn text(value: impl Into<String>) -> Self {
        Self::Text {
            value: value.into(),
            annotations: Vec::new(),
        }
    }

    /// Length of the text in bytes; 0 for images.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text { value, .. } => value.len(),
            Self::Refusal { refusal } => refusal.len(),
            Self::ImageFile { .. } | Self::ImageUrl { .. } => 0,
        }
    }
}

/// A reference from a range of the text to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    pub text: String,
    /// The range in Unicode code points; its end is exclusive.
    pub start: usize,
    pub end: usize,
    pub target: AnnotationTarget,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnotationTarget {
    /// A file that code_interpreter wrote.
    FilePath(FileId),
    /// A file that file_search found.
    FileCitation(FileId),
}

/// Resolution at which a model processes an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageDetail {
    #[default]
    Auto,
    Low,
    High,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub file_id: Option<FileId>,
    pub tools: Vec<AttachmentTool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AttachmentTool {
    /// The file is copied into the sandbox session of the thread.
    CodeInterpreter,
    /// The file is indexed in the thread's vector store.
    FileSearch,
}
