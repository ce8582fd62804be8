//! Table `vector_store_files` as a queue: files that are to be indexed. Only a lease writes what
//! comes of it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor};

use crate::domain::ids::{FileId, ProjectId, VectorStoreId};
use crate::domain::vector_store::IndexError;
use crate::store::Pool;
use crate::store::StoreError;

/// A file in a worker's hands.
#[derive(Debug, Clone, FromRow)]
pub struct IndexJob {
    /// Names the file in its store, for its chunks.
    pub seq: i64,
    /// Counts the workers that had it; shown with every write.
    pub attempt: i32,
    /// Whose it is.
    pub project_id: ProjectId,
    /// The store.
    pub vector_store_id: VectorStoreId,
    /// The file.
    pub file_id: FileId,
    /// Its name, which tells its kind.
    pub filename: String,
    /// Its size.
    pub bytes: i64,
    /// Most tokens of a chunk.
    pub chunk_tokens: i32,
    /// Tokens that a chunk shares with the one before.
    pub chunk_overlap: i32,
    /// How often it could not be done, for reasons that may pass.
    pub failures: i32,
}

/// A chunk that is to be stored.
#[derive(Debug, Clone)]
pub struct NewChunk {
    /// Position in its file.
    pub ordinal: i32,
    /// The page or slide that it begins on.
    pub page: Option<i32>,
    /// The heading that it begins under.
    pub heading: Option<String>,
    /// Its text.
    pub content: String,
    /// Tokens of the text.
    pub tokens: i32,
    /// Bytes at its beginning that repeat the chunk before.
    pub overlap_bytes: i32,
    /// Its vector, if there is a model.
    pub embedding: Option<Vec<f32>>,
}

/// Takes up to `limit` due files, the longest due first.
pub async fn claim(
    db: impl PgExecutor<'_>,
    owner: &str,
    lease: Duration,
    limit: usize,
) -> Result<Vec<IndexJob>, StoreError> {
    let jobs = sqlx::query_as(
        "with due as (
             select seq from vector_store_files where due_at <= now()
             order by due_at limit $3 for update skip locked),
         claimed as (
             update vector_store_files as f
             set attempt = attempt + 1, lease_owner = $1, due_at = now() + $2
             from due where f.seq = due.seq returning f.*)
         select c.seq, attempt, c.project_id, vector_store_id, file_id, filename, files.bytes,
                chunk_tokens, chunk_overlap, failures
         from claimed as c join files on files.id = file_id",
    )
    .bind(owner)
    .bind(lease)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(db)
    .await?;
    Ok(jobs)
}

/// How many files are not indexed yet.
pub async fn count_pending(db: impl PgExecutor<'_>) -> Result<i64, StoreError> {
    let count =
        sqlx::query_scalar("select count(*) from vector_store_files where due_at is not null");
    Ok(count.fetch_one(db).await?)
}

/// Renews the leases of these jobs. A job that was claimed again since is left alone.
pub async fn renew(
    db: impl PgExecutor<'_>,
    jobs: &[Arc<IndexJob>],
    lease: Duration,
) -> Result<(), StoreError> {
    let (seqs, attempts): (Vec<i64>, Vec<i32>) =
        jobs.iter().map(|job| (job.seq, job.attempt)).unzip();
    // Locked in order, so that nobody who locks several waits in a circle.
    sqlx::query(
        "with held as (
             select f.seq from vector_store_files as f
             join unnest($1::bigint[], $2::int[]) as job (seq, attempt)
                 on job.seq = f.seq and job.attempt = f.attempt
             where f.due_at is not null order by f.seq for update of f)
         update vector_store_files as f set due_at = now() + $3
         from held where f.seq = held.seq",
    )
    .bind(seqs)
    .bind(attempts)
    .bind(lease)
    .execute(db)
    .await?;
    Ok(())
}

/// How many chunks of a file are stored already, by an attempt that did not come to its end.
pub async fn count_stored_chunks(
    db: impl PgExecutor<'_>,
    job: &IndexJob,
) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar("select count(*) from chunks where store_file = $1")
        .bind(job.seq)
        .fetch_one(db)
        .await?;
    Ok(count)
}

/// The embedding model of a store and how many numbers its vectors have, if it has one yet.
pub async fn find_model(
    db: impl PgExecutor<'_>,
    store: &VectorStoreId,
) -> Result<Option<(String, i32)>, StoreError> {
    let model = sqlx::query_as(
        "select embedding_model, dimensions from vector_stores
         where id = $1 and embedding_model is not null",
    )
    .bind(store)
    .fetch_optional(db)
    .await?;
    Ok(model)
}

/// The embedding model of a store; if it has none yet, it has this one from now on. `None` for a
/// store without.
pub async fn fix_model(
    db: impl PgExecutor<'_>,
    store: &VectorStoreId,
    model: &str,
    dimensions: i32,
) -> Result<Option<(String, i32)>, StoreError> {
    let settled = sqlx::query_as(
        "update vector_stores set embedding_model = coalesce(embedding_model, $2),
             dimensions = coalesce(dimensions, $3)
         where id = $1 returning embedding_model, dimensions",
    )
    .bind(store)
    .bind(model)
    .bind(dimensions)
    .fetch_optional(db)
    .await?;
    Ok(settled)
}

