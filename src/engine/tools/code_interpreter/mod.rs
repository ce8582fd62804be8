//! code_interpreter: runs Python that the model writes.

pub(in crate::engine) mod argument;
pub(in crate::engine) mod definition;
pub(in crate::engine) mod execution;
mod fence;
pub(in crate::engine) mod workspace;
