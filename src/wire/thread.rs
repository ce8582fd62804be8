//! Threads.

use serde::Serialize;

use crate::domain::Metadata;
use crate::domain::assistant::ToolResources;
use crate::domain::message::NewMessage;
use crate::domain::thread::Thread;
use crate::wire::message::parse_all;
use crate::wire::object::Object;
use crate::wire::tool_resources::{NewToolResources, parse_new_tool_resources};
use crate::wire::{ParseError, seconds};

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

#[derive(Debug)]
pub struct NewThread {
    pub messages: Vec<NewMessage>,
    pub tool_resources: NewToolResources,
    pub metadata: Metadata,
}

impl NewThread {
    pub fn parse(mut body: Object) -> Result<Self, ParseError> {
        let new = Self {
            messages: parse_all(&mut body, "messages")?,
            tool_resources: parse_new_tool_resources(&mut body)?,
            metadata: body.metadata()?.unwrap_or_default(),
        };
        body.finish()?;
        Ok(new)
    }

    /// Adds the tool resources that `POST /threads/runs` has outside of `thread`. For each tool, only
    /// one of the two places may have resources, unless they are equal.
    pub fn add_tool_resources(&mut self, outer: ToolResources) -> Result<(), ParseError> {
        let ToolResources {
            code_interpreter,
            file_search,
        } = outer;
        let named = &mut self.tool_resources.named;
        merge(
            &mut named.code_interpreter,
            code_interpreter,
            "code_interpreter",
        )?;
        merge(&mut named.file_search, file_search, "file_search")
    }
}

fn merge<T: PartialEq>(
    inner: &mut Option<T>,
    outer: Option<T>,
    tool: &str,
) -> Result<(), ParseError> {
    match (&*inner, outer) {
        (_, None) => Ok(()),
        (Some(inner), Some(outer)) if *inner != outer => {
            let path = format!("tool_resources.{tool}");
            Err(ParseError::new(format!(
                "Invalid '{path}': 'thread.{path}' gives resources for the same tool."
            ))
            .param(path)
            .code("invalid_value"))
        }
        (_, outer) => {
            *inner = outer;
            Ok(())
        }
    }
}
