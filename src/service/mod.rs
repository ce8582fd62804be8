//! Use cases: what spans several tables, in one transaction.

pub mod attachments;
pub mod references;
