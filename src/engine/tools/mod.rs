//! The tools that models call.

pub(super) mod code_interpreter;
pub(super) mod file_search;
