//! A run's events on their way to readers, runs on their way to this process's engine, and
//! notifications between processes.

pub mod dispatch;
pub mod feed;
pub mod notifications;
pub mod run_copy;
