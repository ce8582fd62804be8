//! Tables `chunks` and `chunk_embeddings`: what searches find. Only chunks of files that are
//! completely indexed are found.

use std::collections::HashMap;

use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};

use crate::domain::ids::{FileId, VectorStoreId};
use crate::domain::vector_store::Filter;
use crate::store::StoreError;
use crate::store::attribute_filter;
use crate::store::vector_store_jobs::vector_text;

/// Stores with more chunks than this may have an index for vectors; others are compared one by one,
/// which is as fast and misses nothing.
pub const INDEXED_FROM: i64 = 20_000;

/// Where to search: one store, or what a filter leaves of it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The store.
    pub store: &'a VectorStoreId,
    /// Restricts it to files by their attributes.
    pub filter: Option<&'a Filter>,
}

/// A lexeme of a query, and in how many chunks of the store it is.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Term {
    /// The lexeme.
    pub lexeme: String,
    /// Chunks that have it.
    pub chunks: i64,
}

/// How much is in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Totals {
    /// Chunks.
    pub chunks: i64,
    /// Their tokens.
    pub tokens: i64,
}

/// A chunk that has some of a query's words.
#[derive(Debug, Clone, FromRow)]
pub struct Match {
    /// Its id.
    pub id: i64,
    /// Its length in tokens.
    pub tokens: i32,
    /// How often each lexeme of the query is in it.
    pub frequencies: Json<HashMap<String, u32>>,
}

/// A chunk as searches show it.
#[derive(Debug, Clone, FromRow)]
pub struct Found {
    /// Its id.
    pub id: i64,
    /// The file it is from.
    pub file_id: FileId,
    /// The file's name.
    pub filename: String,
    /// The file's attributes in this store.
    pub attributes: Json<serde_json::Map<String, serde_json::Value>>,
    /// The page it begins on.
    pub page: Option<i32>,
    /// The heading it begins under.
    pub heading: Option<String>,
    /// Its text.
    pub content: String,
    /// Its length in tokens.
    pub tokens: i32,
    /// Cosine of the angle to the query's vector, if there are vectors.
    pub similarity: Option<f64>,
    /// How often each lexeme of the query is in it.
    pub frequencies: Json<HashMap<String, u32>>,
}

/// Prepares a transaction for searching: plans are made for the store at hand, since what is right
/// for a large one is not for a small one, and text is found by its index.
pub async fn prepare(conn: &mut PgConnection) -> Result<(), StoreError> {
    for setting in [
        "set local plan_cache_mode = force_custom_plan",
        "set local enable_seqscan = off",
        "set local hnsw.ef_search = 100",
        "set local hnsw.iterative_scan = strict_order",
        "set local jit = off",
    ] {
        sqlx::query(setting).execute(&mut *conn).await?;
    }
    Ok(())
}

/// How much is in the store.
pub async fn totals(conn: &mut PgConnection, store: &VectorStoreId) -> Result<Totals, StoreError> {
    let totals = sqlx::query_as(
        "select coalesce(sum(chunks), 0)::bigint as chunks,
                coalesce(sum(tokens), 0)::bigint as tokens
         from vector_store_files where vector_store_id = $1 and status = 'completed'",
    )
    .bind(store)
    .fetch_one(conn)
    .await?;
    Ok(totals)
}

/// The lexemes of a query, with the number of chunks that have each, counted up to `most`.
pub async fn terms(
    conn: &mut PgConnection,
    store: &VectorStoreId,
    language: &str,
    query: &str,
    most: i64,
) -> Result<Vec<Term>, StoreError> {
    let terms = sqlx::query_as(
        r"select lexeme, (
             select count(*) from (
                 select from chunks where vector_store_id = $1 and lexemes @@
                     ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery
                 limit $4) as those) as chunks
         from unnest(to_tsvector($2::regconfig, $3))",
    )
    .bind(store)
    .bind(language)
    .bind(query)
    .bind(most)
    .fetch_all(conn)
    .await?;
    Ok(terms)
}

