//! Cursor pagination over `(created_at, seq)`, the same for every table.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Postgres, QueryBuilder};

use crate::domain::ids::ProjectId;
use crate::domain::page::{Order, Page, PageRequest};
use crate::store::Pool;
use crate::store::StoreError;

/// Why a page of a list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A cursor names no object of the list.
    #[error("no object with id {id} in the list, but '{param}' names it")]
    UnknownCursor {
        /// `after` or `before`.
        param: &'static str,
        /// What the client sent.
        id: String,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ListError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What the cursors of a list name: the value of one column, in rows where others have the given
/// values.
pub(super) struct Cursors<'a> {
    /// The table that is listed.
    pub table: &'static str,
    /// The column whose values are cursors.
    pub column: &'static str,
    /// Columns that tell whose the row is, with the values they must have.
    pub within: &'a [(&'static str, &'a str)],
}

/// Finishes a list query over a table of a project's and runs it; cursors are ids.
pub(super) async fn fetch<T>(
    pool: &Pool,
    query: QueryBuilder<Postgres>,
    table: &'static str,
    project: &ProjectId,
    page: &PageRequest,
) -> Result<Page<T>, ListError>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let cursors = Cursors {
        table,
        column: "id",
        within: &[("project_id", project.as_str())],
    };
    fetch_by(pool, query, &cursors, page).await
}

/// Finishes a list query and runs it.
///
/// `query` ends in a complete `where` clause over the table; cursors, order and limit are added
/// here. `before` alone pages backwards: it answers with the objects nearest to the cursor, in the
/// requested order.
pub(super) async fn fetch_by<T>(
    pool: &Pool,
    mut query: QueryBuilder<Postgres>,
    cursors: &Cursors<'_>,
    page: &PageRequest,
) -> Result<Page<T>, ListError>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let ascending = page.order == Order::Asc;
    if let Some(after) = &page.after {
        cursors.beyond(&mut query, after, ascending);
    }
    if let Some(before) = &page.before {
        cursors.beyond(&mut query, before, !ascending);
    }
    let backwards = page.before.is_some() && page.after.is_none();
    query.push(if ascending != backwards {
        " order by created_at, seq limit "
    } else {
        " order by created_at desc, seq desc limit "
    });
    query.push_bind(page.limit + 1);

    let mut data: Vec<T> = query.build_query_as().fetch_all(pool).await?;
    if data.is_empty() {
        cursors.check(pool, "after", page.after.as_deref()).await?;
        cursors
            .check(pool, "before", page.before.as_deref())
            .await?;
    }
    let limit = usize::try_from(page.limit).unwrap_or(0);
    let has_more = data.len() > limit;
    data.truncate(limit);
    if backwards {
        data.reverse();
    }
    Ok(Page { data, has_more })
}

impl Cursors<'_> {
    /// Keeps what comes strictly after the cursor (or before it). Two scalar subqueries rather
    /// than one row subquery, because only they can be matched against the index.
    fn beyond(&self, query: &mut QueryBuilder<Postgres>, id: &str, later: bool) {
        query.push(if later {
            " and (created_at, seq) > ("
        } else {
            " and (created_at, seq) < ("
        });
        for (column, end) in [("created_at", ", "), ("seq", ")")] {
            query.push("(select ").push(column).push(" from ");
            self.row(query, id);
            query.push(")").push(end);
        }
    }

    /// The row that a cursor names, if it is the caller's.
    fn row(&self, query: &mut QueryBuilder<Postgres>, id: &str) {
        query
            .push(self.table)
            .push(" where ")
            .push(self.column)
            .push(" = ")
            .push_bind(id.to_owned());
        for (column, value) in self.within {
            query
                .push(" and ")
                .push(*column)
                .push(" = ")
                .push_bind((*value).to_owned());
        }
    }

    /// An empty page may be the list's end or a cursor that never was; clients must be told apart.
    async fn check(
        &self,
        pool: &Pool,
        param: &'static str,
        id: Option<&str>,
    ) -> Result<(), ListError> {
        let Some(id) = id else { return Ok(()) };
        let mut query = QueryBuilder::new("select exists (select from ");
        self.row(&mut query, id);
        query.push(")");
        if query.build_query_scalar::<bool>().fetch_one(pool).await? {
            Ok(())
        } else {
            Err(ListError::UnknownCursor {
                param,
                id: id.to_owned(),
            })
        }
    }
}
