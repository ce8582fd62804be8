//! Table `api_keys`, which holds hashes of keys only.

use serde_json::json;
use sqlx::FromRow;
use sqlx::PgExecutor;
use sqlx::QueryBuilder;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::domain::api_key::ApiKey;
use crate::domain::audit::Actor;
use crate::domain::ids::ApiKeyId;
use crate::domain::ids::ProjectId;
use crate::domain::page::Page;
use crate::domain::page::PageRequest;
use crate::domain::project::LimitedProject;
use crate::store::ListError;
use crate::store::Pool;
use crate::store::StoreError;
use crate::store::audit_log;
use crate::store::is_refused_by;
use crate::store::page;
use crate::store::projects::limit_columns;

macro_rules! columns {
    () => {
        "id, (select projects.name from projects where projects.id = api_keys.project_id) \
             as project, \
         name, hint, created_at, revoked_at"
    };
}

#[derive(Debug, thiserror::Error)]
pub enum CreateKeyError {
    /// There is such a key already, of this or of another project.
    #[error("this key exists already")]
    Duplicate,
    #[error("the project does not exist")]
    NoSuchProject,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CreateKeyError {
    fn from(error: sqlx::Error) -> Self {
        if is_refused_by(&error, "api_keys_project_id_fkey") {
            return Self::NoSuchProject;
        }
        Self::Store(error.into())
    }
}

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

pub async fn create(
    pool: &Pool,
    actor: &Actor,
    project: &ProjectId,
    name: &str,
    hash: &[u8],
    hint: &str,
) -> Result<ApiKey, CreateKeyError> {
    let mut transaction = pool.begin().await?;
    // A conflict is no error to PostgreSQL, which would log it at every start that repeats the keys
    // of the settings.
    let key: Option<ApiKey> = sqlx::query_as(concat!(
        "insert into api_keys (id, project_id, name, hash, hint) values ($1, $2, $3, $4, $5)
             on conflict (hash) do nothing returning ",
        columns!()
    ))
    .bind(ApiKeyId::generate())
    .bind(project)
    .bind(name)
    .bind(hash)
    .bind(hint)
    .fetch_optional(&mut *transaction)
    .await?;
    let key = key.ok_or(CreateKeyError::Duplicate)?;
    let details = json!({"project": project, "name": name, "hint": hint});
    let id = key.id.as_str();
    audit_log::commit(transaction, actor, "api_key.created", id, &details).await?;
    Ok(key)
}

/// The project that the key with this hash authenticates; `None` if there is no such key or it was
/// revoked.
pub async fn find_by_hash(
    db: impl PgExecutor<'_>,
    hash: &[u8],
) -> Result<Option<LimitedProject>, StoreError> {
    let account = sqlx::query_as(concat!(
        "select p.id, ",
        limit_columns!(),
        "
         from api_keys k join projects p on p.id = k.project_id
         where hash = $1 and revoked_at is null"
    ))
    .bind(hash)
    .fetch_optional(db)
    .await?;
    Ok(account)
}

/// All keys of all projects, oldest first, including revoked ones.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<ApiKey>, StoreError> {
    let keys = sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from api_keys order by created_at, id"
    ))
    .fetch_all(db)
    .await?;
    Ok(keys)
}

pub async fn list_of_project(
    pool: &Pool,
    project: &ProjectId,
    request: &PageRequest,
) -> Result<Page<ApiKey>, ListError> {
    let mut query = QueryBuilder::new(concat!(
        "select ",
        columns!(),
        " from api_keys where project_id = "
    ));
    query.push_bind(project);
    page::fetch(pool, query, "api_keys", project, request).await
}

/// Revokes a key; with a project, only if it is the project's. Returns whether the key exists. A
/// key that was revoked before is left unchanged.
pub async fn revoke(
    pool: &Pool,
    actor: &Actor,
    project: Option<&ProjectId>,
    id: &ApiKeyId,
) -> Result<bool, StoreError> {
    let mut transaction = pool.begin().await?;
    let row = sqlx::query(
        "select project_id, name, hint, revoked_at is not null as is_revoked from api_keys
         where id = $1 and ($2::text is null or project_id = $2) for update",
    )
    .bind(id)
    .bind(project)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(false) };
    if row.try_get("is_revoked")? {
        return Ok(true);
    }
    sqlx::query("update api_keys set revoked_at = now() where id = $1")
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    let text = |column: &str| row.try_get::<String, _>(column);
    let details = json!({
        "project": text("project_id")?, "name": text("name")?, "hint": text("hint")?,
    });
    let id = id.as_str();
    audit_log::commit(transaction, actor, "api_key.revoked", id, &details).await?;
    Ok(true)
}

/// Whether any key was ever created. Revoked keys count: revoking the last one must not open the
/// server to everybody again.
pub async fn any_exist(db: impl PgExecutor<'_>) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("select exists (select from api_keys)")
        .fetch_one(db)
        .await?)
}
