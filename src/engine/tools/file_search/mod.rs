//! file_search: searches the vector stores of the assistant and the thread.

pub(in crate::engine) mod definition;
pub(in crate::engine) mod execution;
