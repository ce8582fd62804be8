//! A run's events on their way to readers, and runs on their way to this process's engine.

pub mod dispatch;
pub mod feed;
