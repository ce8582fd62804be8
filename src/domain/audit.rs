//! Administrative acts, and who did them.

use std::fmt;

use serde_json::Value;

use crate::domain::Timestamp;
use crate::domain::ids::AuditId;

/// Who acts on the server itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A user of the operating system, at the command line.
    Cli(String),
    /// Whoever called the admin API from this address.
    AdminApi(String),
    /// The server's settings, at its start.
    Settings,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cli(user) => write!(f, "cli:{user}"),
            Self::AdminApi(address) => write!(f, "admin_api:{address}"),
            Self::Settings => write!(f, "settings"),
        }
    }
}

/// One act, as it was written down.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditId,
    /// When it was done.
    pub created_at: Timestamp,
    /// Who did it: an [`Actor`] as text.
    pub actor: String,
    /// What was done, as `project.created`.
    pub action: String,
    /// Id of what it was done to.
    pub object: String,
    /// What else there is to know. Never a secret.
    pub details: Value,
}
