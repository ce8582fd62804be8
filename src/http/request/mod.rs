//! What happens to a request before its handler runs.

pub mod auth;
pub mod body_memory;
pub mod body_timeout;
pub mod cors;
pub mod extract;
pub mod keyless;
pub mod middleware;
pub mod multipart;
