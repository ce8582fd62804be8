//! Errors and event streams as clients get them.

pub mod error;
pub mod rate_limits;
pub mod sse;
