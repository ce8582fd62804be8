//! Cursor pagination over `(created_at, seq)`, the same for every table.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};

use crate::domain::ids::ProjectId;
use crate::domain::page::{Order, Page, PageRequest};
use crate::store::StoreError;

/// Finishes a list query and runs it.
///
/// `query` ends in a complete `where` clause over `table`; cursors, order and limit are added
/// here. `before` alone pages backwards: it answers with the objects nearest to the cursor, in the
/// requested order.
pub(super) async fn fetch<T>(
    pool: &PgPool,
    mut query: QueryBuilder<Postgres>,
    table: &'static str,
    project: &ProjectId,
    page: &PageRequest,
) -> Result<Page<T>, StoreError>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let ascending = page.order == Order::Asc;
    if let Some(after) = &page.after {
        beyond(&mut query, table, project, after, ascending);
    }
    if let Some(before) = &page.before {
        beyond(&mut query, table, project, before, !ascending);
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
        check_cursor(pool, table, project, "after", page.after.as_deref()).await?;
        check_cursor(pool, table, project, "before", page.before.as_deref()).await?;
    }
    let limit = usize::try_from(page.limit).unwrap_or(0);
    let has_more = data.len() > limit;
    data.truncate(limit);
    if backwards {
        data.reverse();
    }
    Ok(Page { data, has_more })
}

/// Keeps what comes strictly after the cursor (or before it). Two scalar subqueries rather than
/// one row subquery, because only they can be matched against the index.
fn beyond(
    query: &mut QueryBuilder<Postgres>,
    table: &'static str,
    project: &ProjectId,
    id: &str,
    later: bool,
) {
    query.push(if later {
        " and (created_at, seq) > ("
    } else {
        " and (created_at, seq) < ("
    });
    for (column, end) in [("created_at", ", "), ("seq", ")")] {
        query.push("(select ").push(column).push(" from ");
        cursor(query, table, project, id);
        query.push(")").push(end);
    }
}

/// The row that a cursor names, if it is the project's.
fn cursor(query: &mut QueryBuilder<Postgres>, table: &'static str, project: &ProjectId, id: &str) {
    query
        .push(table)
        .push(" where id = ")
        .push_bind(id.to_owned());
    query.push(" and project_id = ").push_bind(project.clone());
}

/// An empty page may be the list's end or a cursor that never was; clients must be told apart.
async fn check_cursor(
    pool: &PgPool,
    table: &'static str,
    project: &ProjectId,
    param: &'static str,
    id: Option<&str>,
) -> Result<(), StoreError> {
    let Some(id) = id else { return Ok(()) };
    let mut query = QueryBuilder::new("select exists (select from ");
    cursor(&mut query, table, project, id);
    query.push(")");
    if query.build_query_scalar::<bool>().fetch_one(pool).await? {
        Ok(())
    } else {
        Err(StoreError::UnknownCursor {
            param,
            id: id.to_owned(),
        })
    }
}
