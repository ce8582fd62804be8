//! The handlers, one file per resource.

pub mod admin;
pub mod assistants;
pub mod files;
pub mod landing;
pub mod messages;
pub mod models;
pub mod operations;
pub mod passthrough;
pub mod run_steps;
pub mod runs;
pub mod threads;
pub mod uploads;
pub mod vector_store_batches;
pub mod vector_store_files;
pub mod vector_store_search;
pub mod vector_stores;
