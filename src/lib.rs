//! assistd: a server for the OpenAI Assistants API that runs the agent loop itself.

#![forbid(unsafe_code)]

pub mod config;
pub mod domain;
pub mod feed;
pub mod postgres;
pub mod queue;
pub mod store;
pub mod telemetry;
