//! Tables `chunks` and `chunk_embeddings`: what searches find. Only chunks of files that are
//! completely indexed are found.

use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};

use crate::domain::ids::{FileId, VectorStoreId};
use crate::domain::vector_store::Filter;
use crate::store::attribute_filter;
use crate::store::vector_store_jobs::vector_text;
use crate::store::{Pool, StoreError, Transaction};

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
    /// In how many chunks it is; at least in so many, if it is in very many. 0 if in none.
    pub chunks: i64,
    /// Their ids, if they are not very many.
    pub ids: Option<Vec<i64>>,
}

/// A chunk that has some of a query's words.
#[derive(Debug, Clone, FromRow)]
pub struct Candidate {
    /// Its id.
    pub id: i64,
    /// Its length in tokens.
    pub tokens: i32,
    /// What words it has.
    pub lexemes: Lexemes,
}

/// The lexemes of a chunk as PostgreSQL sends a `tsvector`.
///
/// That is their number, then each with a zero byte, the number of its positions, and these, big
/// endian. PostgreSQL itself takes ten times as long to count them.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct Lexemes(Vec<u8>);

impl Lexemes {
    /// Each lexeme with how often it is in the chunk.
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

/// A chunk as searches show it.
#[derive(Debug, Clone, FromRow)]
pub struct ChunkRow {
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
    /// Cosines of the angles to the queries' vectors, in order; empty without vectors.
    pub similarities: Vec<Option<f64>>,
    /// What words it has.
    pub lexemes: Lexemes,
}

#[cfg(test)]
impl<'a> FromIterator<(&'a str, u16)> for Lexemes {
    fn from_iter<T: IntoIterator<Item = (&'a str, u16)>>(lexemes: T) -> Self {
        let mut sent = vec![0; 4];
        for (lexeme, often) in lexemes {
            sent.extend_from_slice(lexeme.as_bytes());
            sent.push(0);
            sent.extend_from_slice(&often.to_be_bytes());
            sent.extend(vec![0; 2 * usize::from(often)]);
        }
        Self(sent)
    }
}

/// Of how many chunks an index keeps one in view while it looks for the nearest: with a fixed number
/// it would miss more of them the larger the store is.
const CHUNKS_PER_CANDIDATE: i64 = 2_000;

/// A transaction for searching: plans are made for the store at hand, since what is right for a
/// large one is not for a small one, and nothing is ever looked for in all stores.
pub async fn begin(pool: &Pool) -> Result<Transaction, StoreError> {
    let begun = pool.begin_with(
        "begin read only; set local plan_cache_mode = force_custom_plan;
         set local enable_seqscan = off; set local jit = off;
         set local hnsw.iterative_scan = strict_order",
    );
    Ok(begun.await?)
}

/// What of a store is searched.
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
    let found = query.build_query_as().fetch_one(pool).await?;
    let (chunks, tokens, files, unfinished): (i64, i64, Option<Vec<i64>>, Vec<i64>) = found;
    Ok(Scope {
        store: store.clone(),
        files,
        unfinished,
        totals: Totals { chunks, tokens },
    })
}

/// The lexemes of a text, with the chunks of the store that have them. A lexeme that more than
/// `most` chunks have comes without, since it would cost much and tell little.
pub async fn terms(
    conn: &mut PgConnection,
    scope: &Scope,
    language: &str,
    text: &str,
    most: i64,
) -> Result<Vec<Term>, StoreError> {
    let mut terms: Vec<Term> = Vec::new();
    let lexemes: Vec<(String, Option<i64>)> = sqlx::query_as(
        "select asked.lexeme, common.chunks
         from unnest(to_tsvector($2::regconfig, $3)) as asked
         left join common_lexemes as common
             on vector_store_id = $1 and common.lexeme = asked.lexeme",
    )
    .bind(&scope.store)
    .bind(language)
    .bind(text)
    .fetch_all(&mut *conn)
    .await?;
    // A part for each, so that each is planned by how rare it is.
    let mut query = QueryBuilder::new("");
    let mut parts = 0;
    for (lexeme, common) in lexemes {
        if common.is_none() {
            let (n, between) = (terms.len(), if parts > 0 { " union all " } else { "" });
            query.push(format!("{between}select {n}::bigint, array("));
            with_words(&mut query, scope, &quoted(&lexeme), most + 1);
            query.push(")");
            parts += 1;
        }
        terms.push(Term {
            lexeme,
            chunks: common.unwrap_or(0),
            ids: None,
        });
    }
    if parts > 0 {
        let found: Vec<(i64, Vec<i64>)> = query.build_query_as().fetch_all(conn).await?;
        for (n, ids) in found {
            if let Some(term) = usize::try_from(n).ok().and_then(|n| terms.get_mut(n)) {
                term.chunks = i64::try_from(ids.len()).unwrap_or(i64::MAX);
                term.ids = (term.chunks <= most).then_some(ids);
            }
        }
    }
    Ok(terms)
}

/// Chunks that have all of these lexemes, at most so many.
pub async fn find_with_all_lexemes(
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
    if !exact {
        let looked_at = (scope.totals.chunks / CHUNKS_PER_CANDIDATE).clamp(200, 400);
        sqlx::query("select set_config('hnsw.ef_search', $1, true)")
            .bind(looked_at.to_string())
            .execute(&mut *conn)
            .await?;
    }
    let mut query = QueryBuilder::new("select chunk_id from chunk_embeddings as c");
    inside(&mut query, scope);
    // Either the index of vectors or that of files is of use: nothing is indexed by a sum.
    let (of_vectors, of_files) = if exact { (" + 0", "") } else { ("", " + 0") };
    in_files(&mut query, scope, of_files);
    query
        .push(format!(" order by (embedding::halfvec({dimensions}) <=> "))
        .push_bind(vector_text(vector))
        .push(format!("::halfvec({dimensions})){of_vectors}"));
    query.push(" limit ").push_bind(most);
    Ok(query.build_query_scalar().fetch_all(conn).await?)
}

/// The words of these chunks.
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

/// What these chunks are, and how near to each of the vectors.
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
        // A subquery is read once, not for each row.
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

/// Adds a query for the ids of chunks with these words.
fn with_words(query: &mut QueryBuilder<Postgres>, scope: &Scope, words: &str, most: i64) {
    query.push("select c.id from chunks as c");
    inside(query, scope);
    // By the index of words alone: that of files would be read for all their chunks, too.
    in_files(query, scope, " + 0");
    query.push(" and c.lexemes @@ ").push_bind(words.to_owned());
    query.push("::tsquery limit ").push_bind(most);
}

/// Adds the condition that `c` is in the store, and in no file that is not searched.
fn inside(query: &mut QueryBuilder<Postgres>, scope: &Scope) {
    query
        .push(" where c.vector_store_id = ")
        .push_bind(scope.store.clone());
    if !scope.unfinished.is_empty() {
        query
            .push(" and c.store_file <> all(")
            .push_bind(scope.unfinished.clone())
            .push(")");
    }
}

/// Adds the condition that `c` is in one of a filter's files, if there is one. `sum` is added to the
/// file's key.
fn in_files(query: &mut QueryBuilder<Postgres>, scope: &Scope, sum: &str) {
    if let Some(files) = &scope.files {
        query
            .push(format!(" and c.store_file{sum} = any("))
            .push_bind(files.clone())
            .push(")");
    }
}

/// A lexeme as a query.
fn quoted(lexeme: &str) -> String {
    format!("'{}'", lexeme.replace('\\', r"\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_as_postgresql_sends_them() {
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
