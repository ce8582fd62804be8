//! The database of a command: the one of `DATABASE_URL`, or the embedded one.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tracing::log::LevelFilter;

use super::CliError;
use crate::config::Config;
use crate::store;
use crate::store::Pool;
use embedded_postgres::Embedded;
use embedded_postgres::PostgresError;

/// The oldest PostgreSQL that is supported, as `server_version_num` has it.
pub(super) const OLDEST: i32 = 160_000;

/// How long a transaction may wait for its next statement. The longest pause is that of an import
/// that copies a file's contents.
const IDLE_IN_TRANSACTION: &str = "5min";

/// How many connections a short command needs.
const FEW: u32 = 2;

/// A connected database, with its server if that is ours.
pub(super) struct Database {
    pub(super) pool: Pool,
    /// How people call the place.
    pub(super) place: String,
    embedded: Option<Embedded>,
}

impl Database {
    /// For the server: the embedded database must not be in use by another one.
    pub(super) async fn open(config: &Config) -> Result<Self, CliError> {
        if config.database.database_url.is_some() {
            return Self::remote(config, config.database.database_connections).await;
        }
        let embedded = Embedded::start(&options(config)).await?;
        Self::embedded(config, embedded, config.database.database_connections).await
    }

    /// For a short command: joins the server that runs already, or starts the database for itself.
    pub(super) async fn open_beside_server(config: &Config) -> Result<Self, CliError> {
        if config.database.database_url.is_some() {
            return Self::remote(config, FEW).await;
        }
        let options = options(config);
        match Embedded::start(&options).await {
            Ok(embedded) => Self::embedded(config, embedded, FEW).await,
            Err(PostgresError::InUse { .. }) => {
                let connect = embedded_postgres::connect_to_running(&options)?;
                let pool = connect_patiently(connect, FEW).await?;
                Ok(Self {
                    pool,
                    place: place(config),
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
            place: place(config),
            embedded: Some(embedded),
        })
    }

    async fn remote(config: &Config, connections: u32) -> Result<Self, CliError> {
        let url = config
            .database
            .database_url
            .as_ref()
            .map_or("", |url| url.expose());
        // The error would repeat parts of the URL, maybe the password.
        let options = PgConnectOptions::from_str(url).map_err(|_| CliError::DatabaseUrl)?;
        let options = match &config.database.database_password {
            Some(password) => options.password(password.expose()),
            None => options,
        };
        let database = options.get_database().unwrap_or(options.get_username());
        let place = format!("{}:{}/{database}", options.get_host(), options.get_port());
        let pool = connect(options, connections, &place).await?;
        Ok(Self {
            pool,
            place: format!("PostgreSQL at {place}"),
            embedded: None,
        })
    }

    /// Brings the tables up to date. Replicas that start together take turns: the migrator holds
    /// an advisory lock.
    pub(super) async fn migrate(&self) -> Result<(), CliError> {
        let version: i32 =
            sqlx::query_scalar("select current_setting('server_version_num')::integer")
                .fetch_one(&self.pool)
                .await
                .map_err(store::StoreError::from)?;
        if version < OLDEST {
            return Err(CliError::OldDatabase((version / 10_000).to_string()));
        }
        // Not a session of the pool: the migrator's lock belongs to the session.
        let mut session = PgConnection::connect_with(self.pool.options())
            .await
            .map_err(store::StoreError::from)?;
        Ok(sqlx::migrate!().run(&mut session).await?)
    }

    /// Makes the work due at once that an earlier process of the embedded database died over. Whoever
    /// runs the embedded database is the only process that works on it.
    pub(super) async fn take_over(&self) -> Result<(), CliError> {
        let runs = store::run_queue::release_all(&self.pool).await?;
        let files = store::vector_store_jobs::release_all(&self.pool).await?;
        let deliveries = store::webhook_deliveries::release_all(&self.pool).await?;
        if runs + files + deliveries > 0 {
            tracing::info!(
                runs,
                files,
                deliveries,
                "resuming what the last process left: {runs} runs, {files} files, \
                 {deliveries} webhook deliveries"
            );
        }
        Ok(())
    }

    /// The embedded server, if this process runs it.
    pub(super) fn server(&self) -> Option<&Embedded> {
        self.embedded.as_ref()
    }

    /// Closes the connections and stops the embedded server.
    pub(super) async fn close(self) {
        // Connections that are still out must not hold up the server's stop, which closes them.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.pool.close()).await;
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

/// What the embedded database needs to know.
pub(super) fn options(config: &Config) -> embedded_postgres::Options {
    embedded_postgres::Options {
        data_dir: config.files.data_dir.clone(),
        bin_dir: config.database.postgres_bin.clone(),
        user: config.database.postgres_user.clone(),
        connections: config.database.database_connections,
    }
}

fn place(config: &Config) -> String {
    let folder = config.files.data_dir.join("postgres");
    format!("embedded PostgreSQL in {}", folder.display())
}

async fn connect(options: PgConnectOptions, connections: u32, at: &str) -> Result<Pool, CliError> {
    let options = options
        .application_name("assistd")
        // Should a transaction be forgotten after all, it does not keep its locks for ever.
        .options([("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION)])
        .log_statements(LevelFilter::Trace)
        .log_slow_statements(LevelFilter::Warn, Duration::from_secs(2));
    Pool::connect(options, connections)
        .await
        .map_err(|source| CliError::Connect {
            at: at.to_owned(),
            source,
        })
}

/// Connects to a server that may just be starting.
async fn connect_patiently(options: PgConnectOptions, connections: u32) -> Result<Pool, CliError> {
    let mut tries = 0;
    loop {
        match connect(options.clone(), connections, "the data folder").await {
            Err(_) if tries < 50 => tries += 1,
            outcome => return outcome,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
