//! Webhooks: signed events for a project's endpoints, delivered at least once, and those about one
//! object in order.
//!
//! Database triggers write an event in the statement that makes it true (migration 7). Here events
//! are claimed from the database, posted, and retried for days. Runs never wait for a delivery.

mod address;
mod deliverer;
mod payload;
mod send;
mod signature;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::jobs::{Consumer, Settings};
use crate::webhooks::deliverer::{Deliverer, LEASE};

pub use deliverer::Deps;
pub use send::{SendError, Sender, UrlError, check_url};

const DELIVERIES_IN_FLIGHT: usize = 128;

/// How long deliveries in flight may go on when the process stops.
const DRAIN_GRACE: Duration = Duration::from_secs(3);

pub struct Webhooks(Consumer);

impl Webhooks {
    pub fn start(deps: Deps) -> Self {
        let settings = Settings {
            capacity: DELIVERIES_IN_FLIGHT,
            batch: DELIVERIES_IN_FLIGHT,
            lease: LEASE,
            grace: DRAIN_GRACE,
        };
        let wake = Arc::new(Notify::new());
        Self(Consumer::start(Deliverer(deps), settings, wake))
    }

    pub async fn drain(self) {
        self.0.drain().await;
    }
}
