//! Requests and tokens per minute: asked for from the store, and told in headers.
//!
//! Projects without such limits never get here. For the others, every request asks the database,
//! because only that is exact across replicas; but requests that come while a statement is under way
//! are asked for together by the next one. So a replica has one statement at a time for a project.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::domain::ids::ProjectId;
use crate::domain::project::Account;
use crate::http::response::error::ApiError;
use crate::store;
use crate::store::Pool;
use crate::store::request_budgets::Taken;

/// Asks for requests. Cheap to clone.
#[derive(Clone)]
pub struct Rates {
    pool: Pool,
    lines: Arc<Mutex<HashMap<ProjectId, Arc<Line>>>>,
}

/// The requests of one project.
#[derive(Default)]
struct Line {
    /// Those that nobody has asked for yet.
    waiting: Mutex<Vec<oneshot::Sender<Verdict>>>,
    /// Held by the one who asks.
    turn: tokio::sync::Mutex<()>,
}

/// Whether a request may be made, and how the budget stands.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    is_granted: bool,
    taken: Taken,
}

impl Rates {
    /// Budgets in this database.
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            lines: Arc::default(),
        }
    }

    /// Takes one request from the project's budget of so many per minute, or refuses it.
    pub async fn request(
        &self,
        project: &ProjectId,
        per_minute: i32,
        told: &Told,
    ) -> Result<(), ApiError> {
        let line = self
            .lines
            .lock()
            .entry(project.clone())
            .or_default()
            .clone();
        let Verdict { is_granted, taken } = self.verdict(&line, project, per_minute).await?;
        told.requests(Budget {
            limit: per_minute.into(),
            left: taken.left,
            full_in: taken.full_in,
        });
        if is_granted {
            return Ok(());
        }
        Err(ApiError::rate_limited(
            "requests",
            format!(
                "Rate limit reached for requests: this project may make {per_minute} requests per \
                 minute. Please try again in {}.",
                duration(taken.next_in)
            ),
            taken.next_in,
        ))
    }

    async fn verdict(
        &self,
        line: &Line,
        project: &ProjectId,
        per_minute: i32,
    ) -> Result<Verdict, ApiError> {
        let (tell, mut told) = oneshot::channel();
        line.waiting.lock().push(tell);
        let _turn = line.turn.lock().await;
        if let Ok(verdict) = told.try_recv() {
            return Ok(verdict);
        }
        // Ours is among them, unless whoever took it was cut off before there was an answer.
        let mut waiting = std::mem::take(&mut *line.waiting.lock());
        waiting.retain(|tell| !tell.is_closed());
        let is_lost = matches!(told.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let wanted = waiting.len() + usize::from(is_lost);
        let taken = store::request_budgets::take(&self.pool, project, wanted, per_minute).await?;
        let mut verdicts = (0..wanted).map(|n| Verdict {
            is_granted: n < taken.granted,
            taken,
        });
        let mine = is_lost.then(|| verdicts.next()).flatten();
        for (tell, verdict) in std::iter::zip(waiting, verdicts) {
            // Whoever is gone by now has had their request.
            let _ = tell.send(verdict);
        }
        mine.or_else(|| told.try_recv().ok())
            .ok_or_else(|| ApiError::internal(&"a request was not counted"))
    }

    /// Refuses what would use tokens if the project has used up those of the last minute.
    pub async fn tokens(&self, account: &Account, told: &Told) -> Result<(), ApiError> {
        let Some(limit) = account.limits.tokens_per_minute else {
            return Ok(());
        };
        let used = store::usage::last_minute(&self.pool, &account.project, limit).await?;
        told.tokens(Budget {
            limit,
            left: (limit - used.tokens).max(0),
            full_in: used.over_in,
        });
        let Some(below_in) = used.below_in else {
            return Ok(());
        };
        Err(ApiError::rate_limited(
            "tokens",
            format!(
                "Rate limit reached for tokens: this project may use {limit} tokens per minute and \
                 has used {}. Please try again in {}.",
                used.tokens,
                duration(below_in)
            ),
            below_in,
        ))
    }
}

/// A limit as headers tell of it.
#[derive(Debug, Clone, Copy)]
struct Budget {
    limit: i64,
    left: i64,
    full_in: Duration,
}

/// What the answer to a request tells about its project's limits. Travels with the request; clones
/// are of the same.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Tellings>);

#[derive(Debug, Default)]
struct Tellings {
    requests: OnceLock<Budget>,
    tokens: OnceLock<Budget>,
}

impl Told {
    fn requests(&self, budget: Budget) {
        // Set before only if a handler asks for its caller twice, which changes nothing.
        let _ = self.0.requests.set(budget);
    }

    fn tokens(&self, budget: Budget) {
        let _ = self.0.tokens.set(budget);
    }

    /// Adds the headers that OpenAI's clients know.
    pub fn write(&self, headers: &mut HeaderMap) {
        let names = [
            (
                self.0.requests.get(),
                [
                    "x-ratelimit-limit-requests",
                    "x-ratelimit-remaining-requests",
                    "x-ratelimit-reset-requests",
                ],
            ),
            (
                self.0.tokens.get(),
                [
                    "x-ratelimit-limit-tokens",
                    "x-ratelimit-remaining-tokens",
                    "x-ratelimit-reset-tokens",
                ],
            ),
        ];
        for (budget, [limit, remaining, reset]) in names {
            let Some(budget) = budget else { continue };
            headers.insert(HeaderName::from_static(limit), budget.limit.into());
            headers.insert(HeaderName::from_static(remaining), budget.left.into());
            if let Ok(text) = HeaderValue::from_str(&duration(budget.full_in)) {
                headers.insert(HeaderName::from_static(reset), text);
            }
        }
    }
}

/// A duration as the hosted service writes it: `120ms`, `7.5s`, `1m0s`.
fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match minutes {
        0 => format!("{seconds}s"),
        _ => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_clients_know_them() {
        let written = |milliseconds| duration(Duration::from_millis(milliseconds));
        let cases = [
            (0, "0ms"),
            (120, "120ms"),
            (1000, "1s"),
            (7500, "7.5s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (370_000, "6m10s"),
        ];
        for (milliseconds, expected) in cases {
            assert_eq!(written(milliseconds), expected);
        }
    }
}
