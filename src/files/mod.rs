//! Files and uploads: rows and blobs kept consistent across crashes.
//!
//! A blob is listed as unreferenced before its first byte is stored. The transaction that inserts
//! the row which owns it takes it off the list, and only listed blobs are ever deleted.

pub mod blobs;
mod deletion;
mod error;
mod pending;
pub mod uploads;

pub use deletion::{delete, sweep};
pub use error::FileError;
pub use pending::{PendingFile, attach, claim_blob};
