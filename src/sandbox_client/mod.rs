//! The client of sandbox workers. The server itself never runs Python.
//!
//! A pool ([`SandboxPool`]) knows the workers, local or remote, and opens sessions on them; a
//! [`Session`] runs cells over one connection. The protocol is in the crate `sandbox-protocol`.

mod address;
mod connection;
mod embedded;
mod error;
mod pool;
mod session;

pub use address::Address;
pub use embedded::{EmbeddedWorker, WorkerProgram};
pub use error::SandboxError;
pub use pool::SandboxPool;
pub use session::{CellEvent, Session};
