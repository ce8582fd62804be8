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

/// Where to search: one store, or what a filter leaves of it.
#[derive(Debug, Clone)]
pub struct Scope {
    store: VectorStoreId,
    /// With a filter, its files.
    files: Option<Vec<i64>>,
    /// Without one, files that have chunks and are not (or no more) indexed completely: few.
    unfinished: Vec<i64>,
    /// How much there is.
    pub totals: Totals,
}

/// How much there is to be searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Chunks.
    pub chunks: i64,
    /// Their tokens.
    pub tokens: i64,
}

/// A lexeme of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The lexeme.
    pub lexeme: String,
    /// Ids of chunks that have it, up to a limit.
    pub chunks: Vec<i64>,
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
/// for a large one is not for a small one, and nothing is ever looked for in all stores.
pub async fn prepare(conn: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::raw_sql(
        "set local plan_cache_mode = force_custom_plan; set local enable_seqscan = off;
         set local jit = off; set local hnsw.ef_search = 100;
         set local hnsw.iterative_scan = strict_order",
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What of a store is searched.
pub async fn scope(
    conn: &mut PgConnection,
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
    let found = query.build_query_as().fetch_one(conn).await?;
    let (chunks, tokens, files, unfinished): (i64, i64, Option<Vec<i64>>, Vec<i64>) = found;
    Ok(Scope {
        store: store.clone(),
        files,
        unfinished,
        totals: Totals { chunks, tokens },
    })
}

/// The lexemes of a text, without those that are known to be in very many chunks of the store
/// unless there are only such.
pub async fn lexemes(
    conn: &mut PgConnection,
    store: &VectorStoreId,
    language: &str,
    text: &str,
) -> Result<Vec<String>, StoreError> {
    let lexemes: Vec<(String, bool)> = sqlx::query_as(
        "select asked.lexeme, common.lexeme is not null
         from unnest(to_tsvector($2::regconfig, $3)) as asked
         left join common_lexemes as common
             on vector_store_id = $1 and common.lexeme = asked.lexeme",
    )
    .bind(store)
    .bind(language)
    .bind(text)
    .fetch_all(conn)
    .await?;
    let all_common = lexemes.iter().all(|(_, is_common)| *is_common);
    let kept = lexemes
        .into_iter()
        .filter(|(_, is_common)| all_common || !is_common);
    Ok(kept.map(|(lexeme, _)| lexeme).collect())
}

/// The lexemes with the chunks that have them, at most so many of each.
pub async fn with_each(
    conn: &mut PgConnection,
    scope: &Scope,
    lexemes: Vec<String>,
    most: i64,
) -> Result<Vec<Term>, StoreError> {
    if lexemes.is_empty() {
        return Ok(Vec::new());
    }
    // A part for each, so that each is planned by how rare it is.
    let mut query = QueryBuilder::new("");
    for (n, lexeme) in (0..).zip(&lexemes) {
        query
            .push(if n > 0 { " union all " } else { "" })
            .push(format!("select {n}, array("));
        with_words(&mut query, scope, &quoted(lexeme), most);
        query.push(")");
    }
    let found: Vec<(i32, Vec<i64>)> = query.build_query_as().fetch_all(conn).await?;
    let mut terms: Vec<Term> = lexemes
        .into_iter()
        .map(|lexeme| Term {
            lexeme,
            chunks: Vec::new(),
        })
        .collect();
    for (n, chunks) in found {
        if let Some(term) = usize::try_from(n).ok().and_then(|n| terms.get_mut(n)) {
            term.chunks = chunks;
        }
    }
    Ok(terms)
}

/// Chunks that have all of these lexemes, at most so many.
pub async fn with_all(
    conn: &mut PgConnection,
    scope: &Scope,
    lexemes: &[&str],
    most: i64,
) -> Result<Vec<i64>, StoreError> {
    let words: Vec<String> = lexemes.iter().map(|lexeme| quoted(lexeme)).collect();
    let mut query = QueryBuilder::new("");
    with_words(&mut query, scope, &words.join(" & "), most);
    Ok(query.build_query_scalar().fetch_all(conn).await?)
}

/// The chunks nearest to a vector, nearest first. An index finds nearly all of them in less time;
/// without one, or if `exact`, all are compared.
pub async fn nearest(
    conn: &mut PgConnection,
    scope: &Scope,
    vector: &[f32],
    exact: bool,
    most: i64,
) -> Result<Vec<i64>, StoreError> {
    let dimensions = vector.len();
    let mut query = QueryBuilder::new("select chunk_id from chunk_embeddings as c");
    inside(&mut query, scope);
    query
        .push(format!(" order by (embedding::halfvec({dimensions}) <=> "))
        .push_bind(vector_text(vector))
        .push(format!("::halfvec({dimensions}))"));
    if exact {
        // An expression that no index has.
        query.push(" + 0");
    }
    query.push(" limit ").push_bind(most);
    Ok(query.build_query_scalar().fetch_all(conn).await?)
}

/// How often each lexeme is in these chunks.
pub async fn frequencies(
    conn: &mut PgConnection,
    ids: &[i64],
    lexemes: &[&str],
) -> Result<Vec<Match>, StoreError> {
    let mut query = QueryBuilder::new("select c.id, c.tokens, ");
    count(&mut query, lexemes);
    query.push(" from chunks as c where c.id = any(");
    query.push_bind(ids.to_vec()).push(")");
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
    count(&mut query, lexemes);
    query.push(
        " from chunks as c
          join vector_store_files as f on f.seq = c.store_file and f.status = 'completed'
          join files on files.id = f.file_id
          left join chunk_embeddings as e on e.chunk_id = c.id where c.id = any(",
    );
    query.push_bind(ids.to_vec()).push(")");
    Ok(query.build_query_as().fetch_all(conn).await?)
}

/// Adds a query for the ids of chunks with these words.
fn with_words(query: &mut QueryBuilder<Postgres>, scope: &Scope, words: &str, most: i64) {
    query.push("select c.id from chunks as c");
    inside(query, scope);
    query.push(" and c.lexemes @@ ").push_bind(words.to_owned());
    query.push("::tsquery limit ").push_bind(most);
}

/// Adds the condition that `c` is searched.
fn inside(query: &mut QueryBuilder<Postgres>, scope: &Scope) {
    query
        .push(" where c.vector_store_id = ")
        .push_bind(scope.store.clone());
    match &scope.files {
        Some(files) => query
            .push(" and c.store_file = any(")
            .push_bind(files.clone())
            .push(")"),
        None if scope.unfinished.is_empty() => query,
        None => query
            .push(" and c.store_file <> all(")
            .push_bind(scope.unfinished.clone())
            .push(")"),
    };
}

/// Adds how often each lexeme is in `c.lexemes`.
fn count(query: &mut QueryBuilder<Postgres>, lexemes: &[&str]) {
    let lexemes: Vec<String> = lexemes.iter().map(|lexeme| (*lexeme).to_owned()).collect();
    query
        .push(
            "coalesce((select jsonb_object_agg(t.lexeme, cardinality(t.positions))
                       from unnest(c.lexemes) as t where t.lexeme = any(",
        )
        .push_bind(lexemes)
        .push(")), '{}') as frequencies");
}

/// A lexeme as a query.
fn quoted(lexeme: &str) -> String {
    format!("'{}'", lexeme.replace('\\', r"\\").replace('\'', "''"))
}