/// Stores some chunks of a file.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the file is in other hands, cancelled or gone.
pub async fn add_chunks(
    pool: &Pool,
    job: &IndexJob,
    language: &str,
    chunks: &[NewChunk],
) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    hold(&mut tx, job).await?;
    let column = |value: fn(&NewChunk) -> i32| chunks.iter().map(value).collect::<Vec<i32>>();
    let pages: Vec<Option<i32>> = chunks.iter().map(|chunk| chunk.page).collect();
    let headings: Vec<Option<&str>> = chunks.iter().map(|c| c.heading.as_deref()).collect();
    let contents: Vec<&str> = chunks.iter().map(|chunk| chunk.content.as_str()).collect();
    let embeddings: Vec<Option<String>> = chunks
        .iter()
        .map(|chunk| chunk.embedding.as_deref().map(vector_text))
        .collect();
    sqlx::query(
        "with given as (
             select * from unnest($4::integer[], $5::integer[], $6::text[], $7::text[],
                                  $8::integer[], $9::integer[], $10::text[])
                 as t (ordinal, page, heading, content, tokens, overlap_bytes, embedding)),
         stored as (
             insert into chunks (vector_store_id, store_file, ordinal, page, heading, content,
                                 tokens, overlap_bytes, lexemes)
             select $1, $2, ordinal, page, heading, content, tokens, overlap_bytes,
                    to_tsvector($3::regconfig, concat_ws(' ', heading, content))
             from given returning id, ordinal)
         insert into chunk_embeddings (chunk_id, vector_store_id, store_file, embedding)
         select stored.id, $1, $2, embedding::halfvec
         from stored join given using (ordinal) where embedding is not null",
    )
    .bind(&job.vector_store_id)
    .bind(job.seq)
    .bind(language)
    .bind(column(|chunk| chunk.ordinal))
    .bind(pages)
    .bind(headings)
    .bind(contents)
    .bind(column(|chunk| chunk.tokens))
    .bind(column(|chunk| chunk.overlap_bytes))
    .bind(embeddings)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Takes the chunks over that the same contents have somewhere in the project; whether there were any.
///
/// They must be cut in the same way and embedded by the store's model. Chunks of the file that are
/// stored already go. A store that has no model yet has `model` from now on, if it is given.
pub async fn copy_chunks(
    pool: &Pool,
    job: &IndexJob,
    sha256: &[u8],
    model: Option<&str>,
) -> Result<bool, StoreError> {
    // A store may have got its model after some of its files: those have no vectors.
    let source: Option<(i64, Option<String>, Option<i32>)> = sqlx::query_as(
        "select f.seq,
                case when ours.embedding_model is null then theirs.embedding_model end,
                theirs.dimensions
         from vector_store_files as f
         join vector_stores as theirs on theirs.id = f.vector_store_id
         join vector_stores as ours on ours.id = $3
         where f.project_id = $1 and f.sha256 = $2 and f.status = 'completed'
             and f.chunk_tokens = $4 and f.chunk_overlap = $5
             and theirs.embedding_model
                 is not distinct from coalesce(ours.embedding_model, $6)
             and (ours.dimensions is null or theirs.dimensions = ours.dimensions)
             and (theirs.embedding_model is null
                  or exists (select from chunk_embeddings as e
                             where e.vector_store_id = theirs.id and e.store_file = f.seq))
         limit 1",
    )
    .bind(&job.project_id)
    .bind(sha256)
    .bind(&job.vector_store_id)
    .bind(job.chunk_tokens)
    .bind(job.chunk_overlap)
    .bind(model)
    .fetch_optional(pool)
    .await?;
    let Some((source, new_model, dimensions)) = source else {
        return Ok(false);
    };
    let mut tx = pool.begin().await?;
    // The store before the file, in the order in which a deletion takes them.
    if let (Some(model), Some(dimensions)) = (new_model, dimensions) {
        let settled = fix_model(&mut *tx, &job.vector_store_id, &model, dimensions).await?;
        if settled != Some((model, dimensions)) {
            return Ok(false);
        }
    }
    hold(&mut tx, job).await?;
    let kept: Option<i64> = sqlx::query_scalar(
        "select seq from vector_store_files
         where seq = $1 and status = 'completed' for key share skip locked",
    )
    .bind(source)
    .fetch_optional(&mut *tx)
    .await?;
    if kept.is_none() {
        return Ok(false);
    }
    for statement in [
        "delete from chunk_embeddings where store_file = $1",
        "delete from chunks where store_file = $1",
    ] {
        sqlx::query(statement)
            .bind(job.seq)
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query(
        "with stored as (
             insert into chunks (vector_store_id, store_file, ordinal, page, heading, content,
                                 tokens, overlap_bytes, lexemes)
             select $1, $2, ordinal, page, heading, content, tokens, overlap_bytes, lexemes
             from chunks where store_file = $3 returning id, ordinal)
         insert into chunk_embeddings (chunk_id, vector_store_id, store_file, embedding)
         select stored.id, $1, $2, embedding
         from stored join chunks as theirs
             on theirs.store_file = $3 and theirs.ordinal = stored.ordinal
         join chunk_embeddings on chunk_id = theirs.id",
    )
    .bind(&job.vector_store_id)
    .bind(job.seq)
    .bind(source)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(true)
}

