//! Table `webhook_endpoints`: the operator's, so its functions go without a project, but for the one
//! that makes an endpoint.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::PgArguments;
use sqlx::postgres::PgRow;
use sqlx::query::Query;
use sqlx::{FromRow, PgExecutor, Postgres, Row};

use crate::domain::audit::Actor;
use crate::domain::ids::{EndpointId, ProjectId};
use crate::domain::webhook::{Endpoint, EventType, SigningSecret};
use crate::store::Pool;
use crate::store::{StoreError, audit_log};

impl FromRow<'_, PgRow> for Endpoint {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let disabled_at: Option<_> = row.try_get("disabled_at")?;
        let reason: Option<String> = row.try_get("disabled_reason")?;
        Ok(Self {
            id: row.try_get("id")?,
            project: row.try_get("project")?,
            created_at: row.try_get("created_at")?,
            url: row.try_get("url")?,
            events: row.try_get("events")?,
            failing_since: row.try_get("failing_since")?,
            disabled: disabled_at.zip(reason),
        })
    }
}

/// Where to post, and by which secrets to sign.
#[derive(Debug, Clone)]
pub struct Target {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its URL.
    pub url: String,
    /// Its secret, and the one before it as long as that still counts.
    pub secrets: Vec<SigningSecret>,
}

impl FromRow<'_, PgRow> for Target {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let secrets: Vec<Vec<u8>> = row.try_get("secrets")?;
        Ok(Self {
            endpoint: row.try_get("endpoint_id")?,
            url: row.try_get("url")?,
            secrets: secrets.into_iter().map(SigningSecret::from_bytes).collect(),
        })
    }
}

/// Stores an endpoint that is told of events of these types from now on; without types, of all. That
/// its URL is one to post to is for the caller to know.
pub async fn insert(
    pool: &Pool,
    actor: &Actor,
    project: &ProjectId,
    url: &str,
    events: Option<&[EventType]>,
    secret: &SigningSecret,
) -> Result<EndpointId, StoreError> {
    let events: Option<Vec<&str>> =
        events.map(|events| events.iter().map(|event| event.as_str()).collect());
    let id = EndpointId::generate();
    let details = json!({"project_id": project, "events": events});
    let inserted = sqlx::query(
        "insert into webhook_endpoints (id, project_id, url, events, secret)
         values ($1, $2, $3, $4, $5)",
    )
    .bind(&id)
    .bind(project)
    .bind(url)
    .bind(&events)
    .bind(secret.as_bytes());
    change(pool, actor, "webhook.created", &id, &details, inserted).await?;
    Ok(id)
}

/// Carries out a change of one endpoint, with its entry in the audit log; whether there is such an
/// endpoint.
async fn change(
    pool: &Pool,
    actor: &Actor,
    action: &'static str,
    id: &EndpointId,
    details: &Value,
    change: Query<'_, Postgres, PgArguments>,
) -> Result<bool, StoreError> {
    let mut transaction = pool.begin().await?;
    let done = change.execute(&mut *transaction).await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    audit_log::commit(transaction, actor, action, id.as_str(), details).await?;
    Ok(true)
}

/// Every endpoint, or those of the project of this name; the oldest first.
pub async fn list(
    db: impl PgExecutor<'_>,
    project: Option<&str>,
) -> Result<Vec<Endpoint>, StoreError> {
    let endpoints = sqlx::query_as(
        "select e.id, p.name as project, e.created_at, url, events, failing_since, disabled_at,
                disabled_reason
         from webhook_endpoints as e join projects as p on p.id = e.project_id
         where $1::text is null or p.name = $1 order by e.created_at, e.id",
    )
    .bind(project)
    .fetch_all(db)
    .await?;
    Ok(endpoints)
}

/// Removes an endpoint; whether there was one. What it was still to be told it is not.
pub async fn remove(pool: &Pool, actor: &Actor, id: &EndpointId) -> Result<bool, StoreError> {
    let removed = sqlx::query("delete from webhook_endpoints where id = $1").bind(id);
    change(pool, actor, "webhook.removed", id, &json!({}), removed).await
}

/// Signs by another secret from now on, and by the one before as well for as long as `keep`; whether
/// there is such an endpoint. A secret before that one counts no more.
pub async fn rotate(
    pool: &Pool,
    actor: &Actor,
    id: &EndpointId,
    secret: &SigningSecret,
    keep: Duration,
) -> Result<bool, StoreError> {
    let rotated = sqlx::query(
        "update webhook_endpoints
         set secret = $2, old_secret = secret, old_secret_until = now() + $3 where id = $1",
    )
    .bind(id)
    .bind(secret.as_bytes())
    .bind(keep);
    let details = json!({"old_secret_seconds": keep.as_secs()});
    change(pool, actor, "webhook.rotated", id, &details, rotated).await
}

/// Switches an endpoint on again; whether there is one. What was not delivered before is, unless it
/// is too old.
pub async fn enable(pool: &Pool, actor: &Actor, id: &EndpointId) -> Result<bool, StoreError> {
    let enabled = sqlx::query(
        "update webhook_endpoints
         set disabled_at = null, disabled_reason = null, failing_since = null where id = $1",
    )
    .bind(id);
    change(pool, actor, "webhook.enabled", id, &json!({}), enabled).await
}

/// The endpoint of this id, also when it is switched off.
pub async fn find(
    db: impl PgExecutor<'_>,
    id: &EndpointId,
) -> Result<Option<Endpoint>, StoreError> {
    let endpoint = sqlx::query_as(
        "select e.id, p.name as project, e.created_at, url, events, failing_since, disabled_at,
                disabled_reason
         from webhook_endpoints as e join projects as p on p.id = e.project_id where e.id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(endpoint)
}
