//! Tells a project's endpoints what happened: signed, at least once, and about one thing in order.
//!
//! What is to be told stands in the database from the moment when it is true; here it is taken from
//! there under a lease, posted, and tried again for days. Runs do not wait for any of this.

mod address;
mod payload;
mod send;
mod signature;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use parking_lot::Mutex;
use reqwest::StatusCode;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::domain::ids::EndpointId;
use crate::store::Pool;
use crate::store::StoreError;
use crate::store::webhook_deliveries::{self as deliveries, Capacity, Delivery, Failure};

pub use send::{SendError, Sender, UrlError, check_url};

/// How often the queue is looked at without a hint.
const POLL: Duration = Duration::from_secs(1);

/// How long a delivery is this process's. Longer than an attempt takes, and shorter than the two
/// minutes that migration 7 counts on.
const LEASE: Duration = Duration::from_secs(60);

/// Deliveries under way at a time.
const AT_ONCE: i64 = 128;

/// Deliveries under way at a time for one endpoint.
const AT_ONCE_EACH: i64 = 8;

/// The pauses after an attempt has failed, as Standard Webhooks suggests them. The last one is
/// repeated.
const PAUSES: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

/// Attempts without a stored result after which a delivery is abandoned: results that the database
/// refuses, crashes and orderly stops.
const UNRECORDED_MAX: i32 = 20;

/// What operators read of results that the database refuses, and of events that cannot be read.
const NOT_STORED: &str = "the result of an attempt could not be stored; see the log";
const UNREADABLE: &str = "the event cannot be read; see the log";

/// How long what is under way may take when the process stops.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// What delivering needs.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The database.
    pub pool: Pool,
    /// Posts.
    pub sender: Sender,
    /// Names this process.
    pub owner: String,
    /// How long an event is tried.
    pub retry_for: Duration,
    /// How long an endpoint may fail before it is switched off.
    pub disable_after: Duration,
}

/// The deliveries of this process.
pub struct Webhooks {
    tasks: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
}

/// What all deliveries share.
struct Courier {
    deps: Deps,
    busy: Mutex<HashMap<EndpointId, i64>>,
    /// A delivery has ended: there is room, and what waited for it may go.
    ended: Notify,
    cut: CancellationToken,
}

impl Webhooks {
    /// Starts to deliver.
    pub fn start(deps: Deps) -> Self {
        let tasks = TaskTracker::new();
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let courier = Arc::new(Courier {
            deps,
            busy: Mutex::default(),
            ended: Notify::new(),
            cut: cut.clone(),
        });
        tasks.spawn(take(courier, tasks.clone(), stop.clone()));
        Self { tasks, stop, cut }
    }

    /// Takes no more deliveries, lets those under way end for a few seconds, and gives the rest back.
    pub async fn drain(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(FINISH_WITHIN, self.tasks.wait())
            .await
            .is_ok()
        {
            return;
        }
        self.cut.cancel();
        if tokio::time::timeout(FINISH_WITHIN, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some webhooks could not be given back; their leases will run out");
        }
    }
}

