//! Copies chunks directly into the server's database; indexing them would take hours.

use super::vectors;
use super::words::Words;
use crate::BenchError;
use crate::database::Database;
use half::f16;
use sqlx::AssertSqlSafe;
use sqlx::PgPool;
use sqlx::postgres::PgPoolCopyExt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::Sender;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio::time::sleep;

/// The embedding model of the stores, which the fake upstream serves.
pub(super) const MODEL: &str = "bench-embedding";

/// Bytes per message to the database.
const BLOCK: usize = 1 << 20;

/// A store to fill.
pub(super) struct Empty {
    pub(super) id: String,
    pub(super) chunks: u64,
    pub(super) chunks_per_file: u64,
}

/// A store with chunks.
#[derive(Clone)]
pub(super) struct Filled {
    pub(super) id: String,
    /// The range of its chunk numbers.
    pub(super) chunks: Range<u64>,
}

/// A store being filled.
struct Filling {
    id: String,
    chunks: Range<u64>,
    chunks_per_file: u64,
    /// The keys of its files.
    files: Vec<i64>,
}

impl Filling {
    /// Its chunks, each with its file's key and its position in the file.
    fn chunks(&self) -> impl Iterator<Item = (u64, i64, i32)> {
        self.chunks.clone().map(|chunk| {
            let place = chunk - self.chunks.start;
            let file = self.files[(place / self.chunks_per_file) as usize];
            (chunk, file, (place % self.chunks_per_file) as i32)
        })
    }
}

/// Fills stores, in the order given.
pub(super) async fn fill(
    database: &Database,
    words: &Arc<Words>,
    stores: Vec<Empty>,
) -> Result<Vec<Filled>, BenchError> {
    let pool = database.pool();
    let mut first = sqlx::query_scalar::<_, i64>("select coalesce(max(id), 0) + 1 from chunks")
        .fetch_one(pool)
        .await?
        .cast_unsigned();
    let mut filling = Vec::with_capacity(stores.len());
    for store in stores {
        // Each topic belongs to one store.
        first = first.next_multiple_of(vectors::CHUNKS_PER_TOPIC);
        let chunks = first..first + store.chunks;
        first = chunks.end;
        filling.push(Filling {
            files: add_files(pool, &store, chunks.start).await?,
            id: store.id,
            chunks,
            chunks_per_file: store.chunks_per_file,
        });
    }
    let filling = Arc::new(filling);
    let chunks: u64 = filling
        .iter()
        .map(|store| store.chunks.clone().count() as u64)
        .sum();
    // Building the lexical index from the whole table is faster than inserting row by row.
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "select indexrelid::regclass::text, pg_get_indexdef(indexrelid)
         from pg_index join pg_class on pg_class.oid = indexrelid
             join pg_am on pg_am.oid = relam
         where indrelid = 'chunks'::regclass and amname = 'gin' and $1 > 1000",
    )
    .bind(chunks.cast_signed())
    .fetch_all(pool)
    .await?;
    for (name, _) in &indexes {
        run(pool, format!("drop index {name}")).await?;
    }
    copy_chunks(pool, words, &filling).await?;
    copy_embeddings(pool, &filling).await?;
    for (_, definition) in indexes {
        run(pool, definition).await?;
    }
    let ids: Vec<&str> = filling.iter().map(|store| &*store.id).collect();
    check(pool, &ids).await?;
    for statement in [
        "select setval(pg_get_serial_sequence('chunks', 'id'), (select max(id) from chunks))",
        "vacuum (analyze) chunks, chunk_embeddings",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    settle(database).await;
    // Tells the server's statistics that there are chunks.
    sqlx::query(
        "update vector_store_files as f
         set chunks = found.chunks, tokens = found.tokens, usage_bytes = found.bytes
         from (select store_file, count(*) as chunks, sum(tokens) as tokens,
                      sum(octet_length(content)) as bytes
               from chunks where vector_store_id = any($1) group by store_file) as found
         where f.seq = found.store_file",
    )
    .bind(&ids)
    .execute(pool)
    .await?;
    sqlx::query("vacuum (analyze) vector_store_files, files, vector_stores")
        .execute(pool)
        .await?;
    let filled = filling.iter().map(|store| Filled {
        id: store.id.clone(),
        chunks: store.chunks.clone(),
    });
    Ok(filled.collect())
}

/// Runs a checkpoint, so that none happens during a measurement. Needs a privileged role.
pub(super) async fn settle(database: &Database) {
    let _ = sqlx::query("checkpoint").execute(database.pool()).await;
}

