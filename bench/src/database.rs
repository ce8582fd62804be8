//! The database of the server under test: counters, processes, and bulk rows.

use crate::process;
use nix::unistd::Pid;
use sqlx::AssertSqlSafe;
use sqlx::PgPool;
use sqlx::Postgres;
use sqlx::Row;
use sqlx::postgres::PgConnectOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::postgres::PgRow;
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
        let mut database = Self {
            pool,
            postmaster: None,
        };
        let backend: i32 = database.scalar("select pg_backend_pid()").await?;
        // On another machine's database, no local postgres has this process id.
        database.postmaster = process::parent_of(Pid::from_raw(backend), "postgres");
        Ok(database)
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The postmaster, if it runs on this machine.
    pub(crate) fn postmaster(&self) -> Option<Pid> {
        self.postmaster
    }

    pub(crate) async fn counters(&self) -> Result<Counters, sqlx::Error> {
        let version: i32 = self
            .scalar("select current_setting('server_version_num')::int")
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

    /// Statements are sent unprepared, so that a connection pooler in between does not matter.
    async fn scalar<T>(&self, sql: &'static str) -> Result<T, sqlx::Error>
    where
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        sqlx::raw_sql(sql).fetch_one(&self.pool).await?.try_get(0)
    }

    /// Copies a thread and its messages `copies` times under new ids, and its runs with their steps
    /// `runs` times. The copies are a day older.
    pub(crate) async fn copy_thread(
        &self,
        id: &str,
        copies: u32,
        runs: u32,
    ) -> Result<(), sqlx::Error> {
        // Without foreign keys this is twice as fast. Needs a privileged role.
        let _ = self.execute("set session_replication_role = replica").await;
        for (table, key, prefixes, count) in [
            ("threads", "id", &[("id", "thread")][..], copies),
            (
                "messages",
                "thread_id",
                &[("id", "msg"), THREAD, RUN],
                copies,
            ),
            ("runs", "thread_id", &[("id", "run"), THREAD], runs),
            (
                "run_steps",
                "thread_id",
                &[("id", "step"), THREAD, RUN],
                runs,
            ),
        ] {
            let columns = self.columns(table).await?;
            let names: Vec<&str> = columns.iter().map(|(name, _)| &**name).collect();
            let values: Vec<String> = columns
                .iter()
                .map(|(name, is_time)| copied(name, *is_time, prefixes))
                .collect();
            let (names, values) = (names.join(", "), values.join(", "));
            // A single statement would hold all rows' index changes in one transaction.
            for first in (1..=count).step_by(SLICE as usize) {
                let last = count.min(first + SLICE - 1);
                self.execute(&format!(
                    "insert into {table} ({names}) select {values}
                     from {table} original cross join generate_series({first}, {last}) copy
                     where original.{key} = '{id}'"
                ))
                .await?;
            }
        }
        let _ = self.execute("reset session_replication_role").await;
        // Else this session's counts of new rows would be added to those that vacuum finds.
        self.execute("select pg_stat_force_next_flush()").await?;
        self.execute("vacuum (analyze) threads, messages, runs, run_steps")
            .await?;
        // So that none happens during a measurement. Needs a privileged role.
        let _ = self.execute("checkpoint").await;
        Ok(())
    }

    /// The tables above one MiB, the largest first: name, MiB with indexes, MiB of indexes, live rows,
    /// dead rows, and how often autovacuum has run.
    pub(crate) async fn tables(&self) -> Result<Vec<Vec<String>>, sqlx::Error> {
        let rows = sqlx::raw_sql(
            "select relname::text,
                    (pg_total_relation_size(relid) / 1048576)::text,
                    (pg_indexes_size(relid) / 1048576)::text,
                    n_live_tup::text, n_dead_tup::text, autovacuum_count::text
             from pg_stat_user_tables
             where pg_total_relation_size(relid) > 1048576
             order by pg_total_relation_size(relid) desc",
        );
        let rows = rows.fetch_all(&self.pool).await?;
        let cells = |row: &PgRow| (0..row.len()).map(|n| row.try_get(n)).collect();
        rows.iter().map(cells).collect()
    }

    /// The columns of a table that can be written, and whether they are times.
    async fn columns(&self, table: &str) -> Result<Vec<(String, bool)>, sqlx::Error> {
        let sql = format!(
            "select column_name::text, data_type = 'timestamp with time zone'
             from information_schema.columns
             where table_schema = current_schema() and table_name = '{table}'
               and is_identity = 'NO' and is_generated = 'NEVER'
             order by ordinal_position"
        );
        // The statement has only a constant inserted.
        let rows = sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_all(&self.pool)
            .await?;
        let columns = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        columns.collect()
    }

    /// Executes a statement of constants, catalogue names and ids.
    async fn execute(&self, sql: &str) -> Result<(), sqlx::Error> {
        let statement = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        statement.execute(&self.pool).await.map(|_| ())
    }
}

const THREAD: (&str, &str) = ("thread_id", "thread");
const RUN: (&str, &str) = ("run_id", "run");

/// Copies per statement.
const SLICE: u32 = 10_000;

/// The value of a column in a copied row: a new id for those in `prefixes`, a time one day earlier.
fn copied(column: &str, is_time: bool, prefixes: &[(&str, &str)]) -> String {
    match prefixes.iter().find(|(name, _)| *name == column) {
        Some((_, prefix)) => {
            format!("'{prefix}_' || left(md5(original.{column} || '/' || copy), 24)")
        }
        None if is_time => format!("original.{column} - interval '1 day'"),
        None => format!("original.{column}"),
    }
}
