//! What happens to a request before its handler runs, in this order:
//!
//! 1. `cors` answers preflight requests of web pages.
//! 2. `middleware` assigns the request id, starts the trace span, bounds stalled bodies
//!    (`body_timeout`), reserves body memory, and runs the handler to completion within its timeout.
//! 3. `auth` authenticates the caller and admits the request within the project's rate limit; on a
//!    server without API keys, `keyless` refuses requests of other origins.
//! 4. `extract` reads path, query and JSON body; `multipart` reads forms with a file.

pub mod auth;
pub mod body_timeout;
pub mod cors;
pub mod extract;
pub mod keyless;
pub mod middleware;
pub mod multipart;
