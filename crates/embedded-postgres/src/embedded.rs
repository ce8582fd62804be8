//! A running server: its start, its supervision and its stop.

use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::postgres::PgConnectOptions;
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::binaries::Binaries;
use crate::cluster;
use crate::cluster::Cluster;
use crate::cluster::STOP_TIMEOUT;
use crate::error::PostgresError;
use crate::lock::Lock;
use crate::options::NAME;
use crate::options::Options;
use crate::output;
use crate::output::Output;
use crate::owner::Owner;

/// How long a start may take. Recovery after a crash takes 20 s per gigabyte of write-ahead log.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// How long to wait for an earlier server and its children to exit.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(20);

const MIN_RESTART_DELAY: Duration = Duration::from_millis(100);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(5);

/// A running embedded database.
///
/// Call [`stop`](Self::stop) at the end. Dropping it instead signals the server to stop and does not
/// wait.
#[derive(Debug)]
pub struct Embedded {
    connect: PgConnectOptions,
    postmaster: Postmaster,
    stop: CancellationToken,
    supervisor: Option<JoinHandle<()>>,
    _lock: Lock,
}

/// The process id of the server from its start until it has been waited for, and 0 otherwise. So a
/// signal never reaches a process that got the same id later.
#[derive(Debug, Clone, Default)]
struct Postmaster(Arc<AtomicI32>);

impl Embedded {
    /// Starts the server and waits until it accepts connections. Creates the database if it does not
    /// exist, and stops a server that a killed process has left behind.
    ///
    /// # Errors
    /// [`PostgresError::InUse`] if another process runs the database; else why it cannot be started.
    pub async fn start(options: &Options) -> Result<Self, PostgresError> {
        let lock = Lock::acquire(&options.data_dir).await?;
        let cluster = Cluster::prepare(options).await?;
        // From here on, dropping `embedded` stops the server, so an early return leaves none behind.
        let mut embedded = Self {
            connect: connect_options(&cluster.socket_dir),
            postmaster: Postmaster::default(),
            stop: CancellationToken::new(),
            supervisor: None,
            _lock: lock,
        };
        let StopHandle { postmaster, stop } = embedded.stop_handle();
        let server = start_server(&cluster, &postmaster).await?;
        let supervision = supervise(cluster, server, postmaster, stop);
        embedded.supervisor = Some(tokio::spawn(supervision));
        create_database(&embedded.connect)
            .await
            .map_err(PostgresError::Silent)?;
        Ok(embedded)
    }

    pub fn connect_options(&self) -> PgConnectOptions {
        self.connect.clone()
    }

