//! Tables `usage_entries` and `usage_days`: usage records and their sums by day.
//!
//! [`run_queue::commit`](crate::store::run_queue::commit) writes entries in the transaction of what
//! they account for, so a crash at any point neither loses nor double-counts usage. No two runs
//! write the same row; maintenance adds old entries to the sums of their days.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgExecutor, QueryBuilder, Row};

use crate::domain::ids::ProjectId;
use crate::domain::usage::{Amounts, UsageQuery, UsageSum};
use crate::store::StoreError;

macro_rules! amount_columns {
    () => {
        "runs, model_calls, prompt_tokens, completion_tokens, code_calls, search_calls, \
         function_calls, sandbox_ms"
    };
}
pub(super) use amount_columns;

/// Age at which entries are summed up: beyond the minute of the token limit, and beyond any
/// repeated commit.
const SUMMED_UP_AFTER: Duration = Duration::from_secs(3600);

impl FromRow<'_, PgRow> for UsageSum {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            project: row.try_get("project_id")?,
            project_name: row.try_get("project_name")?,
            day: row.try_get("day")?,
            model: row.try_get("model")?,
            amounts: Amounts {
                runs: row.try_get("runs")?,
                model_calls: row.try_get("model_calls")?,
                prompt_tokens: row.try_get("prompt_tokens")?,
                completion_tokens: row.try_get("completion_tokens")?,
                code_calls: row.try_get("code_calls")?,
                search_calls: row.try_get("search_calls")?,
                function_calls: row.try_get("function_calls")?,
                sandbox_ms: row.try_get("sandbox_ms")?,
            },
        })
    }
}

/// Sums of usage, ordered by project, day and model.
pub async fn sums(
    db: impl PgExecutor<'_>,
    query: &UsageQuery,
) -> Result<Vec<UsageSum>, StoreError> {
    let (day, model) = (
        if query.by_day { "day" } else { "null::date" },
        if query.by_model {
            "model"
        } else {
            "null::text"
        },
    );
    let mut sql = QueryBuilder::new("with used as (");
    for (n, (table, at)) in [
        ("usage_days", "day"),
        ("usage_entries", "(at at time zone 'UTC')::date"),
    ]
    .into_iter()
    .enumerate()
    {
        sql.push(if n == 0 { "" } else { " union all " });
        sql.push("select project_id, ").push(at);
        sql.push(concat!(" as day, model, ", amount_columns!(), " from "));
        sql.push(table).push(" where ");
        // Compares the column itself, so that its index is used.
        match table {
            "usage_days" => sql
                .push("day between ")
                .push_bind(query.from)
                .push(" and ")
                .push_bind(query.to),
            _ => sql
                .push("at >= ")
                .push_bind(query.from)
                .push("::timestamp at time zone 'UTC' and at < (")
                .push_bind(query.to)
                .push("::date + 1)::timestamp at time zone 'UTC'"),
        };
        if let Some(project) = &query.project {
            sql.push(" and project_id = ").push_bind(project);
        }
    }
    sql.push("), summed as (select project_id, ");
    sql.push(day).push(" as day, ").push(model);
    sql.push(
        " as model, sum(runs)::bigint as runs, sum(model_calls)::bigint as model_calls,
          sum(prompt_tokens)::bigint as prompt_tokens,
          sum(completion_tokens)::bigint as completion_tokens,
          sum(code_calls)::bigint as code_calls, sum(search_calls)::bigint as search_calls,
          sum(function_calls)::bigint as function_calls, sum(sandbox_ms)::bigint as sandbox_ms
          from used group by 1, 2, 3)
          select summed.*, projects.name as project_name
          from summed join projects on projects.id = project_id
          order by projects.seq, day, model",
    );
    Ok(sql.build_query_as().fetch_all(db).await?)
}

/// Adds at most `limit` old entries to the sums of their days. Returns their number. Any number of
/// processes may call this at the same time.
pub async fn sum_up(db: impl PgExecutor<'_>, limit: i64) -> Result<i64, StoreError> {
    // Rows are written in order, so that concurrent calls do not deadlock.
    let summed = sqlx::query_scalar(concat!(
        "with old as (
             select project_id, at, id from usage_entries where at < now() - $1
             limit $2 for update skip locked
         ), gone as (
             delete from usage_entries entry using old
             where entry.project_id = old.project_id and entry.at = old.at and entry.id = old.id
             returning entry.*
         ), days as (
             insert into usage_days as sum (project_id, day, model, ",
        amount_columns!(),
        ")
             select project_id, (at at time zone 'UTC')::date, model, sum(runs), sum(model_calls),
                    sum(prompt_tokens), sum(completion_tokens), sum(code_calls),
                    sum(search_calls), sum(function_calls), sum(sandbox_ms)
             from gone group by 1, 2, 3 order by 1, 2, 3
             on conflict (project_id, day, model) do update set
                 runs = sum.runs + excluded.runs,
                 model_calls = sum.model_calls + excluded.model_calls,
                 prompt_tokens = sum.prompt_tokens + excluded.prompt_tokens,
                 completion_tokens = sum.completion_tokens + excluded.completion_tokens,
                 code_calls = sum.code_calls + excluded.code_calls,
                 search_calls = sum.search_calls + excluded.search_calls,
                 function_calls = sum.function_calls + excluded.function_calls,
                 sandbox_ms = sum.sandbox_ms + excluded.sandbox_ms
         )
         select count(*) from gone"
    ))
    .bind(SUMMED_UP_AFTER)
    .bind(limit)
    .fetch_one(db)
    .await?;
    Ok(summed)
}

/// Tokens that a project has used in the last minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastMinute {
    pub tokens: i64,
    /// Time until they are below the limit; `None` if they are.
    pub below_in: Option<Duration>,
    /// Time until none of them counts any more.
    pub over_in: Duration,
}

pub async fn last_minute(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    limit: i64,
) -> Result<LastMinute, StoreError> {
    // The sum is below the limit once the newest entry that reaches it, together with all later
    // ones, is a minute old.
    let row = sqlx::query(
        "with used as (
             select at, prompt_tokens + completion_tokens as tokens,
                    sum(prompt_tokens + completion_tokens) over (order by at desc, id) as since
             from usage_entries
             where project_id = $1 and at > now() - interval '1 minute'
                 and prompt_tokens + completion_tokens > 0
         )
         select coalesce(sum(tokens), 0)::bigint as tokens,
                extract(epoch from max(at) filter (where since >= $2)
                    + interval '1 minute' - now())::float8 as below_in,
                extract(epoch from max(at) + interval '1 minute' - now())::float8 as over_in
         from used",
    )
    .bind(project)
    .bind(limit)
    .fetch_one(db)
    .await?;
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let below_in: Option<f64> = row.try_get("below_in")?;
    let over_in: Option<f64> = row.try_get("over_in")?;
    Ok(LastMinute {
        tokens: row.try_get("tokens")?,
        below_in: below_in.map(seconds),
        over_in: over_in.map(seconds).unwrap_or_default(),
    })
}
