//! assistd: a server for the OpenAI Assistants API that runs the agent loop itself.
//!
//! Modules are listed from the top down: each may import only those below it. `docs/architecture.md`
//! describes them.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod server;
pub mod telemetry;

pub mod http;
pub mod service;

pub mod engine;
pub mod transfer;
pub mod webhooks;

pub mod events;
pub mod retrieval;

pub mod jobs;

pub mod files;
pub mod models;
pub mod sandbox_client;
pub mod wire;

pub mod store;

pub mod domain;
