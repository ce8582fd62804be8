//! Threads.

use serde::{Deserialize, Serialize};

use crate::domain::assistant::ToolResources;
use crate::domain::ids::ThreadId;
use crate::domain::{Metadata, Timestamp};

/// A conversation: an ordered list of messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    pub id: ThreadId,
    pub created_at: Timestamp,
    pub metadata: Metadata,
    pub tool_resources: ToolResources,
}

/// Which threads a list contains: those that meet all conditions.
#[derive(Debug, Clone, Default)]
pub struct ThreadFilter {
    /// Pairs that the metadata contains.
    pub metadata: Metadata,
    /// Created at this time or later.
    pub created_after: Option<Timestamp>,
    /// Created before this time.
    pub created_before: Option<Timestamp>,
}
