//! Webhook endpoints and deliveries as the admin API shows them.

use serde::Serialize;

use crate::domain::webhook::{DeliveryRecord, Endpoint};
use crate::wire::seconds;

#[derive(Debug, Serialize)]
pub struct EndpointObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    project_name: &'a str,
    url: &'a str,
    /// Null means all types.
    events: Option<&'a [String]>,
    status: &'static str,
    failing_since: Option<i64>,
    disabled_at: Option<i64>,
    disabled_reason: Option<&'a str>,
}

impl<'a> From<&'a Endpoint> for EndpointObject<'a> {
    fn from(endpoint: &'a Endpoint) -> Self {
        let disabled = endpoint.disabled.as_ref();
        Self {
            id: endpoint.id.as_str(),
            object: "webhook.endpoint",
            created_at: seconds(endpoint.created_at),
            project_name: &endpoint.project,
            url: &endpoint.url,
            events: endpoint.events.as_deref(),
            status: match (disabled, endpoint.failing_since) {
                (Some(_), _) => "disabled",
                (None, Some(_)) => "failing",
                (None, None) => "active",
            },
            failing_since: endpoint.failing_since.map(seconds),
            disabled_at: disabled.map(|it| seconds(it.0)),
            disabled_reason: disabled.map(|it| it.1.as_str()),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct DeliveryObject<'a> {
    /// The number of the delivery, which is also its cursor.
    id: String,
    object: &'static str,
    created_at: i64,
    event_id: &'a str,
    event_type: &'a str,
    /// The id of the object that the event is about.
    subject: &'a str,
    status: &'static str,
    attempts: i32,
    next_attempt_at: Option<i64>,
    delivered_at: Option<i64>,
    last_error: Option<&'a str>,
}

impl<'a> From<&'a DeliveryRecord> for DeliveryObject<'a> {
    fn from(delivery: &'a DeliveryRecord) -> Self {
        Self {
            id: delivery.number.to_string(),
            object: "webhook.delivery",
            created_at: seconds(delivery.created_at),
            event_id: delivery.event.as_str(),
            event_type: &delivery.kind,
            subject: &delivery.subject,
            status: match (delivery.delivered_at, delivery.due_at) {
                (Some(_), _) => "delivered",
                (None, Some(_)) => "pending",
                (None, None) => "abandoned",
            },
            attempts: delivery.attempts,
            next_attempt_at: delivery.due_at.map(seconds),
            delivered_at: delivery.delivered_at.map(seconds),
            last_error: delivery.last_error.as_deref(),
        }
    }
}
