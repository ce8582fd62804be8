//! Table `audit_log`: administrative actions. The transaction of an action writes its entry as
//! well.

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder, Row};

use crate::domain::audit::{Actor, AuditEntry};
use crate::domain::ids::AuditId;
use crate::domain::page::{Page, PageRequest};
use crate::store::page::{self, Cursors};
use crate::store::{ListError, Pool, StoreError, Transaction, json};

impl FromRow<'_, PgRow> for AuditEntry {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            actor: row.try_get("actor")?,
            action: row.try_get("action")?,
            object: row.try_get("object")?,
            details: json(row, "details")?,
        })
    }
}

/// Adds the entry of an action to its transaction and commits both. `details` must not hold
/// secrets.
pub(super) async fn commit(
    mut transaction: Transaction,
    actor: &Actor,
    action: &'static str,
    object: &str,
    details: &Value,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into audit_log (id, actor, action, object, details) values ($1, $2, $3, $4, $5)",
    )
    .bind(AuditId::generate())
    .bind(actor.to_string())
    .bind(action)
    .bind(object)
    .bind(Json(details))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    tracing::info!(
        audit.actor = %actor,
        audit.action = action,
        audit.object = object,
        "{actor}: {action} {object} {details}"
    );
    Ok(())
}

pub async fn list(pool: &Pool, request: &PageRequest) -> Result<Page<AuditEntry>, ListError> {
    let query = QueryBuilder::new(
        "select id, created_at, actor, action, object, details from audit_log where true",
    );
    let cursors = Cursors {
        table: "audit_log",
        column: "id",
        within: &[],
    };
    page::fetch_by(pool, query, &cursors, request).await
}
