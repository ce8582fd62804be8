//! Table `projects`.

use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder, Row};

use crate::domain::audit::Actor;
use crate::domain::ids::ProjectId;
use crate::domain::page::{Page, PageRequest};
use crate::domain::project::{LimitChanges, LimitedProject, Project, ProjectLimits};
use crate::store::ListError;
use crate::store::Pool;
use crate::store::page::{self, Cursors};
use crate::store::{StoreError, audit_log, is_refused_by};

macro_rules! limit_columns {
    () => {
        "max_concurrent_runs, requests_per_minute, tokens_per_minute, storage_bytes"
    };
}
pub(super) use limit_columns;

macro_rules! columns {
    () => {
        concat!("id, name, created_at, ", limit_columns!())
    };
}

#[derive(Debug, thiserror::Error)]
pub enum SaveProjectError {
    #[error("another project has this name")]
    NameTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for SaveProjectError {
    fn from(error: sqlx::Error) -> Self {
        if is_refused_by(&error, "projects_name_unique") {
            return Self::NameTaken;
        }
        Self::Store(error.into())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    #[error("the project may store {limit} bytes")]
    Exceeded {
        /// The quota in bytes.
        limit: i64,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for QuotaError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// First keys of the advisory locks that serialise, for each project, its uploads and the creation
/// of its runs.
const STORAGE_LOCK: i32 = 1;
const RUN_CREATION_LOCK: i32 = 2;

impl FromRow<'_, PgRow> for ProjectLimits {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            max_concurrent_runs: row.try_get("max_concurrent_runs")?,
            requests_per_minute: row.try_get("requests_per_minute")?,
            tokens_per_minute: row.try_get("tokens_per_minute")?,
            storage_bytes: row.try_get("storage_bytes")?,
        })
    }
}

impl FromRow<'_, PgRow> for LimitedProject {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            project: row.try_get("id")?,
            limits: ProjectLimits::from_row(row)?,
        })
    }
}

impl FromRow<'_, PgRow> for Project {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            created_at: row.try_get("created_at")?,
            limits: ProjectLimits::from_row(row)?,
        })
    }
}

pub async fn create(
    pool: &Pool,
    actor: &Actor,
    name: &str,
    limits: &ProjectLimits,
) -> Result<Project, SaveProjectError> {
    let mut transaction = pool.begin().await?;
    let project: Project = sqlx::query_as(concat!(
        "insert into projects (id, name, max_concurrent_runs, requests_per_minute,
                               tokens_per_minute, storage_bytes)
         values ($1, $2, $3, $4, $5, $6)
         returning ",
        columns!()
    ))
    .bind(ProjectId::generate())
    .bind(name)
    .bind(limits.max_concurrent_runs)
    .bind(limits.requests_per_minute)
    .bind(limits.tokens_per_minute)
    .bind(limits.storage_bytes)
    .fetch_one(&mut *transaction)
    .await?;
    let details = json!({"name": name, "limits": limits});
    let id = project.id.as_str();
    audit_log::commit(transaction, actor, "project.created", id, &details).await?;
    Ok(project)
}

pub async fn update(
    pool: &Pool,
    actor: &Actor,
    id: &ProjectId,
    name: Option<&str>,
    changes: &LimitChanges,
) -> Result<Option<Project>, SaveProjectError> {
    let mut transaction = pool.begin().await?;
    let before: Option<Project> = sqlx::query_as(concat!(
        "select ",
        columns!(),
        "
         from projects where id = $1 for no key update"
    ))
    .bind(id)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(before) = before else {
        return Ok(None);
    };
    let after = Project {
        name: name.unwrap_or(&before.name).to_owned(),
        limits: changes.onto(before.limits),
        ..before.clone()
    };
    if after == before {
        return Ok(Some(before));
    }
    sqlx::query(
        "update projects set name = $2, max_concurrent_runs = $3, requests_per_minute = $4,
                             tokens_per_minute = $5, storage_bytes = $6
         where id = $1",
    )
    .bind(id)
    .bind(&after.name)
    .bind(after.limits.max_concurrent_runs)
    .bind(after.limits.requests_per_minute)
    .bind(after.limits.tokens_per_minute)
    .bind(after.limits.storage_bytes)
    .execute(&mut *transaction)
    .await?;
    let state = |project: &Project| json!({"name": project.name, "limits": project.limits});
    let details = json!({"before": state(&before), "after": state(&after)});
    let id = id.as_str();
    audit_log::commit(transaction, actor, "project.updated", id, &details).await?;
    Ok(Some(after))
}

pub async fn find(db: impl PgExecutor<'_>, id: &ProjectId) -> Result<Option<Project>, StoreError> {
    let project = sqlx::query_as(concat!(
        "select ",
        columns!(),
        "
         from projects where id = $1"
    ))
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(project)
}

