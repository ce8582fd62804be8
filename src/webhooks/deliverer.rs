//! Table `webhook_deliveries` as a leased queue: which outcome is retried, for how long, and when a
//! delivery is abandoned.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use reqwest::StatusCode;
use tracing::Span;

use crate::domain::ids::EndpointId;
use crate::jobs::{Backoff, LeasedQueue};
use crate::store::webhook_deliveries::{self as deliveries, Capacity, Delivery, Failure};
use crate::store::{Pool, StoreError};
use crate::webhooks::payload;
use crate::webhooks::send::{SendError, Sender};

/// Longer than an attempt takes, so leases are not renewed, and shorter than the two minutes after
/// which migration 7 takes a delivery for one that waits for a retry.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// Deliveries in flight for one endpoint, so that a slow one does not hold up the others.
const IN_FLIGHT_PER_ENDPOINT: i64 = 8;

/// The schedule that Standard Webhooks suggests.
const BACKOFF: Backoff = Backoff::new(&[
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
]);

/// Attempts without a recorded result after which a delivery is abandoned. A crash, an orderly stop
/// and a result that the database rejects leave an attempt without one.
const MAX_UNRECORDED: i32 = 20;

/// The `last_error` of a delivery, for operators: the database rejects the result of an attempt.
const NOT_STORED: &str = "the result of an attempt could not be stored; see the log";

const UNREADABLE: &str = "the event cannot be read; see the log";

#[derive(Debug, Clone)]
pub struct Deps {
    pub pool: Pool,
    pub sender: Sender,
    pub owner: String,
    pub retry_for: Duration,
    pub disable_after: Duration,
}

pub(super) struct Deliverer(pub(super) Deps);

pub(super) enum Outcome {
    Delivered,
    Failed(SendError),
    Unreadable(StoreError),
    /// Too many earlier attempts have recorded no result, so none was made.
    NotAttempted,
}

impl LeasedQueue for Deliverer {
    type Job = Delivery;
    type Outcome = Outcome;

    const JOBS: &'static str = "webhook deliveries";

    async fn claim(
        &self,
        limit: usize,
        in_flight: &[Arc<Delivery>],
    ) -> Result<Vec<Delivery>, StoreError> {
        let Deps { pool, owner, .. } = &self.0;
        // Not fatal: events about other objects do not wait for those of batches.
        if let Err(error) = deliveries::create_batch_events(pool).await {
            tracing::warn!(
                error.cause = %error,
                "could not create events of file batches: {error}; retrying with the next claim"
            );
        }
        let mut per_endpoint: HashMap<&EndpointId, i64> = HashMap::new();
        for delivery in in_flight {
            *per_endpoint.entry(&delivery.target.endpoint).or_default() += 1;
        }
        let capacity = Capacity {
            free: limit,
            per_endpoint: IN_FLIGHT_PER_ENDPOINT,
            in_flight: per_endpoint.into_iter().collect(),
        };
        deliveries::claim(pool, owner, LEASE, &capacity).await
    }

    async fn release(&self, delivery: &Delivery) -> Result<(), StoreError> {
        count_attempt("stopped");
        deliveries::release(&self.0.pool, delivery).await
    }

    fn span(&self, delivery: &Delivery) -> Span {
        tracing::info_span!(
            "webhook",
            webhook.event = %delivery.event,
            webhook.endpoint = %delivery.target.endpoint
        )
    }

    async fn execute(&self, delivery: &Delivery) -> Outcome {
        if delivery.unrecorded_attempts() >= MAX_UNRECORDED {
            return Outcome::NotAttempted;
        }
        let body = match body(delivery) {
            Ok(body) => body,
            Err(error) => return Outcome::Unreadable(error),
        };
        let sender = &self.0.sender;
        match sender.send(&delivery.target, &delivery.event, body).await {
            Ok(()) => Outcome::Delivered,
            Err(error) => Outcome::Failed(error),
        }
    }

