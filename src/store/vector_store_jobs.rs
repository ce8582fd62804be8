//! Table `vector_store_files` as a queue of indexing jobs. Every write shows the attempt, and changes
//! nothing if the lease is lost.

use std::sync::Arc;
use std::time::Duration;

use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgExecutor};

use crate::domain::ids::{FileId, ProjectId, VectorStoreId};
use crate::domain::vector_store::IndexError;
use crate::store::{Pool, StoreError};

#[derive(Debug, Clone, FromRow)]
pub struct IndexJob {
    /// The key of the row, to which its chunks belong. A file that is removed from a store and added
    /// again gets a new one.
    pub seq: i64,
    pub attempt: i32,
    pub project_id: ProjectId,
    pub vector_store_id: VectorStoreId,
    pub file_id: FileId,
    /// Its extension decides how the file is read.
    pub filename: String,
    pub bytes: i64,
    pub chunk_tokens: i32,
    pub chunk_overlap: i32,
    /// Attempts that ended in a transient failure.
    pub failures: i32,
}

#[derive(Debug, Clone)]
pub struct NewChunk {
    /// Position in its file, from 0.
    pub ordinal: i32,
    pub page: Option<i32>,
    pub heading: Option<String>,
    pub content: String,
    pub tokens: i32,
    /// Bytes at its beginning that repeat the previous chunk.
    pub overlap_bytes: i32,
    /// `None` without an embedding model.
    pub embedding: Option<Vec<f32>>,
}

/// Claims up to `limit` due files, the longest due first.
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
    // Locked in order, so that statements that lock several rows cannot deadlock.
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

/// Sets the embedding model and dimensions of a vector store that has none yet. Returns those that it
/// has then; `None` if the store was deleted.
pub async fn fix_model(
    db: impl PgExecutor<'_>,
    store: &VectorStoreId,
    model: &str,
    dimensions: i32,
) -> Result<Option<(String, i32)>, StoreError> {
    let fixed = sqlx::query_as(
        "update vector_stores set embedding_model = coalesce(embedding_model, $2),
             dimensions = coalesce(dimensions, $3)
         where id = $1 returning embedding_model, dimensions",
    )
    .bind(store)
    .bind(model)
    .bind(dimensions)
    .fetch_optional(db)
    .await?;
    Ok(fixed)
}

/// Stores some chunks of a file.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the job was claimed again, cancelled or deleted.
pub async fn add_chunks(
    pool: &Pool,
    job: &IndexJob,
    language: &str,
    chunks: &[NewChunk],
) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    lock_job(&mut tx, job).await?;
    let columns = ChunkColumns::from(chunks);
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
    .bind(columns.ordinals)
    .bind(columns.pages)
    .bind(columns.headings)
    .bind(columns.contents)
    .bind(columns.tokens)
    .bind(columns.overlap_bytes)
    .bind(columns.embeddings)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Chunks by column, in the order of the parameters $4 to $10.
#[derive(Default)]
struct ChunkColumns<'a> {
    ordinals: Vec<i32>,
    pages: Vec<Option<i32>>,
    headings: Vec<Option<&'a str>>,
    contents: Vec<&'a str>,
    tokens: Vec<i32>,
    overlap_bytes: Vec<i32>,
    embeddings: Vec<Option<String>>,
}

impl<'a> From<&'a [NewChunk]> for ChunkColumns<'a> {
    fn from(chunks: &'a [NewChunk]) -> Self {
        let mut columns = Self::default();
        for chunk in chunks {
            columns.ordinals.push(chunk.ordinal);
            columns.pages.push(chunk.page);
            columns.headings.push(chunk.heading.as_deref());
            columns.contents.push(&chunk.content);
            columns.tokens.push(chunk.tokens);
            columns.overlap_bytes.push(chunk.overlap_bytes);
            let embedding = chunk.embedding.as_deref().map(vector_text);
            columns.embeddings.push(embedding);
        }
        columns
    }
}

#[derive(sqlx::FromRow)]
struct CopySource {
    seq: i64,
    last_error: Option<Json<IndexError>>,
    new_model: Option<String>,
    dimensions: Option<i32>,
}

pub struct CopiedChunks {
    /// Why a part of the file's text is missing in them.
    pub incomplete: Option<IndexError>,
}

