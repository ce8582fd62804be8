//! Background work on the database: the leased queue, its back-off, and periodic maintenance.

mod backoff;
mod maintenance;
mod queue;

pub use backoff::Backoff;
pub use maintenance::{Maintenance, MaintenanceDeps};
pub use queue::{Consumer, LeasedQueue, Settings};