/// The chunks nearest to a vector, nearest first. With `exact`, all are compared; otherwise an
/// index may be used, if the store has one.
pub async fn nearest(
    conn: &mut PgConnection,
    place: Place<'_>,
    vector: &[f32],
    exact: bool,
    limit: i64,
) -> Result<Vec<i64>, StoreError> {
    let dimensions = vector.len().to_string();
    let mut query = QueryBuilder::new("select e.chunk_id from chunk_embeddings as e ");
    query.push("join vector_store_files as f on f.seq = e.store_file and f.status = 'completed'");
    restrict(&mut query, place.filter);
    query
        .push(" where e.vector_store_id = ")
        .push_bind(place.store.clone());
    query
        .push(" order by (e.embedding::halfvec(")
        .push(&dimensions)
        .push(") <=> ")
        .push_bind(vector_text(vector))
        .push("::halfvec(")
        .push(&dimensions)
        .push("))");
    if exact {
        // An expression that no index has.
        query.push(" + 0");
    }
    query.push(" limit ").push_bind(limit);
    Ok(query.build_query_scalar().fetch_all(conn).await?)
}

/// Chunks that have any of the lexemes, those that PostgreSQL ranks highest first.
pub async fn matching(
    conn: &mut PgConnection,
    place: Place<'_>,
    lexemes: &[&str],
    limit: i64,
) -> Result<Vec<Match>, StoreError> {
    let mut query = QueryBuilder::new("select c.id, c.tokens, ");
    frequencies(&mut query, lexemes);
    query.push(" from (select c.* from chunks as c ");
    query.push("join vector_store_files as f on f.seq = c.store_file and f.status = 'completed'");
    restrict(&mut query, place.filter);
    query
        .push(" where c.vector_store_id = ")
        .push_bind(place.store.clone())
        .push(" and c.lexemes @@ ")
        .push_bind(any_of(lexemes))
        .push("::tsquery order by ts_rank(c.lexemes, ")
        .push_bind(any_of(lexemes))
        .push("::tsquery, 1) desc limit ")
        .push_bind(limit)
        .push(") as c");
    Ok(query.build_query_as().fetch_all(conn).await?)
}

/// What these chunks are.
pub async fn found(
    conn: &mut PgConnection,
    ids: &[i64],
    lexemes: &[&str],
    vector: Option<&[f32]>,
) -> Result<Vec<Found>, StoreError> {
    let mut query = QueryBuilder::new(
        "select c.id, f.file_id, files.filename, f.attributes, c.page, c.heading, c.content,
                c.tokens, ",
    );
    match vector {
        Some(vector) => query
            .push("1 - (e.embedding <=> ")
            .push_bind(vector_text(vector))
            .push("::halfvec) as similarity, "),
        None => query.push("null::double precision as similarity, "),
    };
    frequencies(&mut query, lexemes);
    query.push(
        " from chunks as c join vector_store_files as f on f.seq = c.store_file
          join files on files.id = f.file_id
          left join chunk_embeddings as e on e.chunk_id = c.id where c.id = any(",
    );
    query.push_bind(ids.to_vec()).push(")");
    Ok(query.build_query_as().fetch_all(conn).await?)
}

/// Adds how often each lexeme is in `c.lexemes`.
fn frequencies(query: &mut QueryBuilder<Postgres>, lexemes: &[&str]) {
    let lexemes: Vec<String> = lexemes.iter().map(|lexeme| (*lexeme).to_owned()).collect();
    query
        .push(
            "coalesce((select jsonb_object_agg(t.lexeme, cardinality(t.positions))
                       from unnest(c.lexemes) as t where t.lexeme = any(",
        )
        .push_bind(lexemes)
        .push(")), '{}') as frequencies");
}

fn restrict(query: &mut QueryBuilder<Postgres>, filter: Option<&Filter>) {
    if let Some(filter) = filter {
        query.push(" and ");
        attribute_filter::push(query, filter);
    }
}

/// Lexemes as a query for any of them.
fn any_of(lexemes: &[&str]) -> String {
    let quoted: Vec<String> = lexemes
        .iter()
        .map(|lexeme| format!("'{}'", lexeme.replace('\\', r"\\").replace('\'', "''")))
        .collect();
    quoted.join(" | ")
}
