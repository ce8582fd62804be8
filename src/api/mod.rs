//! The HTTP surface. Every route stands in one table here.

pub mod auth;
pub mod error;
pub mod extract;
pub mod state;
pub mod validate;
