//! Table `api_keys`.

use sqlx::PgExecutor;

use crate::domain::ids::ProjectId;
use crate::store::StoreError;

/// The project that the key with this hash opens.
pub async fn find_by_hash(
    db: impl PgExecutor<'_>,
    hash: &[u8],
) -> Result<Option<ProjectId>, StoreError> {
    let project = sqlx::query_scalar(
        "select project_id from api_keys where hash = $1 and revoked_at is null",
    )
    .bind(hash)
    .fetch_optional(db)
    .await?;
    Ok(project)
}

/// Whether any key is in force.
pub async fn any_exist(db: impl PgExecutor<'_>) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("select exists (select from api_keys where revoked_at is null)")
        .fetch_one(db)
        .await?)
}
