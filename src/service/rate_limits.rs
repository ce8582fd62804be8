//! Limits on requests and tokens per minute.
//!
//! Projects without such limits cost no statement. For the others the database counts, because only
//! that is exact across replicas. Requests that arrive during a statement are counted together by the
//! next one, so a process runs at most one such statement per project.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::domain::ids::ProjectId;
use crate::service::{ProjectService, ServiceError};
use crate::store;
use crate::store::Pool;
use crate::store::request_budgets::Taken;

#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Units per minute.
    pub limit: i64,
    pub remaining: i64,
    /// Time until all of the limit is available again, if nothing more is used.
    pub full_in: Duration,
}

/// The budgets that one request was counted against, for the headers of its response. Clones share
/// their state.
#[derive(Debug, Clone, Default)]
pub struct Budgets(Arc<SharedBudgets>);

#[derive(Debug, Default)]
struct SharedBudgets {
    requests: OnceLock<Budget>,
    tokens: OnceLock<Budget>,
}

impl Budgets {
    pub fn requests(&self) -> Option<&Budget> {
        self.0.requests.get()
    }

    pub fn tokens(&self) -> Option<&Budget> {
        self.0.tokens.get()
    }
}

impl ProjectService {
    pub async fn admit_request(&self) -> Result<(), ServiceError> {
        let Some(per_minute) = self.limits().requests_per_minute else {
            return Ok(());
        };
        let limiter = &self.shared.rate_limiter;
        let Decision { is_granted, taken } =
            limiter.take(self.pool(), self.id(), per_minute).await?;
        // A request that is admitted twice reports its first budget.
        let _ = self.budgets.0.requests.set(Budget {
            limit: per_minute.into(),
            remaining: taken.left,
            full_in: taken.full_in,
        });
        match is_granted {
            true => Ok(()),
            false => Err(ServiceError::TooManyRequests {
                limit: per_minute,
                retry_after: taken.next_in,
            }),
        }
    }

    /// Refuses a request that uses tokens if the project has used up those of the last minute.
    pub async fn admit_tokens(&self) -> Result<(), ServiceError> {
        let Some(limit) = self.limits().tokens_per_minute else {
            return Ok(());
        };
        let used = store::usage::last_minute(self.pool(), self.id(), limit).await?;
        let _ = self.budgets.0.tokens.set(Budget {
            limit,
            remaining: (limit - used.tokens).max(0),
            full_in: used.over_in,
        });
        match used.below_in {
            None => Ok(()),
            Some(retry_after) => Err(ServiceError::TooManyTokens {
                limit,
                used: used.tokens,
                retry_after,
            }),
        }
    }
}

#[derive(Default)]
pub(super) struct RateLimiter(Mutex<HashMap<ProjectId, Arc<Counter>>>);

#[derive(Default)]
struct Counter {
    waiting: Mutex<Vec<oneshot::Sender<Decision>>>,
    /// Held while a statement counts.
    counting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Decision {
    is_granted: bool,
    taken: Taken,
}

impl RateLimiter {
    async fn take(
        &self,
        pool: &Pool,
        project: &ProjectId,
        per_minute: i32,
    ) -> Result<Decision, ServiceError> {
        let counter = self.0.lock().entry(project.clone()).or_default().clone();
        let (sender, mut receiver) = oneshot::channel();
        counter.waiting.lock().push(sender);
        let _counting = counter.counting.lock().await;
        if let Ok(decision) = receiver.try_recv() {
            return Ok(decision);
        }
        let mut waiting = std::mem::take(&mut *counter.waiting.lock());
        waiting.retain(|sender| !sender.is_closed());
        // This request is among them, unless another task took it and failed before a decision.
        let is_lost = matches!(
            receiver.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
        let wanted = waiting.len() + usize::from(is_lost);
        let taken = store::request_budgets::take(pool, project, wanted, per_minute).await?;
        let mut decisions = (0..wanted).map(|n| Decision {
            is_granted: n < taken.granted,
            taken,
        });
        let own = is_lost.then(|| decisions.next()).flatten();
        for (sender, decision) in std::iter::zip(waiting, decisions) {
            // A cancelled request counts all the same.
            let _ = sender.send(decision);
        }
        let refused = Decision {
            is_granted: false,
            taken,
        };
        Ok(own.or_else(|| receiver.try_recv().ok()).unwrap_or(refused))
    }
}
