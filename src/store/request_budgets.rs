//! Table `request_budgets`: the rate limit of requests (a token bucket).
//!
//! A budget holds one minute's requests and refills steadily. Only the time at which it will be
//! full is stored; each request moves it by one request's share of a minute.

use std::time::Duration;

use sqlx::{PgExecutor, Row};

use crate::domain::ids::ProjectId;
use crate::store::StoreError;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub granted: usize,
    /// Number of further requests that would be allowed now.
    pub left: i64,
    /// Time until the budget is full if nothing more is taken.
    pub full_in: Duration,
    /// Time until the next request is allowed.
    pub next_in: Duration,
}

pub async fn take(
    db: impl PgExecutor<'_>,
    project: &ProjectId,
    requested: usize,
    per_minute: i32,
) -> Result<Taken, StoreError> {
    let per_minute = per_minute.max(1);
    let share = MINUTE / per_minute.unsigned_abs();
    let share = Duration::from_micros(u64::try_from(share.as_micros()).unwrap_or(1).max(1));
    let row = sqlx::query(
        "insert into request_budgets as budget (project_id, granted, full_at)
         values ($1, least($2::integer, $3::integer), now() + least($2, $3) * $4::interval)
         on conflict (project_id) do update set (granted, full_at) = (
             select allowed, base + allowed * $4
             from (select greatest(budget.full_at, now()) as base) as base,
                  lateral (select greatest(0, least($2, floor(
                      extract(epoch from now() + interval '1 minute' - base)
                      / extract(epoch from $4))))::integer as allowed) as allowed)
         returning granted, extract(epoch from full_at - now())::float8 as full_in",
    )
    .bind(project)
    .bind(i32::try_from(requested).unwrap_or(i32::MAX))
    .bind(per_minute)
    .bind(share)
    .fetch_one(db)
    .await?;
    let granted: i32 = row.try_get("granted")?;
    let full_in: f64 = row.try_get("full_in")?;
    let full_in = Duration::try_from_secs_f64(full_in).unwrap_or_default();
    let free = MINUTE.saturating_sub(full_in);
    Ok(Taken {
        granted: usize::try_from(granted).unwrap_or(0),
        left: i64::try_from(free.as_micros() / share.as_micros()).unwrap_or(i64::MAX),
        full_in,
        next_in: share.saturating_sub(free),
    })
}