    pub fn stop_handle(&self) -> StopHandle {
        StopHandle {
            postmaster: self.postmaster.clone(),
            stop: self.stop.clone(),
        }
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(supervisor) = self.supervisor.take()
            && let Err(error) = supervisor.await
        {
            tracing::error!(error.cause = %error, "the supervisor of PostgreSQL failed: {error}");
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop_handle().request_stop();
    }
}

#[derive(Debug, Clone)]
pub struct StopHandle {
    postmaster: Postmaster,
    stop: CancellationToken,
}

impl StopHandle {
    /// Signals the server to stop in an orderly way, and does not wait.
    pub fn request_stop(&self) {
        self.stop.cancel();
        self.postmaster.signal(Signal::SIGINT);
    }
}

/// Connection options of the database that another process runs in this data folder.
///
/// # Errors
/// If the data folder does not exist, or belongs to another user.
pub fn connect_to_running(options: &Options) -> Result<PgConnectOptions, PostgresError> {
    let data_dir = cluster::canonical(&options.data_dir)?;
    let owner = Owner::of_cluster(&cluster::folder(&data_dir), &options.user)?;
    Ok(connect_options(&cluster::socket_dir(&data_dir, &owner)))
}

/// Path of a program such as `psql` beside the `postgres` of the embedded database.
///
/// # Errors
/// If there is no PostgreSQL. Whether the program exists is not checked.
pub fn program(options: &Options, name: &OsStr) -> Result<PathBuf, PostgresError> {
    let binaries = Binaries::find(options.bin_dir.as_deref())?;
    Ok(binaries.dir.join(name))
}

fn connect_options(socket_dir: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(cluster::PORT)
        .username(NAME)
        .database(NAME)
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
        .application_name(NAME)
}

async fn create_database(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut connection = options.clone().database("postgres").connect().await?;
    let exists: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(NAME)
            .fetch_one(&mut connection)
            .await?;
    if !exists {
        sqlx::query("create database assistd")
            .execute(&mut connection)
            .await?;
    }
    connection.close().await
}

/// Starts a server and waits until it accepts connections. A server that still runs is stopped
/// before; one that is exiting is waited for.
async fn start_server(
    cluster: &Cluster,
    postmaster: &Postmaster,
) -> Result<(Child, Output), PostgresError> {
    let started = Instant::now();
    loop {
        cluster.stop_orphan().await?;
        let (mut child, output) = cluster.spawn_server()?;
        postmaster.set(&child);
        let exited = tokio::select! {
            ready = wait_until_ready(connect_options(&cluster.socket_dir).database("postgres")) => {
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
        // A killed server leaves its process, or children that exit by themselves, for a moment.
        if !output::has_predecessor(&output) || started.elapsed() > PREDECESSOR_TIMEOUT {
            let status = exited.map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(PostgresError::Start {
                output: format!("{}{status}", cluster.explain(output)),
                log: cluster.log_dir(),
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn wait_until_ready(options: PgConnectOptions) -> Result<(), sqlx::Error> {
    let started = Instant::now();
    let mut last_logged = 0;
    loop {
        let error = match options.connect().await {
            Ok(connection) => return connection.close().await,
            Err(error) => error,
        };
        if started.elapsed() > START_TIMEOUT {
            return Err(error);
        }
        let seconds = started.elapsed().as_secs();
        if seconds >= last_logged + 5 {
            last_logged = seconds;
            tracing::info!("PostgreSQL is still starting after {seconds} s: {error}");
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Restarts the server whenever it exits by itself, until `stop`. It never gives up: the cause, such
/// as a full disk, may go away at any time.
async fn supervise(
    cluster: Cluster,
    (mut child, mut output): (Child, Output),
    postmaster: Postmaster,
    stop: CancellationToken,
) {
    let mut delay = MIN_RESTART_DELAY;
    loop {
        let started = Instant::now();
        let exited = tokio::select! {
            exited = child.wait() => exited,
            () = stop.cancelled() => {
                stop_server(child, &postmaster).await;
                return cluster.remove_socket_dir();
            }
        };
        postmaster.clear();
        let status = exited.map_or_else(|error| error.to_string(), |status| status.to_string());
        let explanation = cluster.explain(output.collect().await);
        tracing::error!(
            postgres.status = status,
            "PostgreSQL exited unexpectedly ({status}); restarting it. Its last output:\n{}",
            explanation.trim_end()
        );
        delay = match started.elapsed() > MAX_RESTART_DELAY {
            true => MIN_RESTART_DELAY,
            false => (delay * 2).min(MAX_RESTART_DELAY),
        };
        (child, output) = loop {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stop.cancelled() => return cluster.remove_socket_dir(),
            }
            match cluster.spawn_server() {
                Ok(started) => break started,
                Err(error) => {
                    tracing::error!(error.cause = %error, "could not start PostgreSQL: {error}; retrying");
                }
            }
            delay = (delay * 2).min(MAX_RESTART_DELAY);
        };
        postmaster.set(&child);
    }
}

/// Stops the server: in an orderly way, else without a checkpoint, which makes its next start a
/// recovery, else by force.
async fn stop_server(mut child: Child, postmaster: &Postmaster) {
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL] {
        postmaster.signal(signal);
        if tokio::time::timeout(STOP_TIMEOUT, child.wait())
            .await
            .is_ok()
        {
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
            // An error means that the process has exited already.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}