/// Waits until the store has an ANN index; the time it took.
pub(super) async fn wait_for_index(
    database: &Database,
    store: &Filled,
) -> Result<Duration, BenchError> {
    let start = Instant::now();
    loop {
        let found: bool = sqlx::query_scalar(
            "select exists (
                 select from pg_index join pg_class on pg_class.oid = indexrelid
                 where indrelid = 'chunk_embeddings'::regclass and indisvalid
                     and relname like 'chunk_embeddings_hnsw_%'
                     and pg_get_expr(indpred, indrelid) like '%' || $1 || '%')",
        )
        .bind(&store.id)
        .fetch_one(database.pool())
        .await?;
        if found {
            return Ok(start.elapsed());
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// The numbers of the chunks nearest to a vector, by an exact scan.
pub(super) async fn nearest(
    database: &Database,
    store: &Filled,
    vector: &[f32],
    limit: i64,
) -> Result<Vec<i64>, BenchError> {
    let mut text = String::new();
    vectors::write(vector, &mut text);
    let dimensions = vector.len();
    // `+ 0` keeps the planner from using an index, and the subquery is evaluated once instead of per
    // row. The statement has only a number inserted.
    let sql = format!(
        "select chunk_id from chunk_embeddings where vector_store_id = $1
         order by (embedding::halfvec({dimensions}) <=> (select $2::halfvec({dimensions}))) + 0
         limit $3"
    );
    let found = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(&store.id)
        .bind(text)
        .bind(limit)
        .fetch_all(database.pool())
        .await?;
    Ok(found)
}

/// Adds a store's files; their keys.
async fn add_files(pool: &PgPool, store: &Empty, first: u64) -> Result<Vec<i64>, BenchError> {
    let files = store.chunks.div_ceil(store.chunks_per_file);
    sqlx::query("update vector_stores set embedding_model = $2, dimensions = $3 where id = $1")
        .bind(&store.id)
        .bind(MODEL)
        .bind(vectors::DIMENSIONS as i32)
        .execute(pool)
        .await?;
    sqlx::query(
        "insert into files (id, project_id, filename, bytes, purpose)
         select 'file-bench' || lpad(($2 + n)::text, 12, '0'), project_id, 'report-' || n || '.txt',
                40000, 'assistants'
         from vector_stores cross join generate_series(0, $3 - 1) as n where id = $1",
    )
    .bind(&store.id)
    .bind(first.cast_signed())
    .bind(files.cast_signed())
    .execute(pool)
    .await?;
    // Attributes are independent of topics: 1 % of the files per year, half of them per language.
    let mut keys: Vec<(String, i64)> = sqlx::query_as(
        "insert into vector_store_files (vector_store_id, file_id, project_id, status, attributes,
                                         chunk_tokens, chunk_overlap)
         select s.id, f.id, s.project_id, 'completed',
                jsonb_build_object('year', 1925 + n * 37 % 100,
                                   'lang', case n / 7 % 2 when 0 then 'en' else 'de' end),
                800, 400
         from vector_stores as s cross join generate_series(0, $3 - 1) as n
             join files as f on f.id = 'file-bench' || lpad(($2 + n)::text, 12, '0')
         where s.id = $1 returning file_id, seq",
    )
    .bind(&store.id)
    .bind(first.cast_signed())
    .bind(files.cast_signed())
    .fetch_all(pool)
    .await?;
    keys.sort();
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

async fn copy_chunks(
    pool: &PgPool,
    words: &Arc<Words>,
    stores: &Arc<Vec<Filling>>,
) -> Result<(), BenchError> {
    let lexemes: Vec<Option<String>> = sqlx::query_scalar(
        "select (tsvector_to_array(to_tsvector('english', word)))[1]
         from unnest($1::text[]) with ordinality as t (word, n) order by n",
    )
    .bind(words.all())
    .fetch_all(pool)
    .await?;
    let (words, stores) = (words.clone(), stores.clone());
    copy(
        pool,
        "copy chunks (id, vector_store_id, store_file, ordinal, content, tokens, overlap_bytes,
                      lexemes) from stdin (format binary)",
        move |rows| {
            for store in stores.iter() {
                for (chunk, file, ordinal) in store.chunks() {
                    let text_words = words.of_chunk(chunk);
                    let mut content = format!("c{chunk} ");
                    words.write(&text_words, &mut content);
                    let tokens = (text_words.len() * 4 / 3) as i32;
                    rows.begin(8);
                    rows.field(&chunk.to_be_bytes());
                    rows.field(store.id.as_bytes());
                    rows.field(&file.to_be_bytes());
                    rows.field(&ordinal.to_be_bytes());
                    rows.field(content.as_bytes());
                    rows.field(&tokens.to_be_bytes());
                    rows.field(&0_i32.to_be_bytes());
                    rows.field(&text_vector(chunk, &text_words, &lexemes));
                    if !rows.send() {
                        return;
                    }
                }
            }
        },
    )
    .await
}

async fn copy_embeddings(pool: &PgPool, stores: &Arc<Vec<Filling>>) -> Result<(), BenchError> {
    let stores = stores.clone();
    copy(
        pool,
        "copy chunk_embeddings (chunk_id, vector_store_id, store_file, embedding)
         from stdin (format binary)",
        move |rows| {
            for store in stores.iter() {
                for (chunk, file, _) in store.chunks() {
                    // Binary halfvec: dimensions, an unused field, the numbers.
                    let vector = vectors::of_chunk(chunk);
                    let mut embedding = (vector.len() as u16).to_be_bytes().to_vec();
                    embedding.extend([0, 0]);
                    let halves = vector.into_iter().map(f16::from_f32);
                    embedding.extend(halves.flat_map(f16::to_be_bytes));
                    rows.begin(4);
                    rows.field(&chunk.to_be_bytes());
                    rows.field(store.id.as_bytes());
                    rows.field(&file.to_be_bytes());
                    rows.field(&embedding);
                    if !rows.send() {
                        return;
                    }
                }
            }
        },
    )
    .await
}

/// A chunk's tsvector in PostgreSQL's binary form: the number of lexemes, and for each its text, the
/// number of its positions, and the positions.
fn text_vector(chunk: u64, words: &[usize], lexemes: &[Option<String>]) -> Vec<u8> {
    let name = format!("c{chunk}");
    let mut places: Vec<(&str, u16)> = vec![(&name, 1)];
    places.extend(words.iter().zip(2..).filter_map(|(word, place)| {
        let lexeme = lexemes[*word].as_deref()?;
        Some((lexeme, place))
    }));
    places.sort_unstable();
    let groups = || places.chunk_by(|(a, _), (b, _)| a == b);
    let mut vector = (groups().count() as u32).to_be_bytes().to_vec();
    for group in groups() {
        vector.extend_from_slice(group[0].0.as_bytes());
        vector.push(0);
        vector.extend((group.len() as u16).to_be_bytes());
        vector.extend(group.iter().flat_map(|(_, place)| place.to_be_bytes()));
    }
    vector
}

/// Checks a few chunks' lexemes against PostgreSQL's.
async fn check(pool: &PgPool, stores: &[&str]) -> Result<(), BenchError> {
    let (seen, wrong): (i64, i64) = sqlx::query_as(
        "select count(*),
                count(*) filter (where lexemes <> to_tsvector('english', content))
         from (select * from chunks where vector_store_id = any($1) limit 50) as those",
    )
    .bind(stores)
    .fetch_one(pool)
    .await?;
    if seen == 0 || wrong > 0 {
        return Err(BenchError::Unexpected("the chunks were filled in wrongly"));
    }
    Ok(())
}

/// A `COPY` of rows in PostgreSQL's binary format.
struct Rows {
    block: Vec<u8>,
    blocks: Sender<Vec<u8>>,
}

impl Rows {
    fn begin(&mut self, fields: i16) {
        self.block.extend(fields.to_be_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        self.block.extend((bytes.len() as u32).to_be_bytes());
        self.block.extend_from_slice(bytes);
    }

    /// Sends the buffered rows if there are enough; whether the receiver still exists.
    fn send(&mut self) -> bool {
        self.block.len() < BLOCK || self.flush()
    }

    fn flush(&mut self) -> bool {
        self.blocks
            .blocking_send(std::mem::take(&mut self.block))
            .is_ok()
    }
}

async fn copy(
    pool: &PgPool,
    statement: &str,
    make: impl FnOnce(&mut Rows) + Send + 'static,
) -> Result<(), BenchError> {
    let (blocks, mut made) = mpsc::channel(8);
    let making = spawn_blocking(move || {
        let mut block = b"PGCOPY\n\xff\r\n\0".to_vec();
        // No flags and no header extension.
        block.extend([0; 8]);
        let mut rows = Rows { block, blocks };
        make(&mut rows);
        rows.block.extend((-1_i16).to_be_bytes());
        rows.flush();
    });
    let mut copy = pool.copy_in_raw(statement).await?;
    while let Some(block) = made.recv().await {
        copy.send(block).await?;
    }
    copy.finish().await?;
    making.await.expect("rows are made without panic");
    Ok(())
}

/// Executes a statement with the name of one of the server's indexes.
async fn run(pool: &PgPool, statement: String) -> Result<(), BenchError> {
    sqlx::query(AssertSqlSafe(statement)).execute(pool).await?;
    Ok(())
}
