//! Tables `chunks` and `chunk_embeddings`, as searched. Only chunks of completely indexed files are
//! found.

use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};

use crate::domain::ids::{FileId, VectorStoreId};
use crate::domain::vector_store::Filter;
use crate::store::attribute_filter;
use crate::store::vector_store_jobs::vector_text;
use crate::store::{Pool, StoreError, Transaction};

/// What a search considers: a vector store, or the files of it that match a filter.
#[derive(Debug, Clone)]
pub struct Scope {
    store: VectorStoreId,
    files: Option<Vec<i64>>,
    /// Without a filter, the few files whose chunks must be skipped: not completely indexed yet, or
    /// removed from the store.
    excluded: Vec<i64>,
    pub totals: Totals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub chunks: i64,
    pub tokens: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    pub lexeme: String,
    /// Chunks that have it; a lower bound if it is very common.
    pub chunks: i64,
    /// The ids of these chunks, unless it is very common.
    pub ids: Option<Vec<i64>>,
}

#[derive(Debug, Clone, FromRow)]
pub struct Candidate {
    pub id: i64,
    pub tokens: i32,
    pub lexemes: Lexemes,
}

/// The lexemes of a chunk in the binary form of a `tsvector`.
///
/// That is their number, then each with a zero byte, the number of its positions, and the positions,
/// big endian. Counting here takes a tenth of the time that PostgreSQL takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct Lexemes(Vec<u8>);

impl Lexemes {
    /// Each lexeme with its frequency in the chunk.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> {
        let mut rest = self.0.get(4..).unwrap_or_default();
        std::iter::from_fn(move || {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let lexeme = rest.get(..end)?;
            let count = rest.get(end + 1..end + 3)?;
            let count = u16::from_be_bytes([count[0], count[1]]);
            rest = rest.get(end + 3 + 2 * usize::from(count)..)?;
            Some((lexeme, count.into()))
        })
    }
}

#[derive(Debug, Clone, FromRow)]
pub struct ChunkRow {
    pub id: i64,
    pub file_id: FileId,
    pub filename: String,
    pub attributes: Json<serde_json::Map<String, serde_json::Value>>,
    pub page: Option<i32>,
    pub heading: Option<String>,
    pub content: String,
    pub tokens: i32,
    /// Cosine similarities to the queries' vectors, in their order.
    pub similarities: Vec<Option<f64>>,
    pub lexemes: Lexemes,
}

#[cfg(test)]
impl<'a> FromIterator<(&'a str, u16)> for Lexemes {
    fn from_iter<T: IntoIterator<Item = (&'a str, u16)>>(lexemes: T) -> Self {
        let mut sent = vec![0; 4];
        for (lexeme, frequency) in lexemes {
            sent.extend_from_slice(lexeme.as_bytes());
            sent.push(0);
            sent.extend_from_slice(&frequency.to_be_bytes());
            sent.extend(vec![0; 2 * usize::from(frequency)]);
        }
        Self(sent)
    }
}

/// Chunks of a vector store per HNSW candidate (`ef_search`): with a fixed number of candidates, recall
/// would fall as stores grow.
const CHUNKS_PER_CANDIDATE: i64 = 2_000;

/// Begins a transaction for searching. Statements are planned for their parameters, since large and
/// small stores need different plans; sequential scans would read all stores.
pub async fn begin(pool: &Pool) -> Result<Transaction, StoreError> {
    let transaction = pool.begin_with(
        "begin read only; set local plan_cache_mode = force_custom_plan;
         set local enable_seqscan = off; set local jit = off;
         set local hnsw.iterative_scan = strict_order",
    );
    Ok(transaction.await?)
}

