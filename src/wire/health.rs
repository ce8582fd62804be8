//! The state of a server as the admin API shows it.

use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::health::{DatabaseHealth, QueueHealth};
use crate::wire::seconds;

#[derive(Debug, Serialize)]
pub struct HealthObject<'a> {
    pub object: &'static str,
    pub version: &'static str,
    pub uptime_seconds: u64,
    pub database: DatabaseObject<'a>,
    pub runs: RunsObject<'a>,
    pub indexing: QueueObject,
    pub webhooks: WebhooksObject,
    pub routes: &'a str,
    pub upstreams: Vec<UpstreamObject>,
    pub code_interpreter: CheckObject,
    pub embeddings: CheckObject,
}

#[derive(Debug, Serialize)]
pub struct DatabaseObject<'a> {
    version: &'a str,
    bytes: i64,
    latency_ms: f64,
}

#[derive(Debug, Serialize)]
pub struct RunsObject<'a> {
    queued: i64,
    in_progress: i64,
    requires_action: i64,
    cancelling: i64,
    queued_since: Option<i64>,
    replicas: Vec<ReplicaObject<'a>>,
}

/// A process that holds runs.
#[derive(Debug, Serialize)]
struct ReplicaObject<'a> {
    id: &'a str,
    runs: i64,
}

#[derive(Debug, Serialize)]
pub struct QueueObject {
    waiting: i64,
    in_progress: i64,
}

#[derive(Debug, Serialize)]
pub struct WebhooksObject {
    waiting: i64,
    in_progress: i64,
    failing_endpoints: i64,
    disabled_endpoints: i64,
}

#[derive(Debug, Serialize)]
pub struct UpstreamObject {
    pub name: String,
    pub address: String,
    /// Null unless it was asked to be tested.
    pub is_reachable: Option<bool>,
    pub message: Option<String>,
    /// The last failure of a call since the server started.
    pub last_failure: Option<FailureObject>,
}

#[derive(Debug, Serialize)]
pub struct FailureObject {
    at: i64,
    kind: &'static str,
    message: String,
}

impl FailureObject {
    pub fn new(at: Timestamp, kind: &'static str, message: String) -> Self {
        Self {
            at: seconds(at),
            kind,
            message,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct CheckObject {
    pub is_available: bool,
    pub message: String,
}

impl<'a> DatabaseObject<'a> {
    pub fn new(health: &'a DatabaseHealth, latency: std::time::Duration) -> Self {
        Self {
            version: &health.version,
            bytes: health.bytes,
            latency_ms: latency.as_secs_f64() * 1e3,
        }
    }
}

impl<'a> From<&'a DatabaseHealth> for RunsObject<'a> {
    fn from(health: &'a DatabaseHealth) -> Self {
        let count = |name: &str| {
            let mut counts = health.active_runs.iter();
            counts.find(|it| it.0.as_str() == name).map_or(0, |it| it.1)
        };
        let replicas = health.replicas.iter();
        Self {
            queued: count("queued"),
            in_progress: count("in_progress"),
            requires_action: count("requires_action"),
            cancelling: count("cancelling"),
            queued_since: health.queued_since.map(seconds),
            replicas: replicas
                .map(|(id, runs)| ReplicaObject { id, runs: *runs })
                .collect(),
        }
    }
}

impl From<&QueueHealth> for QueueObject {
    fn from(queue: &QueueHealth) -> Self {
        Self {
            waiting: queue.waiting,
            in_progress: queue.in_progress,
        }
    }
}

impl From<&DatabaseHealth> for WebhooksObject {
    fn from(health: &DatabaseHealth) -> Self {
        Self {
            waiting: health.webhooks.waiting,
            in_progress: health.webhooks.in_progress,
            failing_endpoints: health.failing_webhooks,
            disabled_endpoints: health.disabled_webhooks,
        }
    }
}
