//! The embedded database: a PostgreSQL server that this process starts, supervises and stops.
//!
//! Its data is in `<data_dir>/postgres`. It listens on a Unix socket only, in a folder that only its
//! owner can enter. This crate does not know the schema of the database.
//!
//! One process at a time runs it: the holder of the lock on `<data_dir>/postgres.lock`. The kernel
//! releases that lock when the holder dies. A server whose holder was killed keeps running; the next
//! holder stops it in an orderly way and starts its own, so no commit is lost.

mod binaries;
mod cluster;
mod embedded;
mod error;
mod lock;
mod memory;
mod options;
mod output;
mod owner;

pub use embedded::{Embedded, StopHandle, connect_to_running, program};
pub use error::{BinariesError, PostgresError};
pub use memory::memory;
pub use options::Options;
