//! Table `webhook_endpoints`. Operators manage it across projects, so only `insert` takes a project.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{FromRow, PgExecutor, Postgres, QueryBuilder, Row};

use crate::domain::audit::Actor;
use crate::domain::ids::{EndpointId, ProjectId};
use crate::domain::webhook::{Endpoint, EventType, SigningSecret};
use crate::store::{Pool, StoreError, audit_log};

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

#[derive(Debug, Clone)]
pub struct Target {
    pub endpoint: EndpointId,
    pub url: String,
    /// The current secret, and the previous one until it expires.
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

const SELECT: &str = "
    select e.id, p.name as project, e.created_at, url, events, failing_since, disabled_at,
           disabled_reason
    from webhook_endpoints as e join projects as p on p.id = e.project_id ";

/// Subscribes an endpoint to future events of these types, or of all types. The caller has validated
/// the URL.
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

/// Executes a change of one endpoint and adds it to the audit log, in one transaction.
pub(super) async fn change(
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

/// The endpoints of the project with this name, or of all projects; oldest first.
pub async fn list(
    db: impl PgExecutor<'_>,
    project: Option<&str>,
) -> Result<Vec<Endpoint>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    if let Some(project) = project {
        query.push("where p.name = ").push_bind(project);
    }
    query.push(" order by e.created_at, e.id");
    Ok(query.build_query_as().fetch_all(db).await?)
}

pub async fn remove(pool: &Pool, actor: &Actor, id: &EndpointId) -> Result<bool, StoreError> {
    let removed = sqlx::query("delete from webhook_endpoints where id = $1").bind(id);
    change(pool, actor, "webhook.removed", id, &json!({}), removed).await
}

/// Replaces the secret. The previous one is used as well for `overlap`, an even older one no more.
pub async fn rotate(
    pool: &Pool,
    actor: &Actor,
    id: &EndpointId,
    secret: &SigningSecret,
    overlap: Duration,
) -> Result<bool, StoreError> {
    let rotated = sqlx::query(
        "update webhook_endpoints
         set secret = $2, old_secret = secret, old_secret_until = now() + $3 where id = $1",
    )
    .bind(id)
    .bind(secret.as_bytes())
    .bind(overlap);
    let details = json!({"old_secret_seconds": overlap.as_secs()});
    change(pool, actor, "webhook.rotated", id, &details, rotated).await
}

/// Enables a disabled endpoint, which resumes the deliveries that are not too old.
pub async fn enable(pool: &Pool, actor: &Actor, id: &EndpointId) -> Result<bool, StoreError> {
    let enabled = sqlx::query(
        "update webhook_endpoints
         set disabled_at = null, disabled_reason = null, failing_since = null where id = $1",
    )
    .bind(id);
    change(pool, actor, "webhook.enabled", id, &json!({}), enabled).await
}

pub async fn find(
    db: impl PgExecutor<'_>,
    id: &EndpointId,
) -> Result<Option<Endpoint>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push("where e.id = ").push_bind(id);
    Ok(query.build_query_as().fetch_optional(db).await?)
}
