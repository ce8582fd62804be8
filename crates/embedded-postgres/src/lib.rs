//! The embedded database: a PostgreSQL server that this process starts, watches and stops.
//!
//! It keeps its data in `<data_dir>/postgres` and listens on a Unix socket only, in a folder that
//! none but its owner can enter. Nothing here knows what is in the database.
//!
//! One process at a time may run it: whoever holds the lock on `<data_dir>/postgres.lock`. The
//! kernel drops that lock when its holder dies, however it dies. The server of a holder that was
//! killed goes on running; the next holder stops it in good order and starts its own, so nothing
//! that was committed is lost.

mod binaries;
mod cluster;
mod memory;
mod owner;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::postgres::PgConnectOptions;
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use binaries::BinariesError;
use cluster::Cluster;
use cluster::Lock;
use cluster::Output;
pub use memory::memory;

/// The name of the database, and of the role that owns it.
const NAME: &str = "assistd";

/// How long a start may take. Recovery after a crash takes 20 s for a gigabyte of log.
const START_LIMIT: Duration = Duration::from_secs(600);
/// How long the data folder must be in use before another process is thought to use it.
const LOCK_LIMIT: Duration = Duration::from_millis(500);
/// The same if the process that is said to use it no longer exists: its children may hold its lock
/// until the system comes to run them.
const DEAD_LOCK_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for the remains of an earlier server to go away.
const REMAINS_LIMIT: Duration = Duration::from_secs(20);
/// How long a server may take for an orderly stop before it is told to abort. It recovers from
/// that at its next start.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How long to wait before a server that ended by itself is started again: at first, and after
/// many failures.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where the embedded database is and who runs it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder that contains the database's folder; created if it does not exist.
    pub data_dir: PathBuf,
    /// Folder with `initdb` and `postgres`; looked for if `None`.
    pub bin_dir: Option<PathBuf>,
    /// User that runs a new database if this process is root's, which PostgreSQL refuses.
    pub user: String,
    /// Connections that this process will want to have at a time.
    pub connections: u32,
}

