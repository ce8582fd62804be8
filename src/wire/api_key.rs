//! API keys as the admin API shows them.

use serde::Serialize;

use crate::domain::api_key::ApiKey;
use crate::wire::seconds;

/// An API key. Only the response to its creation contains its value.
#[derive(Debug, Serialize)]
pub struct ApiKeyObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    name: &'a str,
    redacted_value: &'a str,
    revoked_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
}

impl<'a> ApiKeyObject<'a> {
    pub fn with_value(key: &'a ApiKey, value: &'a str) -> Self {
        Self {
            value: Some(value),
            ..Self::from(key)
        }
    }
}

impl<'a> From<&'a ApiKey> for ApiKeyObject<'a> {
    fn from(key: &'a ApiKey) -> Self {
        Self {
            id: key.id.as_str(),
            object: "project.api_key",
            created_at: seconds(key.created_at),
            name: &key.name,
            redacted_value: &key.hint,
            revoked_at: key.revoked_at.map(seconds),
            value: None,
        }
    }
}
