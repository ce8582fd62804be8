//! The connection pool.
//!
//! A session returns to the pool only when it is certainly idle: its last statement ran to its end,
//! outside of a transaction. A future that is dropped while a statement runs closes the session,
//! and a dropped transaction is rolled back before its session is used again. sqlx's own pool does
//! not guarantee that: its `begin`, cancelled at the wrong moment, returns a session with an open
//! transaction to the pool, and the writes of its next user are lost.
//!
//! Only this module opens transactions. Returning a session costs no round trip.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use sqlx::postgres::{
    PgConnectOptions, PgDatabaseError, PgQueryResult, PgRow, PgSeverity, PgStatement, PgTypeInfo,
};
use sqlx::{
    Connection as _, Describe, Either, Error, Execute, Executor, PgConnection, Postgres, Row as _,
    SqlStr,
};
use tokio_util::task::TaskTracker;

use crate::store::batch::Queues;

/// Timeout for obtaining a session, and for opening a new one.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout for a ping or a rollback.
const ROUND_TRIP_TIMEOUT: Duration = Duration::from_secs(5);

/// A session that was idle for longer than this is pinged before it is used.
const PING_AFTER: Duration = Duration::from_secs(1);

/// Maximum age of a session, because the memory that PostgreSQL keeps for it only grows.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// A connection pool. Cheap to clone.
///
/// A reference executes single statements; [`Pool::begin`] opens a transaction.
#[derive(Clone)]
pub struct Pool {
    sessions: managed::Pool<Sessions>,
    rollbacks: TaskTracker,
    queues: Arc<Queues>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options contain the password.
        formatter.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of at most `size` sessions, which are opened when they are needed.
    pub fn new(options: PgConnectOptions, size: u32) -> Self {
        let sessions = Sessions {
            options: Arc::new(options),
            closed_at: Mutex::default(),
            discarded_at: Mutex::default(),
        };
        let sessions = managed::Pool::builder(sessions)
            .max_size(usize::try_from(size).unwrap_or(usize::MAX))
            .wait_timeout(Some(SESSION_TIMEOUT))
            .create_timeout(Some(SESSION_TIMEOUT))
            .recycle_timeout(Some(ROUND_TRIP_TIMEOUT))
            // The session that was used last has the warmest caches.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a pool with timeouts only lacks the runtime, which is given");
        Self {
            sessions,
            rollbacks: TaskTracker::new(),
            queues: Arc::default(),
        }
    }

    /// Like [`Pool::new`], but opens the first session.
    ///
    /// # Errors
    /// If the server is unreachable.
    pub async fn connect(options: PgConnectOptions, size: u32) -> Result<Self, Error> {
        let pool = Self::new(options, size);
        pool.session().await?.release();
        Ok(pool)
    }

    pub fn options(&self) -> &PgConnectOptions {
        &self.sessions.manager().options
    }

    pub async fn begin(&self) -> Result<Transaction, Error> {
        self.begin_with("begin").await
    }

    /// Opens a transaction with these statements, the first of which must be a `begin`.
    pub async fn begin_with(&self, statements: &'static str) -> Result<Transaction, Error> {
        let mut session = self.session().await?;
        let mut begun = session.execute(statements).await;
        if let Err(error) = &begun
            && self.note_closed(error)
        {
            // The server had closed the session before anything was executed: try another one.
            drop(session);
            session = self.session().await?;
            begun = session.execute(statements).await;
        }
        begun?;
        Ok(Transaction {
            session: Some(session),
            rollbacks: self.rollbacks.clone(),
        })
    }

    pub(super) fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Waits for combined statements, closes idle sessions, opens no more, and waits for pending
    /// rollbacks.
    pub async fn close(&self) {
        self.queues.close().await;
        self.sessions.close();
        self.rollbacks.close();
        self.rollbacks.wait().await;
    }

    /// Whether connections with these options share sessions, as through a pooler in transaction
    /// mode. Prepared statements, `LISTEN` and advisory locks need sessions of their own.
    ///
    /// # Errors
    /// If the server is unreachable.
    pub async fn shares_sessions(options: &PgConnectOptions) -> Result<bool, Error> {
        const SESSION: &str = "select pg_backend_pid()::text";
        let mut first = PgConnection::connect_with(options).await?;
        let mut second = PgConnection::connect_with(options).await?;
        // Without parameters, so that no statement is prepared.
        for _ in 0..3 {
            let (one, other) = (
                first.fetch_one(SESSION).await?,
                second.fetch_one(SESSION).await?,
            );
            if one.try_get::<String, _>(0)? == other.try_get::<String, _>(0)? {
                return Ok(true);
            }
        }
        // An error would tell nothing about what was asked.
        let _ = tokio::join!(first.close(), second.close());
        Ok(false)
    }

