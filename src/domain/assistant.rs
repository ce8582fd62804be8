//! Assistants: a model, instructions and tools under a name.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::ids::{AssistantId, FileId, VectorStoreId};
use crate::domain::tool::Tool;
use crate::domain::{Metadata, Timestamp};

/// A stored assistant.
#[derive(Debug, Clone, PartialEq)]
pub struct Assistant {
    /// Its id.
    pub id: AssistantId,
    /// When it was created.
    pub created_at: Timestamp,
    /// What a run of it starts from.
    pub config: AssistantConfig,
    /// Files and vector stores of the built-in tools.
    pub tool_resources: ToolResources,
    /// What the client attached to it.
    pub metadata: Metadata,
}

/// What makes an assistant what it is. Stored as one document: nothing of it is searched for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssistantConfig {
    /// Model name as the client gave it; the model routes decide what it means.
    pub model: String,
    /// At most 256 characters.
    pub name: Option<String>,
    /// At most 512 characters.
    pub description: Option<String>,
    /// The system prompt, at most 256,000 characters.
    pub instructions: Option<String>,
    /// At most 128.
    pub tools: Vec<Tool>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// How long a reasoning model may think; passed to the upstream as it is.
    pub reasoning_effort: Option<String>,
    /// `"auto"` or an object with a `type`, kept word for word.
    pub response_format: Value,
}

/// Files and vector stores that the built-in tools of an assistant or thread may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResources {
    /// Files for code_interpreter, at most 20; `None` when nothing was ever set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_interpreter: Option<CodeInterpreterResources>,
    /// Vector stores for file_search, at most one; `None` when nothing was ever set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_search: Option<FileSearchResources>,
}

impl ToolResources {
    /// All vector stores named.
    pub fn vector_stores(&self) -> impl Iterator<Item = &VectorStoreId> {
        self.file_search
            .iter()
            .flat_map(|resources| &resources.vector_store_ids)
    }

    /// All files named.
    pub fn files(&self) -> impl Iterator<Item = &FileId> {
        self.code_interpreter
            .iter()
            .flat_map(|resources| &resources.file_ids)
    }
}

/// Files that code_interpreter sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeInterpreterResources {
    /// At most 20.
    #[serde(default)]
    pub file_ids: Vec<FileId>,
}

/// Vector stores that file_search searches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSearchResources {
    /// At most one.
    #[serde(default)]
    pub vector_store_ids: Vec<VectorStoreId>,
}
