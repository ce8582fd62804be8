//! The types of the Assistants API and their rules, without I/O and without a clock.

pub mod api_key;
pub mod assistant;
pub mod audit;
pub mod event;
pub mod file;
pub mod health;
pub mod ids;
pub mod json_escapes;
pub mod message;
pub mod page;
pub mod project;
pub mod run;
pub mod run_overview;
pub mod run_step;
pub mod text;
pub mod thread;
pub mod tool;
pub mod usage;
pub mod vector_store;
pub mod webhook;

/// Up to 16 key-value pairs that a client attaches to an object.
pub type Metadata = std::collections::BTreeMap<String, String>;

/// The API shows whole seconds; the store keeps microseconds, so that sorting by time is well defined.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
