//! Assistants and the resources of their tools.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::ids::{AssistantId, FileId, VectorStoreId};
use crate::domain::tool::Tool;
use crate::domain::{Metadata, Timestamp};

/// A stored assistant.
#[derive(Debug, Clone, PartialEq)]
pub struct Assistant {
    pub id: AssistantId,
    pub created_at: Timestamp,
    pub config: AssistantConfig,
    pub tool_resources: ToolResources,
    pub metadata: Metadata,
}

/// The settings of an assistant. Stored as one JSON document, since no query filters by them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssistantConfig {
    /// Model name as the client gave it; a model route maps it to an upstream.
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
    /// Passed to the upstream unchanged.
    pub reasoning_effort: Option<String>,
    /// `"auto"` or an object with a `type`, unchanged.
    pub response_format: Value,
}

/// Files and vector stores that the built-in tools of an assistant or thread may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResources {
    /// `None` if it was never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_interpreter: Option<CodeInterpreterResources>,
    /// `None` if it was never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_search: Option<FileSearchResources>,
}

impl ToolResources {
    pub fn vector_stores(&self) -> impl Iterator<Item = &VectorStoreId> {
        self.file_search
            .iter()
            .flat_map(|resources| &resources.vector_store_ids)
    }

    pub fn files(&self) -> impl Iterator<Item = &FileId> {
        self.code_interpreter
            .iter()
            .flat_map(|resources| &resources.file_ids)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeInterpreterResources {
    /// At most 20.
    #[serde(default)]
    pub file_ids: Vec<FileId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSearchResources {
    /// At most one.
    #[serde(default)]
    pub vector_store_ids: Vec<VectorStoreId>,
}
