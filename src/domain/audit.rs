//! Entries of the audit log.

use std::fmt;

use serde_json::Value;

use crate::domain::Timestamp;
use crate::domain::ids::AuditId;

/// Who performed an administrative action: the operating system's user at the command line, a
/// network address that called the admin API, or the server itself from its settings at startup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    Cli(String),
    AdminApi(String),
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

#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    pub id: AuditId,
    pub created_at: Timestamp,
    /// An [`Actor`] as text.
    pub actor: String,
    /// For example `project.created`.
    pub action: String,
    pub object: String,
    /// Further facts about the action. Never holds a secret.
    pub details: Value,
}
