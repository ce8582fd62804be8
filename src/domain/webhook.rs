//! Webhook endpoints, events, and the secrets that sign deliveries.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::Timestamp;
use crate::domain::ids::{EndpointId, EventId};
use crate::domain::run::Run;
use crate::domain::vector_store::{Batch, VectorStoreFile};

/// A webhook endpoint: a URL to which events of a project are posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: EndpointId,
    pub project: String,
    pub created_at: Timestamp,
    pub url: String,
    /// Types of events that it subscribes to; `None` means all.
    pub events: Option<Vec<String>>,
    /// Time of the first failure since the last success; `None` if the last attempt succeeded.
    pub failing_since: Option<Timestamp>,
    pub disabled: Option<(Timestamp, String)>,
}

/// A delivery of an event to an endpoint, as operators see it.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// Increases with each delivery.
    pub number: i64,
    pub event: EventId,
    /// The event's type.
    pub kind: String,
    /// The id of the object that the event is about.
    pub subject: String,
    pub created_at: Timestamp,
    pub attempts: i32,
    /// When it is attempted next; `None` if it was delivered or abandoned.
    pub due_at: Option<Timestamp>,
    pub delivered_at: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// A type of event to which endpoints can subscribe: the name of a stream event, or the type and
/// status of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType(&'static str);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are no events of type {0:?}")]
pub struct UnknownEventType(String);

impl EventType {
    /// The triggers of migration 7 create events of these types.
    pub const ALL: [Self; 12] = [
        Self("thread.run.requires_action"),
        Self("thread.run.cancelled"),
        Self("thread.run.failed"),
        Self("thread.run.completed"),
        Self("thread.run.incomplete"),
        Self("thread.run.expired"),
        Self("vector_store.file.completed"),
        Self("vector_store.file.failed"),
        Self("vector_store.file.cancelled"),
        Self("vector_store.file_batch.completed"),
        Self("vector_store.file_batch.failed"),
        Self("vector_store.file_batch.cancelled"),
    ];

    /// The type of test deliveries, which need no subscription.
    pub const TEST: Self = Self("webhook.test");

    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl FromStr for EventType {
    type Err = UnknownEventType;

    fn from_str(text: &str) -> Result<Self, UnknownEventType> {
        let known = Self::ALL.into_iter().find(|known| known.0 == text);
        known.ok_or_else(|| UnknownEventType(text.to_owned()))
    }
}

/// The object of an event, as it was when the event occurred: a run that is terminal or waits for
/// tool outputs, a file or batch that is no longer in progress, or the endpoint of a test.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    Run(Box<Run>),
    File(Box<VectorStoreFile>),
    Batch(Batch),
    Test(EndpointId),
}

/// The secret that signs the deliveries to an endpoint. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

impl SigningSecret {
    const PREFIX: &str = "whsec_";

    /// Generates a secret of 32 random bytes.
    ///
    /// # Errors
    /// If the system's random source fails.
    pub fn generate() -> Result<Self, rand::rand_core::OsError> {
        use rand::TryRngCore as _;
        let mut secret = vec![0; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut secret)?;
        Ok(Self(secret))
    }

    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The form that receivers need: `whsec_` and the bytes in Base64.
    pub fn reveal(&self) -> String {
        format!("{}{}", Self::PREFIX, STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_only_when_it_is_asked_to() {
        let secret = SigningSecret::from_bytes(b"a secret".to_vec());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.reveal(), "whsec_YSBzZWNyZXQ=");
        assert_ne!(
            SigningSecret::generate().expect("the system has randomness"),
            SigningSecret::generate().expect("the system has randomness")
        );
    }

    #[test]
    fn types_are_known_by_their_names() {
        for event in EventType::ALL {
            assert_eq!(event.as_str().parse(), Ok(event));
        }
        assert!("run.completed".parse::<EventType>().is_err());
        assert!(EventType::TEST.as_str().parse::<EventType>().is_err());
    }
}
