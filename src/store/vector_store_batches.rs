//! Table `vector_store_batches`: file batches.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder, Row};

use crate::domain::ids::{BatchId, ProjectId, VectorStoreId};
use crate::domain::vector_store::{Batch, FileCounts, NewStoreFile};
use crate::store::StoreError;
use crate::store::vector_store_files::{self, AddFilesError};

impl FromRow<'_, PgRow> for Batch {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            vector_store: row.try_get("vector_store_id")?,
            created_at: row.try_get("created_at")?,
            is_cancelled: row.try_get("is_cancelled")?,
            file_counts: FileCounts::from_row(row)?,
        })
    }
}

const SELECT: &str = "
    select b.id, b.vector_store_id, b.created_at, b.cancelled_at is not null as is_cancelled,
           count(*) filter (where status = 'in_progress') as in_progress,
           count(*) filter (where status = 'completed') as completed,
           count(*) filter (where status = 'failed') as failed,
           count(*) filter (where status = 'cancelled') as cancelled
    from vector_store_batches as b left join vector_store_files as f on f.batch_id = b.id
    where b.project_id = ";

/// Adds files to a vector store as a batch, as [`vector_store_files::insert`] does. `None` if there
/// is no such store.
///
/// # Errors
/// [`AddFilesError`] without any file being added.
pub async fn insert(
    conn: &mut PgConnection,
    project: &ProjectId,
    store: &VectorStoreId,
    files: &[NewStoreFile],
) -> Result<Option<BatchId>, AddFilesError> {
    if !vector_store_files::lock_store(conn, project, store).await? {
        return Ok(None);
    }
    let id = BatchId::generate();
    sqlx::query(
        "insert into vector_store_batches (id, project_id, vector_store_id) values ($1, $2, $3)",
    )
    .bind(&id)
    .bind(project)
    .bind(store)
    .execute(&mut *conn)
    .await?;
    vector_store_files::add(conn, project, store, Some(&id), files).await?;
    Ok(Some(id))
}

pub async fn find(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
    id: &BatchId,
) -> Result<Option<Batch>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(project);
    query.push(" and b.vector_store_id = ").push_bind(store);
    query.push(" and b.id = ").push_bind(id);
    query.push(" group by b.id");
    Ok(query.build_query_as().fetch_optional(db).await?)
}

/// Cancels the files of a batch that are not indexed yet. A batch without such files stays as it is.
pub async fn cancel(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
    id: &BatchId,
) -> Result<(), StoreError> {
    // Locked in order, so that concurrent cancellations cannot deadlock.
    sqlx::query(
        "with pending as (
             select seq from vector_store_files
             where project_id = $1 and vector_store_id = $2 and batch_id = $3
                 and status = 'in_progress'
             order by seq for update),
         cancelled as (
             update vector_store_files as f
             set status = 'cancelled', due_at = null, lease_owner = null
             from pending where f.seq = pending.seq),
         dropped as (
             insert into dropped_store_files (store_file, vector_store_id)
             select seq, $2 from pending on conflict do nothing)
         update vector_store_batches set cancelled_at = now()
         where project_id = $1 and vector_store_id = $2 and id = $3 and cancelled_at is null
             and exists (select from pending)",
    )
    .bind(project)
    .bind(store)
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn list_all(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    store: &VectorStoreId,
) -> Result<Vec<Batch>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(project);
    query.push(" and b.vector_store_id = ").push_bind(store);
    query.push(" group by b.id order by b.created_at, b.id");
    Ok(query.build_query_as().fetch_all(db).await?)
}

/// The caller has checked that the stores are the project's.
pub async fn import(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    batches: &[Batch],
) -> Result<u64, StoreError> {
    let row = |batch: &Batch| {
        serde_json::json!({
            "id": batch.id,
            "vector_store_id": batch.vector_store,
            "created_at": batch.created_at,
            "cancelled_at": batch.is_cancelled.then_some(batch.created_at),
        })
    };
    let rows: Vec<serde_json::Value> = batches.iter().map(row).collect();
    let done = sqlx::query(
        "insert into vector_store_batches (id, project_id, vector_store_id, created_at,
                                           cancelled_at)
         select id, $1, vector_store_id, created_at, cancelled_at
         from jsonb_to_recordset($2) as given (id text, vector_store_id text,
                 created_at timestamptz, cancelled_at timestamptz)
         on conflict (id) do nothing",
    )
    .bind(project)
    .bind(Json(rows))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
