//! Table `projects`.

use sqlx::PgExecutor;

use crate::domain::ids::ProjectId;
use crate::store::StoreError;

/// The project of this name, which is made if there is none. Safe to call from many processes at
/// once.
pub async fn find_or_create(db: impl PgExecutor<'_>, name: &str) -> Result<ProjectId, StoreError> {
    // The update changes nothing; without it, a row that exists would not be returned.
    let project = sqlx::query_scalar(
        "insert into projects (id, name) values ($1, $2)
         on conflict (name) do update set name = excluded.name
         returning id",
    )
    .bind(ProjectId::generate())
    .bind(name)
    .fetch_one(db)
    .await?;
    Ok(project)
}

/// The project of this name.
pub async fn find(db: impl PgExecutor<'_>, name: &str) -> Result<Option<ProjectId>, StoreError> {
    let project = sqlx::query_scalar("select id from projects where name = $1")
        .bind(name)
        .fetch_optional(db)
        .await?;
    Ok(project)
}

/// After how many days without messages or runs the project's threads are deleted; `None` is never.
pub async fn thread_retention(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
) -> Result<Option<i32>, StoreError> {
    let days = sqlx::query_scalar("select thread_retention_days from projects where id = $1")
        .bind(project)
        .fetch_optional(db)
        .await?;
    Ok(days.flatten())
}

/// Sets after how many days without messages or runs the project's threads are deleted; `None` is
/// never.
pub async fn set_thread_retention(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    days: Option<i32>,
) -> Result<(), StoreError> {
    sqlx::query("update projects set thread_retention_days = $2 where id = $1")
        .bind(project)
        .bind(days)
        .execute(db)
        .await?;
    Ok(())
}
