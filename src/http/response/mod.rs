//! Errors and event streams as clients get them.

pub mod error;
pub mod sse;
