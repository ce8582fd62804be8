//! Webhooks: who is told of what, and by which secret they know that it was us.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::Timestamp;
use crate::domain::ids::EndpointId;
use crate::domain::run::Run;
use crate::domain::vector_store::{Batch, VectorStoreFile};

/// A place that is told of a project's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Name of the project.
    pub project: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where events are posted to.
    pub url: String,
    /// The types of events that it is told of; `None` is all.
    pub events: Option<Vec<String>>,
    /// Since when no attempt has succeeded, if the last one has not.
    pub failing_since: Option<Timestamp>,
    /// When it was switched off and why, if it is.
    pub disabled: Option<(Timestamp, String)>,
}

/// A type of event that endpoints can ask for: the name of a stream's event, or an object's kind and
/// status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType(&'static str);

/// A text that is no [`EventType`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are no events of type {0:?}")]
pub struct UnknownEventType(String);

impl EventType {
    /// Every type there is. Migration 7 has the triggers that make them.
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

    /// What a trial delivery is called. Nobody has to ask for it.
    pub const TEST: Self = Self("webhook.test");

    /// Its name.
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

/// What an event tells of, as it was then.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// A run that ended or waits for its caller.
    Run(Box<Run>),
    /// A file of a vector store that is through.
    File(Box<VectorStoreFile>),
    /// A batch whose files are all through.
    Batch(Batch),
    /// Nothing: somebody tries the endpoint.
    Test(EndpointId),
}

/// The secret that an endpoint shares with us. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

impl SigningSecret {
    const PREFIX: &str = "whsec_";

    /// 32 bytes from the operating system.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn generate() -> Result<Self, rand::rand_core::OsError> {
        use rand::TryRngCore as _;
        let mut secret = vec![0; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut secret)?;
        Ok(Self(secret))
    }

    /// The secret of these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The key itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The form in which receivers are given it: `whsec_` and the bytes in base 64.
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
