//! Counts over all projects for operators. Partial indexes hold all rows that are counted.

use sqlx::Row as _;

use crate::domain::health::{DatabaseHealth, QueueHealth};
use crate::store::{Pool, StoreError};

pub async fn read(pool: &Pool) -> Result<DatabaseHealth, StoreError> {
    let active_runs = sqlx::query_as(
        "select status, count(*) from runs where due_at is not null group by status",
    )
    .fetch_all(pool)
    .await?;
    let replicas = sqlx::query_as(
        "select lease_owner, count(*) from runs
         where due_at is not null and lease_owner is not null
         group by lease_owner order by lease_owner",
    )
    .fetch_all(pool)
    .await?;
    let row = sqlx::query(
        "select current_setting('server_version') as version,
                pg_database_size(current_database()) as bytes,
                (select min(created_at) from runs
                 where due_at is not null and status = 'queued') as queued_since,
                files.waiting as files_waiting, files.in_progress as files_in_progress,
                deliveries.waiting as deliveries_waiting,
                deliveries.in_progress as deliveries_in_progress,
                endpoints.disabled, endpoints.failing
         from (select count(*) filter (where lease_owner is null) as waiting,
                      count(lease_owner) as in_progress
               from vector_store_files where due_at is not null) as files,
              (select count(*) filter (where lease_owner is null) as waiting,
                      count(lease_owner) as in_progress
               from webhook_deliveries where due_at is not null) as deliveries,
              (select count(disabled_at) as disabled,
                      count(failing_since) filter (where disabled_at is null) as failing
               from webhook_endpoints) as endpoints",
    )
    .fetch_one(pool)
    .await?;
    Ok(DatabaseHealth {
        version: row.try_get("version")?,
        bytes: row.try_get("bytes")?,
        active_runs,
        queued_since: row.try_get("queued_since")?,
        replicas,
        indexing: QueueHealth {
            waiting: row.try_get("files_waiting")?,
            in_progress: row.try_get("files_in_progress")?,
        },
        webhooks: QueueHealth {
            waiting: row.try_get("deliveries_waiting")?,
            in_progress: row.try_get("deliveries_in_progress")?,
        },
        disabled_webhooks: row.try_get("disabled")?,
        failing_webhooks: row.try_get("failing")?,
    })
}