/// Copies the chunks of a file of the project with the same contents, chunking and embedding model.
/// `None` if there is no such file.
///
/// Chunks that earlier attempts have stored are replaced. A store without an embedding model gets
/// `model`.
pub async fn copy_chunks(
    pool: &Pool,
    job: &IndexJob,
    sha256: &[u8],
    model: Option<&str>,
) -> Result<Option<CopiedChunks>, StoreError> {
    // A file may be older than its store's model, and then it has no embeddings.
    let source: Option<CopySource> = sqlx::query_as(
        "select f.seq, f.last_error,
                case when ours.embedding_model is null then theirs.embedding_model end
                    as new_model,
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
    let Some(source) = source else {
        return Ok(None);
    };
    let mut tx = pool.begin().await?;
    // The store is locked before the file, in the same order as by a deletion.
    if let (Some(model), Some(dimensions)) = (source.new_model, source.dimensions) {
        let fixed = fix_model(&mut *tx, &job.vector_store_id, &model, dimensions).await?;
        if fixed != Some((model, dimensions)) {
            return Ok(None);
        }
    }
    lock_job(&mut tx, job).await?;
    let locked_source: Option<i64> = sqlx::query_scalar(
        "select seq from vector_store_files
         where seq = $1 and status = 'completed' for key share skip locked",
    )
    .bind(source.seq)
    .fetch_optional(&mut *tx)
    .await?;
    if locked_source.is_none() {
        return Ok(None);
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
    .bind(source.seq)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Some(CopiedChunks {
        incomplete: source.last_error.map(|Json(error)| error),
    }))
}

/// Records that the file is indexed; `incomplete` says why a part of its text is missing.
pub async fn complete(
    db: impl PgExecutor<'_>,
    job: &IndexJob,
    sha256: &[u8],
    incomplete: Option<&IndexError>,
) -> Result<(), StoreError> {
    sqlx::query(
        "update vector_store_files as f
         set status = 'completed', due_at = null, lease_owner = null, sha256 = $3, last_error = $4,
             chunks = stored.chunks, tokens = stored.tokens, usage_bytes = stored.bytes
         from (select count(*) as chunks, coalesce(sum(tokens), 0) as tokens,
                      coalesce(sum(octet_length(content) - overlap_bytes), 0) as bytes
               from chunks where store_file = $1) as stored
         where f.seq = $1 and f.attempt = $2 and f.status = 'in_progress'",
    )
    .bind(job.seq)
    .bind(job.attempt)
    .bind(sha256)
    .bind(incomplete.map(Json))
    .execute(db)
    .await?;
    Ok(())
}

/// Records that the file cannot be indexed. Maintenance deletes its chunks.
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

/// Ends all leases and returns their number. Only for a process that knows that no other one is alive.
pub async fn release_all(db: impl PgExecutor<'_>) -> Result<u64, StoreError> {
    let released = sqlx::query(
        "update vector_store_files set due_at = now(), lease_owner = null
         where due_at is not null and lease_owner is not null",
    )
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}

/// Deletes up to `limit` chunks of a file that was removed from its store. Returns false if there is
/// none.
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
    let deletion = sqlx::query(
        "with deleted as (
             delete from chunks where id in (
                 select id from chunks where store_file = $1 order by ordinal limit $2)
             returning id)
         delete from chunk_embeddings where chunk_id in (select id from deleted)",
    );
    deletion.bind(file).bind(limit).execute(&mut *tx).await?;
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

/// Locks the row, so that the lease cannot be lost until the transaction ends.
async fn lock_job(conn: &mut PgConnection, job: &IndexJob) -> Result<(), StoreError> {
    let locked: Option<i64> = sqlx::query_scalar(
        "select seq from vector_store_files
         where seq = $1 and attempt = $2 and status = 'in_progress' for update",
    )
    .bind(job.seq)
    .bind(job.attempt)
    .fetch_optional(conn)
    .await?;
    locked.map(drop).ok_or(StoreError::LeaseLost)
}

pub(super) fn vector_text(vector: &[f32]) -> String {
    let components: Vec<String> = vector.iter().map(f32::to_string).collect();
    format!("[{}]", components.join(","))
}
