//! Conversations.

use serde::{Deserialize, Serialize};

use crate::domain::assistant::ToolResources;
use crate::domain::ids::ThreadId;
use crate::domain::{Metadata, Timestamp};

/// A conversation: an ordered list of messages, kept by the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// Its id.
    pub id: ThreadId,
    /// When it was created.
    pub created_at: Timestamp,
    /// What the client attached to it.
    pub metadata: Metadata,
    /// Files and vector stores its runs may use.
    pub tool_resources: ToolResources,
}
