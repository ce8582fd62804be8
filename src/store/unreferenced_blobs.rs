//! Table `loose_blobs`: blobs that no row owns, each to be deleted when it is due.
//!
//! Functions here take no project: the names are random ids that no client sees before a row owns
//! them.

use sqlx::PgExecutor;

use crate::store::Pool;
use crate::store::StoreError;

/// Lists a blob that is about to be stored, maybe again after a failure. It is deleted unless it is
/// claimed within a day.
pub async fn insert(db: impl PgExecutor<'_>, name: &str) -> Result<(), StoreError> {
    sqlx::query(
        "insert into loose_blobs (name, due_at) values ($1, now() + interval '1 day')
         on conflict (name) do update set due_at = excluded.due_at",
    )
    .bind(name)
    .execute(db)
    .await?;
    Ok(())
}

/// Takes a blob off the list: in the transaction that inserts the row which owns it, or after it
/// was deleted. Returns whether it was listed.
pub async fn remove(db: impl PgExecutor<'_>, name: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("delete from loose_blobs where name = $1")
        .bind(name)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Locks a listed blob, so that it cannot be claimed until the transaction ends. Returns whether it
/// was listed.
pub async fn lock(db: impl PgExecutor<'_>, name: &str) -> Result<bool, StoreError> {
    let found = sqlx::query("select from loose_blobs where name = $1 for update")
        .bind(name)
        .fetch_optional(db)
        .await?;
    Ok(found.is_some())
}

pub async fn due(pool: &Pool, limit: i64) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar(
        "select name from loose_blobs where due_at <= now() order by due_at limit $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(names)
}
