//! assistd: a server for the OpenAI Assistants API that runs the agent loop itself.

#![forbid(unsafe_code)]

pub mod blobs;
pub mod domain;
pub mod feed;
pub mod files;
pub mod queue;
pub mod store;
