//! Cursor pagination over `(created_at, seq)`, shared by all tables.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Postgres, QueryBuilder};

use crate::domain::ids::ProjectId;
use crate::domain::page::{Order, Page, PageRequest};
use crate::store::Pool;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("no object with id {id} in the list, but '{param}' names it")]
    UnknownCursor {
        /// `after` or `before`.
        param: &'static str,
        id: String,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ListError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

pub(super) struct Cursors<'a> {
    pub table: &'static str,
    pub column: &'static str,
    /// Columns that must have these values, such as the project.
    pub within: &'a [(&'static str, &'a str)],
}

/// Completes a list query over a project's table, whose cursors are ids, and runs it.
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

/// Completes a list query and runs it.
///
/// `query` must end in a complete `where` clause; cursors, order and limit are appended. `before`
/// alone pages backwards: it returns the objects nearest to the cursor, in the requested order.
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
        cursors.push_range(&mut query, after, ascending);
    }
    if let Some(before) = &page.before {
        cursors.push_range(&mut query, before, !ascending);
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
    /// Keeps rows strictly after or before the cursor. The planner can match two scalar subqueries
    /// against the index, but not one row subquery.
    fn push_range(&self, query: &mut QueryBuilder<Postgres>, id: &str, is_after: bool) {
        query.push(if is_after {
            " and (created_at, seq) > ("
        } else {
            " and (created_at, seq) < ("
        });
        for (column, end) in [("created_at", ", "), ("seq", ")")] {
            query.push("(select ").push(column).push(" from ");
            self.push_row(query, id);
            query.push(")").push(end);
        }
    }

    fn push_row(&self, query: &mut QueryBuilder<Postgres>, id: &str) {
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

    /// Checks that a cursor exists: an empty page may be the end of the list or have an unknown
    /// cursor.
    async fn check(
        &self,
        pool: &Pool,
        param: &'static str,
        id: Option<&str>,
    ) -> Result<(), ListError> {
        let Some(id) = id else { return Ok(()) };
        let mut query = QueryBuilder::new("select exists (select from ");
        self.push_row(&mut query, id);
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