/// Claims due deliveries until told to stop.
async fn take(courier: Arc<Courier>, tasks: TaskTracker, stop: CancellationToken) {
    loop {
        match courier.claim().await {
            Ok(claimed) => {
                for delivery in claimed {
                    let span = tracing::info_span!(
                        "webhook",
                        webhook.event = %delivery.event,
                        webhook.endpoint = %delivery.target.endpoint
                    );
                    let under_way = UnderWay::new(&courier, &delivery.target.endpoint);
                    let deliver = deliver(courier.clone(), delivery, under_way);
                    tasks.spawn(deliver.instrument(span));
                }
            }
            Err(error) => {
                tracing::warn!(error.cause = %error, "webhooks cannot be read: {error}");
                // Not at once again, whoever ends meanwhile.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(POLL) => {}
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = courier.ended.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

impl Courier {
    async fn claim(&self) -> Result<Vec<Delivery>, StoreError> {
        let Deps { pool, owner, .. } = &self.deps;
        // Events about other things do not wait for those of batches.
        if let Err(error) = deliveries::create_batch_events(pool).await {
            tracing::warn!(error.cause = %error, "could not create events of batches: {error}");
        }
        let busy: Vec<(EndpointId, i64)> = {
            let busy = self.busy.lock();
            busy.iter()
                .map(|(endpoint, n)| (endpoint.clone(), *n))
                .collect()
        };
        let room = Capacity {
            free: (AT_ONCE - busy.iter().map(|(_, n)| n).sum::<i64>()).max(0),
            per_endpoint: AT_ONCE_EACH,
        };
        deliveries::claim(pool, owner, LEASE, room, &busy).await
    }
}

/// Counts a delivery as under way until it is dropped, however it ends.
struct UnderWay {
    courier: Arc<Courier>,
    endpoint: EndpointId,
}

impl UnderWay {
    fn new(courier: &Arc<Courier>, endpoint: &EndpointId) -> Self {
        *courier.busy.lock().entry(endpoint.clone()).or_default() += 1;
        Self {
            courier: courier.clone(),
            endpoint: endpoint.clone(),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut busy = self.courier.busy.lock();
        if let Some(count) = busy.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                busy.remove(&self.endpoint);
            }
        }
        drop(busy);
        self.courier.ended.notify_one();
    }
}

/// Makes one attempt, and stores its result. While the database is away that cannot be done, and the
/// event is delivered again when the lease has run out.
async fn deliver(courier: Arc<Courier>, delivery: Delivery, under_way: UnderWay) {
    let pool = &courier.deps.pool;
    if delivery.unrecorded_attempts() >= UNRECORDED_MAX {
        tracing::error!(
            "event {} abandoned: no result could be stored",
            delivery.event
        );
        counter!("assistd_webhook_deliveries_total", "result" => "given_up").increment(1);
        return settle(deliveries::abandon(pool, &delivery, NOT_STORED).await);
    }
    let body = delivery.subject().and_then(|subject| {
        let (event, kind) = (&delivery.event, &delivery.kind);
        Ok(payload::body(event, kind, delivery.created_at, &subject)?)
    });
    let sent = match body {
        Ok(body) => {
            let sending = courier
                .deps
                .sender
                .send(&delivery.target, &delivery.event, body);
            courier.cut.run_until_cancelled(sending).await
        }
        Err(error) => {
            tracing::error!(error.cause = %error, "an event cannot be read: {error}");
            counter!("assistd_webhook_deliveries_total", "result" => "unreadable").increment(1);
            // Not the endpoint's fault, and no better next time.
            return settle(deliveries::abandon(pool, &delivery, UNREADABLE).await);
        }
    };
    let (result, written) = match sent {
        None => ("stopped", deliveries::release(pool, &delivery).await),
        Some(Ok(())) => ("delivered", delivered(pool, &delivery).await),
        Some(Err(error)) => failed(&courier.deps, &delivery, &error).await,
    };
    counter!("assistd_webhook_deliveries_total", "result" => result).increment(1);
    settle(written);
    drop(under_way);
}

/// Stores that the endpoint has accepted the event. If the database refuses that, the delivery is
/// abandoned: the endpoint has the event, and must not get it again and again.
async fn delivered(pool: &Pool, delivery: &Delivery) -> Result<(), StoreError> {
    match deliveries::record_success(pool, delivery).await {
        Err(error) if !error.is_transient() => {
            settle(Err(error));
            deliveries::abandon(pool, delivery, NOT_STORED).await
        }
        stored => stored,
    }
}

async fn failed(
    deps: &Deps,
    delivery: &Delivery,
    error: &SendError,
) -> (&'static str, Result<(), StoreError>) {
    let is_gone = matches!(error, SendError::Status(StatusCode::GONE));
    let again_in = pause(delivery.failures);
    let is_final = is_gone || delivery.is_test() || delivery.age + again_in > deps.retry_for;
    let again_in = (!is_final).then_some(again_in);
    let event = &delivery.event;
    let result = match again_in {
        Some(pause) => {
            let seconds = pause.as_secs();
            tracing::warn!("webhook delivery {event} failed: {error}; retrying in {seconds} s");
            "retried"
        }
        None => {
            let attempts = delivery.failures + 1;
            tracing::warn!("webhook delivery {event} abandoned after {attempts} attempts: {error}");
            "given_up"
        }
    };
    let mut setback = Failure {
        error: error.to_string(),
        again_in,
        is_gone,
        patience: deps.disable_after,
    };
    let mut written = deliveries::record_failure(&deps.pool, delivery, &setback).await;
    if matches!(&written, Err(refused) if !refused.is_transient()) {
        settle(written.map(drop));
        setback.error = NOT_STORED.to_owned();
        written = deliveries::record_failure(&deps.pool, delivery, &setback).await;
    }
    if let Ok(Some(reason)) = &written {
        tracing::warn!(
            "an endpoint is switched off: {reason}; `assistd webhooks enable {}` switches it on",
            delivery.target.endpoint
        );
    }
    (result, written.map(drop))
}

/// How long to wait after so many failures. A tenth is left to chance, so that what failed together
/// does not come back together.
fn pause(failures: i32) -> Duration {
    let step = usize::try_from(failures).unwrap_or_default();
    let pause = PAUSES[step.min(PAUSES.len() - 1)].as_secs();
    // In whole seconds: the database takes nothing finer than microseconds.
    Duration::from_secs(pause + rand::random_range(0..=pause / 10))
}

fn settle(written: Result<(), StoreError>) {
    if let Err(error) = written {
        tracing::warn!(error.cause = %error, "could not record delivery result: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_day_and_stay_there() {
        let pauses: Vec<Duration> = (0..12).map(pause).collect();
        for (n, least) in [(0, 5), (1, 300), (8, 86_400), (11, 86_400)] {
            let least = Duration::from_secs(least);
            assert!(
                (least..=least.mul_f64(1.1)).contains(&pauses[n]),
                "{n}: {pauses:?}"
            );
        }
        let until_the_last: Duration = PAUSES.iter().sum();
        assert!(
            until_the_last > Duration::from_hours(72),
            "an outage of days is survived"
        );
    }
}
