//! What handlers respond with besides the JSON of `wire`.
//!
//! Errors in OpenAI's envelope (`error`), event streams (`sse`) and rate limit headers (`rate_limits`).
//! On the way out, `request::middleware` adds
//! the headers that all responses have and records metrics.

pub mod error;
pub mod rate_limits;
pub mod sse;
