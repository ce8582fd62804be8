//! Combines equal statements of concurrent callers.
//!
//! While one such statement runs, further callers wait, and the next statement serves them all:
//! it costs the database one transaction, and both processes one exchange of messages. A caller
//! that is alone does not wait. A statement starts after all of its callers have asked for it, so a
//! read that is combined sees everything that was committed before it was asked for.
//!
//! Statements take arrays, the first of each `unnest` as `(select $1)`. This hides the length of the
//! array from the planner, which could otherwise prefer to plan each execution anew.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::store::{Pool, StoreError};

/// Most items of one statement.
const MAX_ITEMS: usize = 64;

/// After this time a statement is no longer waited for: it may be held up by the row of one caller,
/// and the next callers get a statement of their own.
const SLOW: Duration = Duration::from_millis(20);

/// What a caller asks for, and the statement that does it for several callers.
pub(super) trait Batch: Sized + Send + Sync + 'static {
    type Output: Send + 'static;

    /// Executes one statement, outside of a transaction, and returns an output for each item, in
    /// their order. After an error nothing has been written.
    fn execute(
        pool: &Pool,
        items: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Output>, StoreError>> + Send;
}

/// The queues of a pool, one for each kind of statement.
#[derive(Default)]
pub(super) struct Queues {
    by_kind: RwLock<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    statements: TaskTracker,
}

struct Queue<T: Batch>(Mutex<State<T>>);

struct State<T: Batch> {
    waiting: Vec<Caller<T>>,
    is_executing: bool,
}

struct Caller<T: Batch> {
    item: T,
    reply: oneshot::Sender<Result<T::Output, StoreError>>,
}

impl Pool {
    /// Executes the statement of `item`, combined with those of other callers.
    ///
    /// A caller that is dropped while it waits is left out.
    pub(super) async fn batched<T: Batch>(&self, item: T) -> Result<T::Output, StoreError> {
        let queue = self.queues().of_kind::<T>();
        let (reply, output) = oneshot::channel();
        if let Some(turn) = Turn::begin(self, queue, Caller { item, reply }) {
            turn.execute().await;
        }
        let interrupted = |_| Err(StoreError::Database(sqlx::Error::WorkerCrashed));
        output.await.unwrap_or_else(interrupted)
    }
}

/// The right to execute one statement for the callers that wait. When it is dropped, it passes to a
/// task if further callers wait.
struct Turn<T: Batch> {
    queue: Arc<Queue<T>>,
    pool: Pool,
}

impl<T: Batch> Turn<T> {
    /// Adds a caller. It gets the turn unless a statement is being executed: when that ends, the
    /// caller is served.
    fn begin(pool: &Pool, queue: Arc<Queue<T>>, caller: Caller<T>) -> Option<Self> {
        let mut state = queue.0.lock();
        state.waiting.push(caller);
        if std::mem::replace(&mut state.is_executing, true) {
            return None;
        }
        drop(state);
        let pool = pool.clone();
        Some(Self { queue, pool })
    }

    async fn execute(self) {
        let callers: Vec<Caller<T>> = {
            let mut state = self.queue.0.lock();
            state.waiting.retain(|caller| !caller.reply.is_closed());
            let count = state.waiting.len().min(MAX_ITEMS);
            state.waiting.drain(..count).collect()
        };
        if callers.is_empty() {
            return;
        }
        let pool = self.pool.clone();
        let mut statement = pin!(serve(&pool, callers));
        if tokio::time::timeout(SLOW, &mut statement).await.is_err() {
            drop(self);
            statement.await;
        }
    }
}

impl<T: Batch> Drop for Turn<T> {
    fn drop(&mut self) {
        let mut state = self.queue.0.lock();
        let runtime = tokio::runtime::Handle::try_current();
        let (false, Ok(runtime)) = (state.waiting.is_empty(), runtime) else {
            state.is_executing = false;
            // Without a runtime nobody serves them; they get an error.
            state.waiting.clear();
            return;
        };
        drop(state);
        let next = Self {
            queue: self.queue.clone(),
            pool: self.pool.clone(),
        };
        self.pool
            .queues()
            .statements
            .spawn_on(next.execute(), &runtime);
    }
}