pub async fn scope(
    pool: &Pool,
    store: &VectorStoreId,
    filter: Option<&Filter>,
) -> Result<Scope, StoreError> {
    let mut query = QueryBuilder::new(
        "select coalesce(sum(chunks), 0)::bigint, coalesce(sum(tokens), 0)::bigint, ",
    );
    query.push(match filter {
        Some(_) => "coalesce(array_agg(seq), '{}'), '{}'::bigint[]",
        None => {
            "null::bigint[], array(
                 select seq from vector_store_files
                 where vector_store_id = $1 and status = 'in_progress' and attempt > 0
                 union all select store_file from dropped_store_files where vector_store_id = $1)"
        }
    });
    query.push(" from vector_store_files as f where vector_store_id = ");
    query
        .push_bind(store.clone())
        .push(" and status = 'completed'");
    if let Some(filter) = filter {
        query.push(" and ");
        attribute_filter::push(&mut query, filter);
    }
    let row = query.build_query_as().fetch_one(pool).await?;
    let (chunks, tokens, files, excluded): (i64, i64, Option<Vec<i64>>, Vec<i64>) = row;
    Ok(Scope {
        store: store.clone(),
        files,
        excluded,
        totals: Totals { chunks, tokens },
    })
}

/// The terms of a text. One that more than `max_chunks` chunks have comes without their ids: these
/// would be expensive, and the term is hardly relevant.
pub async fn terms(
    conn: &mut PgConnection,
    scope: &Scope,
    language: &str,
    text: &str,
    max_chunks: i64,
) -> Result<Vec<Term>, StoreError> {
    let mut terms: Vec<Term> = Vec::new();
    let lexemes: Vec<(String, Option<i64>)> = sqlx::query_as(
        "select query.lexeme, common.chunks
         from unnest(to_tsvector($2::regconfig, $3)) as query
         left join common_lexemes as common
             on vector_store_id = $1 and common.lexeme = query.lexeme",
    )
    .bind(&scope.store)
    .bind(language)
    .bind(text)
    .fetch_all(&mut *conn)
    .await?;
    // A subquery for each lexeme, so that each is planned by its frequency.
    let mut query = QueryBuilder::new("");
    let mut subqueries = 0;
    for (lexeme, common) in lexemes {
        if common.is_none() {
            let (n, separator) = (terms.len(), if subqueries > 0 { " union all " } else { "" });
            query.push(format!("{separator}select {n}::bigint, array("));
            push_matching(&mut query, scope, &quoted(&lexeme), max_chunks + 1);
            query.push(")");
            subqueries += 1;
        }
        terms.push(Term {
            lexeme,
            chunks: common.unwrap_or(0),
            ids: None,
        });
    }
    if subqueries > 0 {
        let ids_by_term: Vec<(i64, Vec<i64>)> = query.build_query_as().fetch_all(conn).await?;
        for (n, ids) in ids_by_term {
            if let Some(term) = usize::try_from(n).ok().and_then(|n| terms.get_mut(n)) {
                term.chunks = i64::try_from(ids.len()).unwrap_or(i64::MAX);
                term.ids = (term.chunks <= max_chunks).then_some(ids);
            }
        }
    }
    Ok(terms)
}

pub async fn find_with_all_lexemes(
    conn: &mut PgConnection,
    scope: &Scope,
    lexemes: &[&str],
    limit: i64,
) -> Result<Vec<i64>, StoreError> {
    let lexemes: Vec<String> = lexemes.iter().map(|lexeme| quoted(lexeme)).collect();
    let mut query = QueryBuilder::new("");
    push_matching(&mut query, scope, &lexemes.join(" & "), limit);
    Ok(query.build_query_scalar().fetch_all(conn).await?)
}

/// The chunks nearest to a vector, nearest first. An exact scan compares all vectors; the ANN index, if
/// there is one, takes less time and finds nearly all of the nearest.
pub async fn nearest(
    conn: &mut PgConnection,
    scope: &Scope,
    vector: &[f32],
    is_exact: bool,
    limit: i64,
) -> Result<Vec<i64>, StoreError> {
    let dimensions = vector.len();
    if !is_exact {
        let candidates = (scope.totals.chunks / CHUNKS_PER_CANDIDATE).clamp(200, 400);
        sqlx::query("select set_config('hnsw.ef_search', $1, true)")
            .bind(candidates.to_string())
            .execute(&mut *conn)
            .await?;
    }
    let mut query = QueryBuilder::new("select chunk_id from chunk_embeddings as c");
    push_store(&mut query, scope);
    // `+ 0` keeps the planner from using an index on that expression: only one of the two helps.
    let (distance_suffix, file_suffix) = if is_exact { (" + 0", "") } else { ("", " + 0") };
    push_files(&mut query, scope, file_suffix);
    query
        .push(format!(" order by (embedding::halfvec({dimensions}) <=> "))
        .push_bind(vector_text(vector))
        .push(format!("::halfvec({dimensions})){distance_suffix}"));
    query.push(" limit ").push_bind(limit);
    Ok(query.build_query_scalar().fetch_all(conn).await?)
}

