//! Table `files`.

use sqlx::PgExecutor;

use crate::domain::ids::ProjectId;
use crate::store::StoreError;

/// The first of these files that is not the project's, if there is one.
pub async fn first_missing(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    ids: &[&str],
) -> Result<Option<String>, StoreError> {
    let missing = sqlx::query_scalar(
        "select wanted.id from unnest($2::text[]) with ordinality as wanted (id, n)
         where not exists (select from files where project_id = $1 and files.id = wanted.id
                           and (expires_at is null or expires_at > now()))
         order by n limit 1",
    )
    .bind(project)
    .bind(ids)
    .fetch_optional(db)
    .await?;
    Ok(missing)
}