/// The file is indexed. A file that is in other hands, cancelled or gone stays as it is.
pub async fn complete(
    db: impl PgExecutor<'_>,
    job: &IndexJob,
    sha256: &[u8],
) -> Result<(), StoreError> {
    sqlx::query(
        "update vector_store_files as f
         set status = 'completed', due_at = null, lease_owner = null, sha256 = $3,
             chunks = found.chunks, tokens = found.tokens, usage_bytes = found.bytes
         from (select count(*) as chunks, coalesce(sum(tokens), 0) as tokens,
                      coalesce(sum(octet_length(content) - overlap_bytes), 0) as bytes
               from chunks where store_file = $1) as found
         where f.seq = $1 and f.attempt = $2 and f.status = 'in_progress'",
    )
    .bind(job.seq)
    .bind(job.attempt)
    .bind(sha256)
    .execute(db)
    .await?;
    Ok(())
}

/// The file cannot be indexed. Its chunks go with the sweep.
pub async fn fail(
    db: impl PgExecutor<'_>,
    job: &IndexJob,
    error: &IndexError,
) -> Result<(), StoreError> {
    sqlx::query(
        "with failed as (
             update vector_store_files
             set status = 'failed', due_at = null, lease_owner = null, last_error = $3
             where seq = $1 and attempt = $2 and status = 'in_progress'
             returning seq, vector_store_id)
         insert into dropped_store_files (store_file, vector_store_id)
         select seq, vector_store_id from failed on conflict do nothing",
    )
    .bind(job.seq)
    .bind(job.attempt)
    .bind(Json(error))
    .execute(db)
    .await?;
    Ok(())
}

/// Ends the lease, so that any process can claim the job at once.
pub async fn release(db: impl PgExecutor<'_>, job: &IndexJob) -> Result<(), StoreError> {
    sqlx::query(
        "update vector_store_files set due_at = now(), lease_owner = null
         where seq = $1 and attempt = $2 and status = 'in_progress'",
    )
    .bind(job.seq)
    .bind(job.attempt)
    .execute(db)
    .await?;
    Ok(())
}

/// Counts a failure and ends the lease; the job is due again after `pause`.
pub async fn retry_after(
    db: impl PgExecutor<'_>,
    job: &IndexJob,
    pause: Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "update vector_store_files
         set due_at = now() + $3, lease_owner = null, failures = failures + 1
         where seq = $1 and attempt = $2 and status = 'in_progress'",
    )
    .bind(job.seq)
    .bind(job.attempt)
    .bind(pause)
    .execute(db)
    .await?;
    Ok(())
}

/// Makes all leased files due at once; how many there were. Only for a process that knows that no
/// other one is alive.
pub async fn release_all(db: impl PgExecutor<'_>) -> Result<u64, StoreError> {
    let released = sqlx::query(
        "update vector_store_files set due_at = now(), lease_owner = null
         where due_at is not null and lease_owner is not null",
    )
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}

/// Deletes chunks of files that are in no store any more; whether there may be more.
pub async fn delete_dropped_chunks(pool: &Pool, limit: i64) -> Result<bool, StoreError> {
    let mut tx = pool.begin().await?;
    let dropped: Option<i64> = sqlx::query_scalar(
        "select store_file from dropped_store_files limit 1 for update skip locked",
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(file) = dropped else {
        return Ok(false);
    };
    let gone = sqlx::query(
        "with doomed as (
             delete from chunks where id in (
                 select id from chunks where store_file = $1 order by ordinal limit $2)
             returning id)
         delete from chunk_embeddings where chunk_id in (select id from doomed)",
    );
    gone.bind(file).bind(limit).execute(&mut *tx).await?;
    sqlx::query(
        "delete from dropped_store_files
         where store_file = $1 and not exists (select from chunks where store_file = $1)",
    )
    .bind(file)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(true)
}

/// Makes sure that the file stays in this worker's hands until the transaction ends.
async fn hold(conn: &mut PgConnection, job: &IndexJob) -> Result<(), StoreError> {
    let held: Option<i64> = sqlx::query_scalar(
        "select seq from vector_store_files
         where seq = $1 and attempt = $2 and status = 'in_progress' for update",
    )
    .bind(job.seq)
    .bind(job.attempt)
    .fetch_optional(conn)
    .await?;
    held.map(drop).ok_or(StoreError::LeaseLost)
}

/// A vector as PostgreSQL reads it.
pub(super) fn vector_text(vector: &[f32]) -> String {
    let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
    format!("[{}]", numbers.join(","))
}
