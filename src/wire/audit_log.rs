//! The audit log as the admin API shows it.

use serde::Serialize;
use serde_json::Value;

use crate::domain::audit::AuditEntry;
use crate::wire::seconds;

#[derive(Debug, Serialize)]
pub struct AuditLogEntry<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    actor: &'a str,
    action: &'a str,
    target: &'a str,
    details: &'a Value,
}

impl<'a> From<&'a AuditEntry> for AuditLogEntry<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        Self {
            id: entry.id.as_str(),
            object: "audit_log_entry",
            created_at: seconds(entry.created_at),
            actor: &entry.actor,
            action: &entry.action,
            target: &entry.object,
            details: &entry.details,
        }
    }
}
