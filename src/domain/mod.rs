//! The nouns of the Assistants API and their rules. No I/O and no clock in here.

pub mod api_key;
pub mod assistant;
pub mod audit;
pub mod event;
pub mod file;
pub mod ids;
pub mod json_escapes;
pub mod message;
pub mod page;
pub mod project;
pub mod run;
pub mod run_step;
pub mod text;
pub mod thread;
pub mod tool;
pub mod usage;
pub mod vector_store;
pub mod webhook;

/// Up to 16 pairs of short strings that a client attaches to an object.
pub type Metadata = std::collections::BTreeMap<String, String>;

/// A point in time, UTC. The API shows whole seconds; the store keeps microseconds, for order.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