    /// While the database is unavailable the result cannot be recorded, and the event is delivered
    /// again when the lease has expired.
    async fn record(&self, delivery: &Delivery, outcome: Outcome) {
        let pool = &self.0.pool;
        let event = &delivery.event;
        let recorded = match outcome {
            Outcome::Delivered => {
                count_attempt("delivered");
                self.record_success(delivery).await
            }
            Outcome::Failed(error) => self.record_failure(delivery, &error).await,
            Outcome::Unreadable(error) => {
                tracing::error!(
                    error.cause = %error,
                    "webhook delivery {event} abandoned, as the event cannot be decoded: {error}"
                );
                count_attempt("unreadable");
                deliveries::abandon(pool, delivery, UNREADABLE).await
            }
            Outcome::NotAttempted => {
                tracing::error!(
                    "webhook delivery {event} abandoned: {MAX_UNRECORDED} attempts ended \
                     without a recorded result"
                );
                count_attempt("given_up");
                deliveries::abandon(pool, delivery, NOT_STORED).await
            }
        };
        log_store_error(recorded);
    }
}

impl Deliverer {
    /// A success that the database rejects is abandoned: the endpoint has the event, and must not
    /// receive it over and over.
    async fn record_success(&self, delivery: &Delivery) -> Result<(), StoreError> {
        let pool = &self.0.pool;
        match deliveries::record_success(pool, delivery).await {
            Err(error) if !error.is_transient() => {
                log_store_error(Err(error));
                deliveries::abandon(pool, delivery, NOT_STORED).await
            }
            recorded => recorded,
        }
    }

    async fn record_failure(
        &self,
        delivery: &Delivery,
        error: &SendError,
    ) -> Result<(), StoreError> {
        let Deps {
            pool,
            retry_for,
            disable_after,
            ..
        } = &self.0;
        let event = &delivery.event;
        let is_gone = matches!(error, SendError::Status(StatusCode::GONE));
        let pause = BACKOFF.pause(delivery.failures);
        let is_final = is_gone || delivery.is_test() || delivery.age + pause > *retry_for;
        if is_final {
            let attempts = delivery.failures + 1;
            tracing::warn!("webhook delivery {event} abandoned after {attempts} attempts: {error}");
            count_attempt("given_up");
        } else {
            let seconds = pause.as_secs();
            tracing::warn!("webhook delivery {event} failed: {error}; retrying in {seconds} s");
            count_attempt("retried");
        }
        let mut failure = Failure {
            error: error.to_string(),
            retry_after: (!is_final).then_some(pause),
            is_gone,
            disable_after: *disable_after,
        };
        let mut recorded = deliveries::record_failure(pool, delivery, &failure).await;
        if matches!(&recorded, Err(error) if !error.is_transient()) {
            // It may be the text of the error that the database rejects.
            log_store_error(recorded.map(drop));
            failure.error = NOT_STORED.to_owned();
            recorded = deliveries::record_failure(pool, delivery, &failure).await;
        }
        if let Some(reason) = recorded? {
            let endpoint = &delivery.target.endpoint;
            tracing::warn!(
                "webhook endpoint {endpoint} disabled: {reason}; `assistd webhooks enable \
                 {endpoint}` enables it"
            );
        }
        Ok(())
    }
}

fn body(delivery: &Delivery) -> Result<Vec<u8>, StoreError> {
    let subject = delivery.subject()?;
    let (event, kind) = (&delivery.event, &delivery.kind);
    Ok(payload::body(event, kind, delivery.created_at, &subject)?)
}

fn count_attempt(result: &'static str) {
    counter!("assistd_webhook_deliveries_total", "result" => result).increment(1);
}

fn log_store_error(recorded: Result<(), StoreError>) {
    if let Err(error) = recorded {
        tracing::warn!(
            error.cause = %error,
            "could not record delivery result: {error}; the event is delivered again when the \
             lease has expired"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_outlast_an_outage_of_three_days() {
        let pauses: Vec<Duration> = (0..9).map(|failures| BACKOFF.pause(failures)).collect();
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert!(pauses.iter().sum::<Duration>() > Duration::from_hours(72));
    }
}
