//! Tools that the server runs itself: what models are told of them, and what models say to them.

pub(super) mod code_argument;
mod code_fence;
pub(super) mod code_interpreter;
pub(super) mod file_search;
pub(super) mod workspace;
