//! Table `loose_blobs`: names of blobs that no row owns, each to be deleted when it is due.
//!
//! The names are random ids that no client ever sees before a row owns them, so no project comes
//! into it.

use sqlx::PgExecutor;

use crate::store::Pool;
use crate::store::StoreError;

/// Writes down a blob that is about to be stored, maybe after a try that came to nothing. Whoever
/// stores it has a day to claim it.
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

/// Takes a name off the list; whether it was on it. In the transaction of the row that owns the
/// blob from now on, or once the blob is gone.
pub async fn remove(db: impl PgExecutor<'_>, name: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("delete from loose_blobs where name = $1")
        .bind(name)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether the name is on the list. If so, nobody can claim it until the transaction ends.
pub async fn lock(db: impl PgExecutor<'_>, name: &str) -> Result<bool, StoreError> {
    let found = sqlx::query("select from loose_blobs where name = $1 for update")
        .bind(name)
        .fetch_optional(db)
        .await?;
    Ok(found.is_some())
}

/// Names whose time has come, at most `limit`.
pub async fn due(pool: &Pool, limit: i64) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar(
        "select name from loose_blobs where due_at <= now() order by due_at limit $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(names)
}