pub async fn find_by_id_or_name(
    db: impl PgExecutor<'_>,
    id_or_name: &str,
) -> Result<Option<Project>, StoreError> {
    let project = sqlx::query_as(concat!(
        "select ",
        columns!(),
        "
         from projects where id = $1 or name = $1
         order by id = $1 desc limit 1"
    ))
    .bind(id_or_name)
    .fetch_optional(db)
    .await?;
    Ok(project)
}

pub async fn list(pool: &Pool, request: &PageRequest) -> Result<Page<Project>, ListError> {
    let query = QueryBuilder::new(concat!(
        "select ",
        columns!(),
        "
         from projects where true"
    ));
    let cursors = Cursors {
        table: "projects",
        column: "id",
        within: &[],
    };
    page::fetch_by(pool, query, &cursors, request).await
}

/// The project with this name; `actor` creates it if it does not exist.
pub async fn ensure(pool: &Pool, actor: &Actor, name: &str) -> Result<ProjectId, StoreError> {
    let found = "select id from projects where name = $1";
    let find = async || {
        let found = sqlx::query_scalar(found).bind(name).fetch_optional(pool);
        Ok::<Option<ProjectId>, StoreError>(found.await?)
    };
    if let Some(project) = find().await? {
        return Ok(project);
    }
    match create(pool, actor, name, &ProjectLimits::default()).await {
        Ok(created) => Ok(created.id),
        // Another process has created it in the meantime.
        Err(SaveProjectError::NameTaken) => find().await?.ok_or_else(StoreError::missing_row),
        Err(SaveProjectError::Store(error)) => Err(error),
    }
}

/// The project with this name. Creates it if it does not exist, without an entry in the audit log:
/// for the project that servers create for themselves. Safe for concurrent processes.
pub async fn find_or_create(db: impl PgExecutor<'_>, name: &str) -> Result<ProjectId, StoreError> {
    // The update changes nothing, but without it an existing row would not be returned.
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

/// Threads of the project are deleted after this many days without messages and runs; `None` means
/// never.
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

pub async fn set_thread_retention(
    pool: &Pool,
    actor: &Actor,
    project: &ProjectId,
    days: Option<i32>,
) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    sqlx::query("update projects set thread_retention_days = $2 where id = $1")
        .bind(project)
        .bind(days)
        .execute(&mut *transaction)
        .await?;
    let details = json!({"thread_retention_days": days});
    audit_log::commit(
        transaction,
        actor,
        "project.updated",
        project.as_str(),
        &details,
    )
    .await
}

pub async fn limits(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
) -> Result<Option<ProjectLimits>, StoreError> {
    let limits = sqlx::query_as(concat!(
        "select ",
        limit_columns!(),
        " from projects where id = $1"
    ))
    .bind(project)
    .fetch_optional(db)
    .await?;
    Ok(limits)
}

/// Checks that the project may store this many more bytes, and blocks its other uploads until the
/// transaction ends. For projects with a quota.
pub(super) async fn claim_quota(
    conn: &mut PgConnection,
    project: &ProjectId,
    bytes: i64,
) -> Result<(), QuotaError> {
    lock(&mut *conn, STORAGE_LOCK, project).await?;
    // A separate statement sees what others have committed while this one waited for the lock.
    let row = sqlx::query(
        "select storage_bytes,
                ((select coalesce(sum(bytes), 0) from files
                  where project_id = $1 and (expires_at is null or expires_at > now()))
               + (select coalesce(sum(part.bytes), 0)
                  from uploads join upload_parts part on part.upload_id = uploads.id
                  where project_id = $1 and status = 'pending'))::bigint as stored
         from projects where id = $1",
    )
    .bind(project)
    .fetch_one(conn)
    .await?;
    let (limit, stored): (Option<i64>, i64) =
        (row.try_get("storage_bytes")?, row.try_get("stored")?);
    match limit {
        Some(limit) if stored.saturating_add(bytes) > limit => Err(QuotaError::Exceeded { limit }),
        _ => Ok(()),
    }
}

/// Blocks the creation of other runs of the project until the transaction ends.
pub(super) async fn lock_run_creation(
    conn: &mut PgConnection,
    project: &ProjectId,
) -> Result<(), StoreError> {
    lock(conn, RUN_CREATION_LOCK, project).await
}

async fn lock(conn: &mut PgConnection, key: i32, project: &ProjectId) -> Result<(), StoreError> {
    // Two projects may have the same hash; then they only wait for each other.
    sqlx::query("select pg_advisory_xact_lock($1, hashtext($2))")
        .bind(key)
        .bind(project)
        .execute(conn)
        .await?;
    Ok(())
}
