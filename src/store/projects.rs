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