pub async fn load_candidates(
    conn: &mut PgConnection,
    ids: &[i64],
) -> Result<Vec<Candidate>, StoreError> {
    let matches = sqlx::query_as(
        "select id, tokens, tsvectorsend(lexemes) as lexemes from chunks where id = any($1)",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    Ok(matches)
}

/// Loads chunks with their similarities to each of the vectors, in no order.
pub async fn load(
    pool: &Pool,
    ids: &[i64],
    vectors: &[Vec<f32>],
) -> Result<Vec<ChunkRow>, StoreError> {
    let mut query = QueryBuilder::new(
        "select c.id, f.file_id, files.filename, f.attributes, c.page, c.heading, c.content,
                c.tokens, tsvectorsend(c.lexemes) as lexemes, array[",
    );
    for (n, vector) in vectors.iter().enumerate() {
        // In a subquery, the vector is parsed once instead of for each row.
        query
            .push(if n > 0 { ", " } else { "" })
            .push("1 - (e.embedding <=> (select ")
            .push_bind(vector_text(vector))
            .push("::halfvec))");
    }
    query.push("]::double precision[] as similarities");
    query.push(
        " from chunks as c
          join vector_store_files as f on f.seq = c.store_file and f.status = 'completed'
          join files on files.id = f.file_id
          left join chunk_embeddings as e on e.chunk_id = c.id where c.id = any(",
    );
    query.push_bind(ids.to_vec()).push(")");
    Ok(query.build_query_as().fetch_all(pool).await?)
}

fn push_matching(query: &mut QueryBuilder<Postgres>, scope: &Scope, tsquery: &str, limit: i64) {
    query.push("select c.id from chunks as c");
    push_store(query, scope);
    // Force the GIN index; the file index would visit every chunk of those files.
    push_files(query, scope, " + 0");
    query
        .push(" and c.lexemes @@ ")
        .push_bind(tsquery.to_owned());
    query.push("::tsquery limit ").push_bind(limit);
}

fn push_store(query: &mut QueryBuilder<Postgres>, scope: &Scope) {
    query
        .push(" where c.vector_store_id = ")
        .push_bind(scope.store.clone());
    if !scope.excluded.is_empty() {
        query
            .push(" and c.store_file <> all(")
            .push_bind(scope.excluded.clone())
            .push(")");
    }
}

/// Appends the condition that `c` is in one of the filtered files, if there is a filter. `suffix`
/// follows the column name.
fn push_files(query: &mut QueryBuilder<Postgres>, scope: &Scope, suffix: &str) {
    if let Some(files) = &scope.files {
        query
            .push(format!(" and c.store_file{suffix} = any("))
            .push_bind(files.clone())
            .push(")");
    }
}

/// A lexeme as a `tsquery`.
fn quoted(lexeme: &str) -> String {
    format!("'{}'", lexeme.replace('\\', r"\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lexemes_are_counted_as_postgresql_sends_them() {
        // tsvectorsend(to_tsvector('simple', 'the wing and the body'))
        let sent = b"\0\0\0\x04and\0\0\x01\0\x03body\0\0\x01\0\x05the\0\0\x02\0\x01\0\x04wing\0\0\x01\0\x02";
        let lexemes = Lexemes(sent.to_vec());
        let counts: Vec<(&[u8], u32)> = lexemes.iter().collect();
        let expected: [(&[u8], u32); 4] = [(b"and", 1), (b"body", 1), (b"the", 2), (b"wing", 1)];
        assert_eq!(counts, expected);
        assert_eq!(Lexemes(sent[..9].to_vec()).iter().count(), 0);
        assert_eq!(Lexemes::default().iter().count(), 0);
    }
}
