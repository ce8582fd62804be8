//! What handlers respond with besides the JSON of `wire`.
//!
//! These are errors in OpenAI's envelope (`error`), event streams (`sse`) and rate limit headers
//! (`rate_limits`). The headers that all responses have are added by `request::middleware`.

pub mod error;
pub mod rate_limits;
pub mod sse;
