//! OpenAI's JSON in both directions, without HTTP.
//!
//! Responses are views that borrow from domain objects and serialize to the same keys in the same
//! order as the hosted API, unset fields as null. Requests are parsed by [`object::Object`] and
//! refused with a [`ParseError`].

pub mod api_key;
pub mod assistant;
pub mod attribute_filter;
pub mod audit_log;
mod error;
pub mod event;
pub mod file;
pub mod health;
pub mod json;
pub mod message;
pub mod model;
pub mod object;
pub mod project;
pub mod refusal;
pub mod run;
pub mod run_overview;
pub mod run_request;
pub mod run_step;
pub mod thread;
pub mod tool;
pub mod tool_resources;
pub mod upload;
pub mod usage;
pub mod value;
pub mod vector_store;
pub mod vector_store_batch;
pub mod vector_store_file;
pub mod vector_store_search;
pub mod webhook;

pub use error::ParseError;

use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::page::Page;

#[derive(Debug, Serialize)]
pub struct List<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl<T> List<T> {
    /// The view of a page. `id` returns an item's id, which is also its cursor.
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

#[derive(Debug, Serialize)]
pub struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

impl Deleted {
    /// `object` is the type of the deleted object with `.deleted` appended.
    pub fn new(id: impl ToString, object: &'static str) -> Self {
        Self {
            id: id.to_string(),
            object,
            deleted: true,
        }
    }
}

/// A time as the API shows it, in Unix seconds.
pub fn seconds(time: Timestamp) -> i64 {
    time.timestamp()
}
