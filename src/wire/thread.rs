//! Threads.

use serde::Serialize;

use crate::domain::Metadata;
use crate::domain::assistant::ToolResources;
use crate::domain::thread::Thread;
use crate::wire::seconds;

/// A thread.
#[derive(Debug, Serialize)]
pub struct ThreadObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    metadata: &'a Metadata,
    tool_resources: &'a ToolResources,
}

impl<'a> From<&'a Thread> for ThreadObject<'a> {
    fn from(thread: &'a Thread) -> Self {
        let Thread {
            id,
            created_at,
            metadata,
            tool_resources,
        } = thread;
        Self {
            id: id.as_str(),
            object: "thread",
            created_at: seconds(*created_at),
            metadata,
            tool_resources,
        }
    }
}
