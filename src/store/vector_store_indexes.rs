//! Large vector stores: an ANN index for each, and table `common_lexemes`.

use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, FromRow, PgConnection};
use tracing::log::LevelFilter;

use crate::domain::ids::VectorStoreId;
use crate::store::{Pool, StoreError};

/// Most dimensions that pgvector can index as `halfvec`.
pub const MAX_DIMENSIONS: i32 = 4_000;

/// Prefix of an index's name, before the id of its vector store.
const PREFIX: &str = "chunk_embeddings_hnsw_";

/// The advisory lock of the one session that builds or drops indexes: `assistd1` in ASCII.
const LOCK: i64 = 0x6173_7369_7374_6431;

const SAMPLE_FILES: i64 = 250;

/// Most chunks of a file in a sample.
const SAMPLE_CHUNKS: i64 = 20;

/// Minimum estimated number of chunks with a lexeme for it to count as common.
const COMMON_FROM: i64 = 2_000;

/// Measured size of a row in an index, besides the components of its vector.
const ROW_BYTES: u64 = 1_100;

/// Candidates kept while HNSW connects a vector to its neighbours. With pgvector's default of 64, a
/// build takes two thirds of the time, but with 100,000 clustered chunks the recall of the nearest
/// twenty is at most 0.98, whatever `ef_search` is; with 128 it is 0.999.
const EF_CONSTRUCTION: i32 = 128;

#[derive(Debug, Clone, FromRow)]
pub struct LargeStore {
    pub id: VectorStoreId,
    pub chunks: i64,
    /// Chunks at the time of its last sample.
    pub sampled_chunks: i64,
    pub embedding_model: Option<String>,
    pub dimensions: Option<i32>,
    /// Whether its ANN index is complete.
    pub has_index: bool,
}

pub async fn list_large(pool: &Pool, min_chunks: i64) -> Result<Vec<LargeStore>, StoreError> {
    let stores = sqlx::query_as(
        "select s.id, f.chunks, s.sampled_chunks, s.embedding_model, s.dimensions,
                exists (select from pg_index where indisvalid
                        and indexrelid = to_regclass(quote_ident($2 || s.id))) as has_index
         from (select vector_store_id, sum(chunks)::bigint as chunks from vector_store_files
               where status = 'completed' group by vector_store_id having sum(chunks) >= $1) as f
         join vector_stores as s on s.id = f.vector_store_id",
    )
    .bind(min_chunks)
    .bind(PREFIX)
    .fetch_all(pool)
    .await?;
    Ok(stores)
}

pub async fn list_orphaned(pool: &Pool) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar(
        "select relname::text from pg_index join pg_class on pg_class.oid = indexrelid
         where indrelid = 'chunk_embeddings'::regclass and starts_with(relname::text, $1)
             and not exists (select from vector_stores where id = substr(relname::text, $2))",
    )
    .bind(PREFIX)
    .bind(i32::try_from(PREFIX.len() + 1).unwrap_or(i32::MAX))
    .fetch_all(pool)
    .await?;
    Ok(names)
}

/// Estimates from a sample of its files which lexemes are common in a vector store.
pub async fn sample_lexemes(pool: &Pool, store: &LargeStore) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    let (files, sampled): (Vec<i64>, i64) = sqlx::query_as(
        "select coalesce(array_agg(seq), '{}'), coalesce(sum(least(chunks, $3)), 0)::bigint
         from (select seq, chunks from vector_store_files
               where vector_store_id = $1 and status = 'completed'
               order by random() limit $2) as some_files",
    )
    .bind(&store.id)
    .bind(SAMPLE_FILES)
    .bind(SAMPLE_CHUNKS)
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query("delete from common_lexemes where vector_store_id = $1")
        .bind(&store.id)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "insert into common_lexemes (vector_store_id, lexeme, chunks)
         select $1, word, ndoc * $4 / $5
         from ts_stat(format('select lexemes from chunks
                              where ordinal < %s and store_file = any(%L)', $3, $2::bigint[]))
         where ndoc * $4 / $5 >= $6 and exists (select from vector_stores where id = $1)",
    )
    .bind(&store.id)
    .bind(files)
    .bind(SAMPLE_CHUNKS)
    .bind(store.chunks)
    .bind(sampled.max(1))
    .bind(COMMON_FROM)
    .execute(&mut *tx)
    .await?;
    sqlx::query("update vector_stores set sampled_chunks = $2 where id = $1")
        .bind(&store.id)
        .bind(store.chunks)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

/// The session that holds the lock for building and dropping indexes.
pub struct Builder {
    session: PgConnection,
}

impl Builder {
    /// `None` if another process has the lock.
    pub async fn acquire(pool: &Pool) -> Result<Option<Self>, StoreError> {
        // Not from the pool: its settings and its lock must end with it. A slow build is normal, so
        // slow statements are not logged.
        let options = pool.options().clone();
        let options = options.log_slow_statements(LevelFilter::Off, Duration::ZERO);
        let mut session = PgConnection::connect_with(&options).await?;
        let is_free: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut session)
            .await?;
        if !is_free {
            session.close().await?;
            return Ok(None);
        }
        // A build must not outlive its process.
        sqlx::raw_sql("set statement_timeout = 0; set client_connection_check_interval = '2s'")
            .execute(&mut session)
            .await?;
        Ok(Some(Self { session }))
    }

    /// Builds the ANN index of a vector store, without blocking searches or writes. `memory` bounds
    /// `maintenance_work_mem`, in bytes.
    pub async fn build(
        &mut self,
        store: &LargeStore,
        memory: Option<u64>,
    ) -> Result<(), StoreError> {
        let name = format!("{PREFIX}{}", store.id);
        // An interrupted build leaves an invalid index under this name.
        self.drop(&name).await?;
        if let Some(memory) = memory {
            let dimensions = u64::try_from(store.dimensions.unwrap_or(0)).unwrap_or(0);
            let rows = u64::try_from(store.chunks).unwrap_or(0);
            let needed = rows * (2 * dimensions + ROW_BYTES);
            // With less memory than needed, a build takes many times as long.
            let megabytes = needed.min(memory).div_ceil(1 << 20).max(64);
            sqlx::query("select set_config('maintenance_work_mem', $1 || 'MB', false)")
                .bind(megabytes.to_string())
                .execute(&mut self.session)
                .await?;
        }
        let statement: String = sqlx::query_scalar(
            "select format('create index concurrently %I on chunk_embeddings
                            using hnsw ((embedding::halfvec(%s)) halfvec_cosine_ops)
                            with (ef_construction = %s)
                            where vector_store_id = %L', $1, $2::integer, $3::integer, $4)",
        )
        .bind(name)
        .bind(store.dimensions)
        .bind(EF_CONSTRUCTION)
        .bind(&store.id)
        .fetch_one(&mut self.session)
        .await?;
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut self.session)
            .await?;
        Ok(())
    }

    pub async fn drop(&mut self, name: &str) -> Result<(), StoreError> {
        let statement: String =
            sqlx::query_scalar("select format('drop index concurrently if exists %I', $1)")
                .bind(name)
                .fetch_one(&mut self.session)
                .await?;
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut self.session)
            .await?;
        Ok(())
    }
}
