//! assistd: a server for the OpenAI Assistants API that runs the agent loop itself.
//!
//! Modules in the order of their dependencies; `docs/architecture.md` has the map.

#![forbid(unsafe_code)]

pub mod config;
pub mod connections;
pub mod domain;
pub mod telemetry;

pub mod blobs;
pub mod sandbox_pool;
pub mod store;
pub mod upstream;

pub mod feed;
pub mod files;
pub mod queue;
pub mod retrieval;

pub mod api;
pub mod runner;
pub mod transfer;
pub mod webhooks;

pub mod cli;
pub mod postgres;
pub mod server;
