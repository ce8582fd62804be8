//! The handlers, one file per resource.
//!
//! A handler has at most twenty lines: extractors have authenticated the caller and read the request
//! (`request`); it parses the body with `wire`, calls one use case of `service`, and responds with a
//! view of the result from `wire`. Errors become responses by [`ApiError`].
//!
//! [`ApiError`]: crate::http::response::error::ApiError

pub mod admin;
pub mod assistants;
pub mod console;
pub mod files;
pub mod landing;
pub mod messages;
pub mod models;
pub mod objects;
pub mod operations;
pub mod passthrough;
pub mod run_overview;
pub mod run_steps;
pub mod runs;
pub mod threads;
pub mod uploads;
pub mod vector_store_batches;
pub mod vector_store_files;
pub mod vector_store_search;
pub mod vector_stores;