/// Why the embedded database cannot be used. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// There are no programs to run it with.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// Another process runs it.
    #[error(
        "another assistd{} uses the data folder {}; stop it, or choose another folder with \
         ASSISTD_DATA_DIR",
        pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        data_dir.display()
    )]
    InUse {
        /// The folder.
        data_dir: PathBuf,
        /// The other process, as far as it is known.
        pid: Option<i32>,
    },
    /// The user who should run it does not exist, or is root.
    #[error(
        "the database cannot be run by the user {0:?}: it needs one that exists and is not root; \
         choose one with ASSISTD_POSTGRES_USER"
    )]
    User(String),
    /// The data belongs to somebody else.
    #[error(
        "{} belongs to another user (uid {uid}); start assistd as that user or as root, or choose \
         another folder with ASSISTD_DATA_DIR",
        path.display()
    )]
    NotOurs {
        /// The database's folder, or that of its socket.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The data was written by another major version.
    #[error(
        "{} was made by PostgreSQL {found}, and the programs found are PostgreSQL {expected}; \
         name those of the old version in ASSISTD_POSTGRES_BIN, or move the data with pg_upgrade",
        path.display()
    )]
    Version {
        /// The database's folder.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The version of the programs.
        expected: u32,
    },
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    File {
        /// What it was about.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The database could not be created.
    #[error("the database could not be created in {}:\n{output}", path.display())]
    Init {
        /// The database's folder.
        path: PathBuf,
        /// The end of what `initdb` said.
        output: String,
    },
    /// The server ended while it was starting.
    #[error("the database server did not start:\n{output}\n(its log is in {})", log.display())]
    Start {
        /// The end of what the server said.
        output: String,
        /// Folder of its log.
        log: PathBuf,
    },
    /// The server runs and does not answer.
    #[error("the database server does not answer: {0}")]
    Silent(#[source] sqlx::Error),
}

/// A running embedded database.
///
/// Call [`stop`](Self::stop) at the end. If it is dropped instead, the server is told to stop and
/// nobody waits for it.
#[derive(Debug)]
pub struct Embedded {
    connect: PgConnectOptions,
    postmaster: Postmaster,
    stop: CancellationToken,
    watch: Option<JoinHandle<()>>,
    _lock: Lock,
}

/// The process id of the server while it runs and has not been waited for, 0 otherwise: so it
/// never is the id of a process that is not ours.
#[derive(Debug, Clone, Default)]
struct Postmaster(Arc<AtomicI32>);

impl Embedded {
    /// Starts the server, after creating the database or cleaning up after a crash where that is
    /// due, and waits until it accepts connections.
    ///
    /// # Errors
    /// [`PostgresError::InUse`] if another process runs it, and whatever else may be wrong.
    pub async fn start(options: &Options) -> Result<Self, PostgresError> {
        let lock = lock(&options.data_dir).await?;
        let cluster = Cluster::prepare(options).await?;
        // However this function is left early, dropping this stops the server.
        let mut embedded = Self {
            connect: connect_options(&cluster.socket_dir),
            postmaster: Postmaster::default(),
            stop: CancellationToken::new(),
            watch: None,
            _lock: lock,
        };
        let Halter { postmaster, stop } = embedded.halter();
        let server = start_server(&cluster, &postmaster).await?;
        embedded.watch = Some(tokio::spawn(watch(cluster, server, postmaster, stop)));
        create_database(&embedded.connect)
            .await
            .map_err(PostgresError::Silent)?;
        Ok(embedded)
    }

    /// How to connect to it.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.connect.clone()
    }

    /// For stopping it in a hurry.
    pub fn halter(&self) -> Halter {
        Halter {
            postmaster: self.postmaster.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Stops the server in good order and waits until it is gone. Connections are closed.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(watch) = self.watch.take()
            && let Err(error) = watch.await
        {
            tracing::error!(error = %error, "the watch over the database failed: {error}");
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.halter().halt();
    }
}

/// Tells an embedded database to stop, from wherever a process ends early.
#[derive(Debug, Clone)]
pub struct Halter {
    postmaster: Postmaster,
    stop: CancellationToken,
}

impl Halter {
    /// Tells the server to stop in good order, and does not wait for that.
    pub fn halt(&self) {
        self.stop.cancel();
        self.postmaster.signal(Signal::SIGINT);
    }
}

/// How to connect to the database that another process runs on the same folder.
///
/// # Errors
/// As [`Embedded::start`], except that nothing is started.
pub fn connect_to_running(options: &Options) -> Result<PgConnectOptions, PostgresError> {
    let data_dir = cluster::canonical(&options.data_dir)?;
    let owner = owner::Owner::of_cluster(&cluster::folder(&data_dir), &options.user)?;
    Ok(connect_options(&cluster::socket_dir(&data_dir, &owner)))
}

/// Where a program of the PostgreSQL that runs the embedded database is.
///
/// # Errors
/// If there is no PostgreSQL; the program itself may be missing all the same.
pub fn program(options: &Options, name: &OsStr) -> Result<PathBuf, PostgresError> {
    let binaries = binaries::Binaries::find(options.bin_dir.as_deref())?;
    Ok(binaries.dir.join(name))
}

fn connect_options(socket_dir: &std::path::Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(cluster::PORT)
        .username(NAME)
        .database(NAME)
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
        .application_name(NAME)
}

/// Takes the right to serve the database in a data folder. Whatever this process starts holds a
/// copy of all its locks until it has become a program of its own, so one that was just let go of
/// may seem to be held for a moment.
async fn lock(data_dir: &std::path::Path) -> Result<Lock, PostgresError> {
    let begun = Instant::now();
    let limit = |pid: Option<i32>| {
        let is_dead = |pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH);
        if pid.is_some_and(is_dead) {
            DEAD_LOCK_LIMIT
        } else {
            LOCK_LIMIT
        }
    };
    loop {
        match Lock::acquire(data_dir) {
            Err(PostgresError::InUse { pid, .. }) if begun.elapsed() < limit(pid) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn create_database(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut maintenance = options.clone().database("postgres").connect().await?;
    let exists: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(NAME)
            .fetch_one(&mut maintenance)
            .await?;
    if !exists {
        sqlx::query("create database assistd")
            .execute(&mut maintenance)
            .await?;
    }
    maintenance.close().await
}

/// Starts a server and waits until it accepts connections. An earlier one that still runs is
/// stopped before; one that is just dying is waited for.
async fn start_server(
    cluster: &Cluster,
    postmaster: &Postmaster,
) -> Result<(Child, Output), PostgresError> {
    let begun = Instant::now();
    loop {
        cluster.stop_orphan().await?;
        let (mut child, output) = cluster.spawn_server()?;
        postmaster.set(&child);
        let exited = tokio::select! {
            ready = answers(connect_options(&cluster.socket_dir).database("postgres")) => {
                return match ready {
                    Ok(()) => Ok((child, output)),
                    Err(error) => {
                        postmaster.signal(Signal::SIGQUIT);
                        let _ = child.wait().await;
                        postmaster.clear();
                        Err(PostgresError::Silent(error))
                    }
                };
            }
            exited = child.wait() => exited,
        };
        postmaster.clear();
        let output = output.collect().await;
        // A server that was killed leaves its process behind for a moment, or its children,
        // which leave by themselves.
        let remains = output.contains("postmaster.pid\" already exists")
            || output.contains("pre-existing shared memory block");
        if !remains || begun.elapsed() > REMAINS_LIMIT {
            let status = exited.map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(PostgresError::Start {
                output: format!("{}{status}", cluster.explain(output)),
                log: cluster.log_dir(),
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until the server lets somebody in, however long its recovery takes.
async fn answers(options: PgConnectOptions) -> Result<(), sqlx::Error> {
    let begun = Instant::now();
    let mut told = 0;
    loop {
        let error = match options.connect().await {
            Ok(connection) => return connection.close().await,
            Err(error) => error,
        };
        if begun.elapsed() > START_LIMIT {
            return Err(error);
        }
        let seconds = begun.elapsed().as_secs();
        if seconds >= told + 5 {
            told = seconds;
            tracing::info!("the database is still starting after {seconds} s: {error}");
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Starts the server again whenever it ends by itself, until it is told to stop. Whatever makes it
/// end, such as a full disk, may be cleared away at any time.
async fn watch(
    cluster: Cluster,
    (mut child, mut output): (Child, Output),
    postmaster: Postmaster,
    stop: CancellationToken,
) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let begun = Instant::now();
        let ended = tokio::select! {
            ended = child.wait() => ended,
            () = stop.cancelled() => {
                stop_server(child, &postmaster).await;
                return cluster.remove_socket_dir();
            }
        };
        postmaster.clear();
        let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        let said = cluster.explain(output.collect().await);
        let reason = said.trim_end();
        tracing::error!(
            postgres.status = status,
            "the database ended by itself ({status}); starting it again. It said:\n{reason}"
        );
        pause = match begun.elapsed() > LONGEST_PAUSE {
            true => SHORTEST_PAUSE,
            false => (pause * 2).min(LONGEST_PAUSE),
        };
        (child, output) = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return cluster.remove_socket_dir(),
            }
            match cluster.spawn_server() {
                Ok(started) => break started,
                Err(error) => tracing::error!(error = %error, "{error}"),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        postmaster.set(&child);
    }
}

async fn stop_server(mut child: Child, postmaster: &Postmaster) {
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL] {
        postmaster.signal(signal);
        if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_ok() {
            break;
        }
        tracing::warn!("PostgreSQL did not stop on {signal}");
    }
    postmaster.clear();
}

impl Postmaster {
    fn set(&self, child: &Child) {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        self.0.store(pid.unwrap_or_default(), Ordering::SeqCst);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.0.load(Ordering::SeqCst);
        if pid > 0 {
            // It fails only if the process is gone, which is what is wanted.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}