    async fn session(&self) -> Result<Session, Error> {
        match self.sessions.get().await {
            Ok(session) => Ok(Session(Some(session))),
            Err(PoolError::Backend(error)) => Err(error),
            Err(PoolError::Timeout(_)) => Err(Error::PoolTimedOut),
            Err(
                PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_),
            ) => Err(Error::PoolClosed),
        }
    }

    /// Whether the error means that the session is closed. Then all idle sessions are pinged before
    /// their next use, since a restart of the server, for example, closes all of them.
    fn note_closed(&self, error: &Error) -> bool {
        if is_read_only(error) {
            // The server has become a standby: its address leads to the new primary now, or will.
            *self.sessions.manager().discarded_at.lock() = Some(Instant::now());
            return true;
        }
        let is_closed = match error {
            Error::Database(error) => {
                error
                    .try_downcast_ref::<PgDatabaseError>()
                    .is_none_or(|error| {
                        matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
                    })
            }
            Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed => true,
            _ => false,
        };
        if is_closed {
            *self.sessions.manager().closed_at.lock() = Some(Instant::now());
        }
        is_closed
    }

    /// Returns a session after a single statement, if it is idle.
    fn finish(&self, session: Session, outcome: Result<(), &Error>) {
        match outcome {
            Ok(()) => session.release(),
            // After an error of the statement the session is idle again.
            Err(error @ Error::Database(_)) if !self.note_closed(error) => session.release(),
            Err(error) => {
                self.note_closed(error);
            }
        }
    }
}

fn is_read_only(error: &Error) -> bool {
    /// SQLSTATE read_only_sql_transaction.
    const READ_ONLY: &str = "25006";
    let reported = error.as_database_error().and_then(|error| error.code());
    reported.as_deref() == Some(READ_ONLY)
}

struct Sessions {
    options: Arc<PgConnectOptions>,
    /// When a session was last found closed.
    closed_at: Mutex<Option<Instant>>,
    /// Sessions that were opened before are not used again.
    discarded_at: Mutex<Option<Instant>>,
}

impl managed::Manager for Sessions {
    type Type = PgConnection;
    type Error = Error;

    async fn create(&self) -> Result<PgConnection, Error> {
        PgConnection::connect_with(&self.options).await
    }

    async fn recycle(&self, session: &mut PgConnection, metrics: &Metrics) -> RecycleResult<Error> {
        if metrics.age() > MAX_AGE {
            return Err(RecycleError::message("maximum age reached"));
        }
        let discarded_at = *self.discarded_at.lock();
        if discarded_at.is_some_and(|at| metrics.created <= at) {
            return Err(RecycleError::message(
                "opened to a server that is a standby now",
            ));
        }
        let last_used = metrics.recycled.unwrap_or(metrics.created);
        let may_be_closed = self.closed_at.lock().is_some_and(|at| at >= last_used);
        if may_be_closed || last_used.elapsed() > PING_AFTER {
            session.ping().await?;
        }
        Ok(())
    }
}

/// A session in use. Unless it is released, dropping it closes it.
struct Session(Option<Object<Sessions>>);

impl Session {
    /// Returns the session, which must be idle, to the pool.
    fn release(mut self) {
        self.0 = None;
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0
            .as_ref()
            .expect("only `release` and `drop` take the session")
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0
            .as_mut()
            .expect("only `release` and `drop` take the session")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            drop(Object::take(session));
        }
    }
}

/// An open transaction. Dropping it rolls it back.
#[must_use]
pub struct Transaction {
    session: Option<Session>,
    rollbacks: TaskTracker,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Transaction")
            .finish_non_exhaustive()
    }
}

impl Transaction {
    /// Commits. If this fails or is dropped, it is unknown whether the transaction was committed,
    /// and the session is closed.
    ///
    /// # Errors
    /// If the server refuses or is unreachable.
    pub async fn commit(mut self) -> Result<(), Error> {
        if let Some(mut session) = self.session.take() {
            session.execute("commit").await?;
            session.release();
        }
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.session
            .as_ref()
            .expect("only `commit` and `drop` take the session")
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.session
            .as_mut()
            .expect("only `commit` and `drop` take the session")
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        // Without a runtime the session is closed, which also rolls back.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let rollback = async move {
                let rollback = session.execute("rollback");
                if let Ok(Ok(_)) = tokio::time::timeout(ROUND_TRIP_TIMEOUT, rollback).await {
                    session.release();
                }
            };
            self.rollbacks.spawn_on(rollback, &runtime);
        }
    }
}

impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        Box::pin(async_stream::try_stream! {
            let mut session = pool.session().await?;
            let outcome = {
                let mut steps = session.fetch_many(query);
                loop {
                    match steps.try_next().await {
                        Ok(Some(step)) => yield step,
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
            };
            pool.finish(session, outcome.as_ref().copied());
            outcome?;
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut session = pool.session().await?;
            let row = session.fetch_optional(query).await;
            pool.finish(session, row.as_ref().map(|_| ()));
            row
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut session = pool.session().await?;
            let statement = session.prepare_with(sql, parameters).await;
            pool.finish(session, statement.as_ref().map(|_| ()));
            statement
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut session = pool.session().await?;
            let description = session.describe(sql).await;
            pool.finish(session, description.as_ref().map(|_| ()));
            description
        })
    }
}
