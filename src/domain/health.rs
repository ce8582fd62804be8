//! What an operator sees of the queues and the database.

use crate::domain::Timestamp;
use crate::domain::run::RunStatus;

#[derive(Debug, Clone)]
pub struct DatabaseHealth {
    /// Version of the server.
    pub version: String,
    pub bytes: i64,
    /// Runs that have not ended, by status.
    pub active_runs: Vec<(RunStatus, i64)>,
    /// When the run was created that has been queued for longest.
    pub queued_since: Option<Timestamp>,
    /// The processes that hold runs, with their numbers.
    pub replicas: Vec<(String, i64)>,
    pub indexing: QueueHealth,
    pub webhooks: QueueHealth,
    /// Webhook endpoints that were disabled.
    pub disabled_webhooks: i64,
    /// Webhook endpoints whose last attempt failed.
    pub failing_webhooks: i64,
}

/// A queue of jobs.
#[derive(Debug, Clone)]
pub struct QueueHealth {
    /// Jobs without a worker.
    pub waiting: i64,
    /// Jobs that a worker holds.
    pub in_progress: i64,
}
