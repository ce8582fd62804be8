//! The database of the server under test: counters, processes, and bulk rows.

use crate::process;
use nix::unistd::Pid;
use sqlx::AssertSqlSafe;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use sqlx::postgres::PgPoolOptions;
use std::path::Path;
use std::str::FromStr;

/// A connection to the server's database, and its postmaster if that is local.
pub(crate) struct Database {
    pool: PgPool,
    postmaster: Option<Pid>,
}

/// Monotonic counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters {
    /// Transaction ids assigned: one per transaction that wrote or locked a row.
    pub(crate) writing: i64,
    /// Transactions committed in this database, reads included. Lags up to ten seconds behind.
    pub(crate) committed: i64,
    /// Syncs of the write-ahead log. Lags likewise.
    pub(crate) synced: i64,
}

impl Database {
    /// Connects to a database by URL.
    pub(crate) async fn at_url(url: &str) -> Result<Self, sqlx::Error> {
        Self::connect(PgConnectOptions::from_str(url)?).await
    }

    /// Connects to the cluster that assistd runs in `folder`, over the socket that its
    /// `postmaster.pid` names.
    pub(crate) async fn in_folder(folder: &Path) -> Result<Self, sqlx::Error> {
        let text = std::fs::read_to_string(folder.join("postmaster.pid"))?;
        let line = |n: usize| text.lines().nth(n).unwrap_or_default().trim();
        let options = PgConnectOptions::new()
            .socket(line(4))
            .port(line(3).parse().unwrap_or(5432))
            .username("assistd")
            .database("assistd");
        Self::connect(options).await
    }

    async fn connect(options: PgConnectOptions) -> Result<Self, sqlx::Error> {
        let options = options.application_name("assistd-bench");
        let pool = PgPoolOptions::new().max_connections(1);
        let pool = pool.connect_with(options).await?;
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&pool)
            .await?;
        // On another machine's database, no local postgres has this process id.
        let postmaster = process::parent_of(Pid::from_raw(backend), "postgres");
        Ok(Self { pool, postmaster })
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The postmaster, if it runs on this machine.
    pub(crate) fn postmaster(&self) -> Option<Pid> {
        self.postmaster
    }

    pub(crate) async fn counters(&self) -> Result<Counters, sqlx::Error> {
        let version: i32 = sqlx::query_scalar("select current_setting('server_version_num')::int")
            .fetch_one(&self.pool)
            .await?;
        // PostgreSQL 18 counts syncs of the log in `pg_stat_io`.
        let synced = if version >= 180_000 {
            "select coalesce(sum(fsyncs), 0)::bigint from pg_stat_io where object = 'wal'"
        } else {
            "select wal_sync from pg_stat_wal"
        };
        Ok(Counters {
            writing: self
                .scalar("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
                .await?,
            committed: self
                .scalar(
                    "select xact_commit from pg_stat_database where datname = current_database()",
                )
                .await?,
            synced: self.scalar(synced).await?,
        })
    }

    async fn scalar(&self, sql: &'static str) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await
    }

    /// Copies a thread and its messages `times` times under new ids, by SQL.
    pub(crate) async fn multiply_thread(&self, id: &str, times: i32) -> Result<(), sqlx::Error> {
        for (table, key, fresh) in [
            ("threads", "id", [("id", COPIED_THREAD)].as_slice()),
            (
                "messages",
                "thread_id",
                [("thread_id", COPIED_THREAD), ("id", COPIED_MESSAGE)].as_slice(),
            ),
        ] {
            let columns: Vec<String> = sqlx::query_scalar(
                "select column_name::text from information_schema.columns
                 where table_schema = current_schema() and table_name = $1
                   and is_identity = 'NO' and is_generated = 'NEVER'
                 order by ordinal_position",
            )
            .bind(table)
            .fetch_all(&self.pool)
            .await?;
            let values = columns.iter().map(|column| {
                let made = fresh.iter().find(|(name, _)| name == column);
                made.map_or(format!("original.{column}"), |(_, sql)| (*sql).to_owned())
            });
            // The statement has only catalogue names and constants.
            let sql = format!(
                "insert into {table} ({}) select {}
                 from {table} original cross join generate_series(1, $2) copy
                 where original.{key} = $1",
                columns.join(", "),
                values.collect::<Vec<_>>().join(", "),
            );
            sqlx::query(AssertSqlSafe(sql))
                .bind(id)
                .bind(times)
                .execute(&self.pool)
                .await?;
        }
        sqlx::query("analyze").execute(&self.pool).await?;
        Ok(())
    }
}

const COPIED_THREAD: &str = "'thread_' || lpad(copy::text, 24, 'copy')";
const COPIED_MESSAGE: &str = "'msg_' || left(md5(original.id || '/' || copy), 24)";
