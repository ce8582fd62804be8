//! JSON exactly as OpenAI's clients see it: the same keys in the same order, unset fields as null.
//!
//! Views over domain objects, so nothing is copied to be shown.

pub mod api_key;
pub mod assistant;
pub mod attribute_filter;
pub mod audit_log;
mod error;
pub mod event;
pub mod file;
pub mod json;
pub mod message;
pub mod object;
pub mod project;
pub mod run;
pub mod run_step;
pub mod thread;
pub mod upload;
pub mod usage;
pub mod vector_store;
pub mod vector_store_batch;
pub mod vector_store_file;
pub mod vector_store_search;

pub use error::ParseError;

use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::page::Page;

/// A page of a list.
#[derive(Debug, Serialize)]
pub struct List<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl<T> List<T> {
    /// Shows a page; `id` tells an item's id, which is also its cursor.
    pub fn of<'a, D>(
        page: &'a Page<D>,
        id: impl Fn(&D) -> String,
        view: impl FnMut(&'a D) -> T,
    ) -> Self {
        Self {
            object: "list",
            first_id: page.data.first().map(&id),
            last_id: page.data.last().map(&id),
            data: page.data.iter().map(view).collect(),
            has_more: page.has_more,
        }
    }
}

/// The answer to a deletion.
#[derive(Debug, Serialize)]
pub struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

impl Deleted {
    /// Says that the object is gone; `object` is its kind with `.deleted` appended.
    pub fn new(id: impl ToString, object: &'static str) -> Self {
        Self {
            id: id.to_string(),
            object,
            deleted: true,
        }
    }
}

/// Unix seconds.
pub fn seconds(at: Timestamp) -> i64 {
    at.timestamp()
}
