//! The database of a command: that of `DATABASE_URL`, or the embedded one.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tracing::log::LevelFilter;

use super::error::CliError;
use crate::config::Config;
use crate::store;
use crate::store::Pool;
use embedded_postgres::Embedded;
use embedded_postgres::PostgresError;

/// The oldest supported PostgreSQL, in the notation of `server_version_num`.
pub(super) const OLDEST_VERSION: i32 = 160_000;

/// Bound on the idle time inside a transaction. The longest pause is that of an import that copies
/// the contents of a file.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "5min";

const COMMAND_CONNECTIONS: u32 = 2;

pub(super) struct Database {
    pub(super) pool: Pool,
    pub(super) location: String,
    embedded: Option<Embedded>,
}

impl Database {
    /// Opens the database for a server, which must be the only one on an embedded database.
    pub(super) async fn open(config: &Config) -> Result<Self, CliError> {
        if config.database.database_url.is_some() {
            return Self::remote(config, config.database.database_connections).await;
        }
        let embedded = Embedded::start(&embedded_options(config)).await?;
        Self::embedded(config, embedded, config.database.database_connections).await
    }

    /// Opens the database for a command: connects to the embedded database of a running server, or
    /// starts it for the time of the command.
    pub(super) async fn open_beside_server(config: &Config) -> Result<Self, CliError> {
        if config.database.database_url.is_some() {
            return Self::remote(config, COMMAND_CONNECTIONS).await;
        }
        let options = embedded_options(config);
        match Embedded::start(&options).await {
            Ok(embedded) => Self::embedded(config, embedded, COMMAND_CONNECTIONS).await,
            Err(PostgresError::InUse { .. }) => {
                let connect = embedded_postgres::connect_to_running(&options)?;
                let pool = connect_with_retries(connect, COMMAND_CONNECTIONS).await?;
                Ok(Self {
                    pool,
                    location: embedded_location(config),
                    embedded: None,
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn embedded(
        config: &Config,
        embedded: Embedded,
        connections: u32,
    ) -> Result<Self, CliError> {
        let pool = connect(embedded.connect_options(), connections, "the data folder").await?;
        Ok(Self {
            pool,
            location: embedded_location(config),
            embedded: Some(embedded),
        })
    }

    async fn remote(config: &Config, connections: u32) -> Result<Self, CliError> {
        let url = config
            .database
            .database_url
            .as_ref()
            .map_or("", |url| url.expose());
        // The error is dropped: it repeats parts of the URL, possibly the password.
        let options = PgConnectOptions::from_str(url).map_err(|_| CliError::DatabaseUrl)?;
        let options = match &config.database.database_password {
            Some(password) => options.password(password.expose()),
            None => options,
        };
        let database = options.get_database().unwrap_or(options.get_username());
        let address = format!("{}:{}/{database}", options.get_host(), options.get_port());
        let pool = match connect(options, connections, &address).await {
            Err(CliError::Connect { source, .. }) if is_refused_by_pooler(&source) => {
                return Err(CliError::Pooler(address));
            }
            pool => pool?,
        };
        let shares_sessions = Pool::shares_sessions(pool.options()).await;
        if shares_sessions.map_err(store::StoreError::from)? {
            return Err(CliError::Pooler(address));
        }
        Ok(Self {
            pool,
            location: format!("PostgreSQL at {address}"),
            embedded: None,
        })
    }

    /// Migrates the schema. Replicas that start together take turns by an advisory lock of the
    /// migrator.
    pub(super) async fn migrate(&self) -> Result<(), CliError> {
        let version: i32 =
            sqlx::query_scalar("select current_setting('server_version_num')::integer")
                .fetch_one(&self.pool)
                .await
                .map_err(store::StoreError::from)?;
        if version < OLDEST_VERSION {
            return Err(CliError::OldDatabase((version / 10_000).to_string()));
        }
        // A connection of its own, as the lock belongs to the connection.
        let mut connection = PgConnection::connect_with(self.pool.options())
            .await
            .map_err(store::StoreError::from)?;
        Ok(sqlx::migrate!().run(&mut connection).await?)
    }

    /// Releases the leases of earlier processes, so that their work is due at once. Only for the
    /// embedded database: the process that runs it is the only one that works on it.
    pub(super) async fn release_leases(&self) -> Result<(), CliError> {
        let runs = store::run_queue::release_all(&self.pool).await?;
        let files = store::vector_store_jobs::release_all(&self.pool).await?;
        let deliveries = store::webhook_deliveries::release_all(&self.pool).await?;
        if runs + files + deliveries > 0 {
            tracing::info!(
                runs,
                files,
                deliveries,
                "resuming the unfinished work of an earlier process: {runs} runs, {files} files, \
                 {deliveries} webhook deliveries"
            );
        }
        Ok(())
    }

    pub(super) fn embedded_server(&self) -> Option<&Embedded> {
        self.embedded.as_ref()
    }

    pub(super) async fn close(self) {
        // Bounded: stopping the server closes connections that are still in use.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.pool.close()).await;
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

pub(super) fn embedded_options(config: &Config) -> embedded_postgres::Options {
    embedded_postgres::Options {
        data_dir: config.files.data_dir.clone(),
        bin_dir: config.database.postgres_bin.clone(),
        user: config.database.postgres_user.clone(),
        connections: config.database.database_connections,
    }
}

fn embedded_location(config: &Config) -> String {
    let folder = config.files.data_dir.join("postgres");
    format!("embedded PostgreSQL in {}", folder.display())
}

async fn connect(
    options: PgConnectOptions,
    connections: u32,
    address: &str,
) -> Result<Pool, CliError> {
    let options = options
        .application_name("assistd")
        // A safety net: a transaction that is never ended must not keep its locks.
        .options([(
            "idle_in_transaction_session_timeout",
            IDLE_IN_TRANSACTION_TIMEOUT,
        )])
        .log_statements(LevelFilter::Trace)
        .log_slow_statements(LevelFilter::Warn, Duration::from_secs(2));
    Pool::connect(options, connections)
        .await
        .map_err(|source| CliError::Connect {
            address: address.to_owned(),
            source,
        })
}

/// PgBouncer refuses startup parameters unless it is configured to ignore them.
fn is_refused_by_pooler(error: &sqlx::Error) -> bool {
    let message = error.as_database_error().map(|error| error.message());
    message.is_some_and(|message| message.contains("unsupported startup parameter"))
}

/// Connects to an embedded server of another process, which may still be starting; gives up after
/// 10 s.
async fn connect_with_retries(
    options: PgConnectOptions,
    connections: u32,
) -> Result<Pool, CliError> {
    let mut attempts = 0;
    loop {
        match connect(options.clone(), connections, "the data folder").await {
            Err(_) if attempts < 50 => attempts += 1,
            outcome => return outcome,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Runs `work` on the migrated database, whether a server is running or not.
pub(super) async fn with_database<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Pool) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let database = Database::open_beside_server(config).await?;
    let outcome = match database.migrate().await {
        Ok(()) => work(&database.pool).await,
        Err(error) => Err(error),
    };
    database.close().await;
    outcome
}
