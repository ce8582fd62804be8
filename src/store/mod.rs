//! All SQL of the program, one file per table.
//!
//! Functions take the executor first, so that the caller chooses between pool and transaction, and
//! the project second, so that no query can touch rows of another project. Functions of the engine
//! take a lease instead of a project.
//!
//! Functions about one row return `None` or `false` if there is no such row. Functions named
//! `import` insert rows in the given order with their ids and dates, skip those that exist, and
//! return the number of new ones.

pub mod api_keys;
pub mod assistants;
mod attribute_filter;
pub mod audit_log;
mod batch;
pub mod chunks;
pub mod files;
pub mod health;
pub mod imports;
pub mod lease;
pub mod messages;
pub mod notifications;
mod page;
mod pool;
pub mod projects;
pub mod request_budgets;
pub mod run_events;
pub mod run_overview;
pub mod run_queue;
pub mod run_steps;
pub mod runs;
#[cfg(test)]
mod stored_json;
pub mod threads;
pub mod unreferenced_blobs;
pub mod uploads;
pub mod usage;
pub mod vector_store_batches;
pub mod vector_store_files;
pub mod vector_store_indexes;
pub mod vector_store_jobs;
pub mod vector_stores;
pub mod webhook_deliveries;
pub mod webhook_endpoints;
pub mod workspace_files;

pub use page::ListError;
pub use pool::{Pool, Transaction};

use sqlx::PgExecutor;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgRow, PgTypeInfo};

use crate::domain::Timestamp;

/// SQLSTATE: the server's disk is full.
const DISK_FULL: &str = "53100";

/// A failure of the database, or a lost lease. What an operation refuses has an error type of its
/// own, beside the operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("refused by constraint {0}")]
    Constraint(String),
    /// Another worker has claimed the job, or the job was deleted or cancelled.
    #[error("the lease is lost")]
    LeaseLost,
    #[error("unreadable row: {0}")]
    BadRow(#[from] serde_json::Error),
    #[error("the disk of the database is full: {0}")]
    DiskFull(#[source] sqlx::Error),
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(reported) = error.as_database_error() else {
            return Self::Database(error);
        };
        if let Some(name) = reported.constraint() {
            return Self::Constraint(name.to_owned());
        }
        match reported.code().as_deref() {
            Some(DISK_FULL) => Self::DiskFull(error),
            _ => Self::Database(error),
        }
    }
}

fn is_refused_by(error: &sqlx::Error, constraint: &str) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.constraint() == Some(constraint))
}

impl StoreError {
    /// A statement has returned no row although it must return one.
    fn missing_row() -> Self {
        Self::Database(sqlx::Error::RowNotFound)
    }

    /// Whether the database executed the statement and refused it, so that nothing was written.
    fn is_reported_by_database(&self) -> bool {
        match self {
            Self::Constraint(_) | Self::DiskFull(_) => true,
            Self::Database(error) => error.as_database_error().is_some(),
            Self::LeaseLost | Self::BadRow(_) => false,
        }
    }

    /// The same error for another caller of the same statement.
    fn same(&self) -> Self {
        let text = self.to_string();
        Self::Database(match self.is_transient() {
            true => sqlx::Error::Io(std::io::Error::other(text)),
            false => sqlx::Error::Decode(text.into()),
        })
    }

    /// Whether the same call may succeed later. `false` means that the database refuses it each
    /// time.
    ///
    /// Repeat such a call with back-off: a full disk counts as transient as well.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::DiskFull(_)
            | Self::Database(
                sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Tls(_),
            ) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| is_transient(&code))
            }
            Self::Constraint(_) | Self::LeaseLost | Self::BadRow(_) | Self::Database(_) => false,
        }
    }
}

/// Whether an error with this SQLSTATE is about the server, the connection or other transactions,
/// and not about the statement.
fn is_transient(code: &str) -> bool {
    /// Classes: connection failure; failed login, as while a password is changed; insufficient
    /// resources (connections, memory, disk); server shutdown or start, or a cancelled statement;
    /// I/O errors of the server.
    const CLASSES: [&str; 5] = ["08", "28", "53", "57", "58"];
    /// Read-only transaction (the server became a standby), idle transaction timeout, serialization
    /// failure, deadlock, no such database (it is being restored), lock not available.
    const CODES: [&str; 6] = ["25006", "25P03", "40001", "40P01", "3D000", "55P03"];
    CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code)
}

/// The database's clock, by which everything that workers write is dated.
pub async fn database_time(db: impl PgExecutor<'_>) -> Result<Timestamp, StoreError> {
    Ok(sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(db)
        .await?)
}

fn json<T: serde::de::DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    use sqlx::Row as _;
    row.try_get::<sqlx::types::Json<T>, _>(column)
        .map(|value| value.0)
}

/// A value for a `json` column. Unlike `jsonb`, `json` keeps the order of keys, and a model fills
/// in a schema in the order of its properties.
struct JsonText<'a, T>(&'a T);

impl<T> sqlx::Type<sqlx::Postgres> for JsonText<'_, T> {
    fn type_info() -> PgTypeInfo {
        const JSON: Oid = Oid(114);
        PgTypeInfo::with_oid(JSON)
    }
}

impl<T: serde::Serialize> sqlx::Encode<'_, sqlx::Postgres> for JsonText<'_, T> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        serde_json::to_writer(&mut **buffer, self.0)?;
        Ok(IsNull::No)
    }
}

fn json_or_null<T: serde::de::DeserializeOwned>(
    row: &PgRow,
    column: &str,
) -> Result<Option<T>, sqlx::Error> {
    use sqlx::Row as _;
    row.try_get::<Option<sqlx::types::Json<T>>, _>(column)
        .map(|value| value.map(|json| json.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_may_pass_by_themselves_are_transient() {
        let transient = [
            "08006", "28P01", "53100", "53200", "53300", "57014", "57P01", "57P03", "57P05",
            "58030", "25006", "25P03", "40001", "40P01", "3D000", "55P03",
        ];
        for code in transient {
            assert!(is_transient(code), "{code}");
        }
        let permanent = [
            "0A000", "22021", "22P05", "23503", "23505", "23514", "25P02", "40002", "42501",
            "42601", "42703", "42P01", "54000", "54001", "P0001", "XX000", "XX001", "",
        ];
        for code in permanent {
            assert!(!is_transient(code), "{code}");
        }
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let unavailable = [
            sqlx::Error::Io(broken),
            sqlx::Error::PoolTimedOut,
            sqlx::Error::PoolClosed,
            sqlx::Error::WorkerCrashed,
        ];
        for error in unavailable {
            assert!(StoreError::from(error).is_transient());
        }
        let refused = [
            StoreError::Constraint("runs_status_known".into()),
            StoreError::LeaseLost,
            StoreError::Database(sqlx::Error::RowNotFound),
            StoreError::Database(sqlx::Error::Decode("no such variant".into())),
        ];
        for error in refused {
            assert!(!error.is_transient(), "{error}");
        }
    }
}
