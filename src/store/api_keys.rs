//! Table `api_keys`. Keys themselves never get here, only their hashes.

use sqlx::FromRow;
use sqlx::PgExecutor;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::domain::api_key::ApiKey;
use crate::domain::ids::ApiKeyId;
use crate::domain::ids::ProjectId;
use crate::store::StoreError;

/// Name of the constraint that refuses a key which exists already.
pub const HASH_UNIQUE: &str = "api_keys_hash_unique";

impl FromRow<'_, PgRow> for ApiKey {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            project: row.try_get("project")?,
            name: row.try_get("name")?,
            hint: row.try_get("hint")?,
            created_at: row.try_get("created_at")?,
            revoked_at: row.try_get("revoked_at")?,
        })
    }
}

/// Stores a key that opens `project`. One that exists is refused by [`HASH_UNIQUE`].
pub async fn insert(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    name: &str,
    hash: &[u8],
    hint: &str,
) -> Result<ApiKeyId, StoreError> {
    let id = sqlx::query_scalar(
        "insert into api_keys (id, project_id, name, hash, hint) values ($1, $2, $3, $4, $5)
         returning id",
    )
    .bind(ApiKeyId::generate())
    .bind(project)
    .bind(name)
    .bind(hash)
    .bind(hint)
    .fetch_one(db)
    .await?;
    Ok(id)
}

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

/// Every key of every project, the oldest first, revoked ones included.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<ApiKey>, StoreError> {
    let keys = sqlx::query_as(
        "select k.id, p.name as project, k.name, k.hint, k.created_at, k.revoked_at
         from api_keys k join projects p on p.id = k.project_id
         order by k.created_at, k.id",
    )
    .fetch_all(db)
    .await?;
    Ok(keys)
}

/// Revokes a key, for good. Returns whether there is one of this id; one that was revoked before
/// stays as it is.
pub async fn revoke(db: impl PgExecutor<'_>, id: &ApiKeyId) -> Result<bool, StoreError> {
    let done =
        sqlx::query("update api_keys set revoked_at = coalesce(revoked_at, now()) where id = $1")
            .bind(id)
            .execute(db)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether a key was ever made. Revoked ones count: who revokes the last key does not want the
/// server open to everybody again.
pub async fn any_exist(db: impl PgExecutor<'_>) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("select exists (select from api_keys)")
        .fetch_one(db)
        .await?)
}
