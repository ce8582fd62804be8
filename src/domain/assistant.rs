//! Assistants and the resources of their tools.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::ids::{AssistantId, FileId, VectorStoreId};
use crate::domain::tool::Tool;
use crate::domain::{Metadata, Timestamp};

#[derive(Debug, Clone, PartialEq)]
pub struct Assistant {
    pub id: AssistantId,
    pub created_at: Timestamp,
    pub config: AssistantConfig,
    pub tool_resources: ToolResources,
    pub metadata: Metadata,
}

/// The settings of an assistant, within the bounds that the parsers of `wire` check. Stored as one
/// JSON document, since no query filters by them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssistantConfig {
    /// Model name as the client gave it; a model route maps it to an upstream.
    pub model: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub instructions: Option<String>,
    pub tools: Vec<Tool>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub reasoning_effort: Option<String>,
    /// `"auto"` or an object with a `type`, unchanged.
    pub response_format: Value,
}

/// Files and vector stores that the built-in tools of an assistant or thread may use. A field is
/// `None` if it was never set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResources {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_interpreter: Option<CodeInterpreterResources>,
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