/// Executes one statement for these callers. If the database refuses it, each of them gets a
/// statement of its own, so that the others do not fail with the one that is to blame.
async fn serve<T: Batch>(pool: &Pool, callers: Vec<Caller<T>>) {
    let (items, replies): (Vec<T>, Vec<_>) = callers
        .into_iter()
        .map(|caller| (caller.item, caller.reply))
        .unzip();
    // A caller that is gone needs no reply.
    match T::execute(pool, &items).await {
        Ok(outputs) => {
            for (reply, output) in replies.into_iter().zip(outputs) {
                let _ = reply.send(Ok(output));
            }
        }
        Err(error) if items.len() > 1 && error.is_reported_by_database() => {
            for (reply, item) in replies.into_iter().zip(items) {
                let outputs = T::execute(pool, &[item]).await;
                if let Some(output) = outputs.map(|mut outputs| outputs.pop()).transpose() {
                    let _ = reply.send(output);
                }
            }
        }
        Err(error) => {
            let mut replies = replies.into_iter();
            let first = replies.next();
            for reply in replies {
                let _ = reply.send(Err(error.same()));
            }
            if let Some(reply) = first {
                let _ = reply.send(Err(error));
            }
        }
    }
}

impl Queues {
    fn of_kind<T: Batch>(&self) -> Arc<Queue<T>> {
        let kind = TypeId::of::<T>();
        let queue = self.by_kind.read().get(&kind).cloned();
        let queue = queue.unwrap_or_else(|| {
            let mut queues = self.by_kind.write();
            queues
                .entry(kind)
                .or_insert_with(Queue::<T>::erased)
                .clone()
        });
        queue.downcast().expect("a queue is stored under its kind")
    }

    /// Waits for the statements that are being executed.
    pub(super) async fn close(&self) {
        self.statements.close();
        self.statements.wait().await;
    }
}

impl<T: Batch> Queue<T> {
    fn erased() -> Arc<dyn Any + Send + Sync> {
        Arc::new(Self(Mutex::new(State {
            waiting: Vec::new(),
            is_executing: false,
        })))
    }
}

/// Sorts returned rows into the order of these ids.
pub(super) fn in_order<T, Id: PartialEq>(
    ids: &[Id],
    rows: Vec<T>,
    id: impl Fn(&T) -> &Id,
) -> Result<Vec<T>, StoreError> {
    found_in_order(ids, rows, id)
        .into_iter()
        .collect::<Option<_>>()
        .ok_or_else(StoreError::missing_row)
}

/// As [`in_order`], with `None` in the places of rows that were not returned.
pub(super) fn found_in_order<T, Id: PartialEq>(
    ids: &[Id],
    mut rows: Vec<T>,
    id: impl Fn(&T) -> &Id,
) -> Vec<Option<T>> {
    let take = |wanted: &Id| {
        let place = rows.iter().position(|row| id(row) == wanted)?;
        Some(rows.swap_remove(place))
    };
    ids.iter().map(take).collect()
}

/// Rows of a query in the places of the items that asked for them, which column `n` counts from 1.
pub(super) fn by_place<T>(count: usize, rows: &[PgRow]) -> Result<Vec<Option<T>>, StoreError>
where
    T: for<'r> FromRow<'r, PgRow>,
{
    let mut found: Vec<Option<T>> = (0..count).map(|_| None).collect();
    for row in rows {
        let n: i64 = row.try_get("n")?;
        let place = usize::try_from(n).ok().and_then(|n| found.get_mut(n - 1));
        *place.ok_or_else(StoreError::missing_row)? = Some(T::from_row(row)?);
    }
    Ok(found)
}
