//! The servers under test, and the fake upstream.

use crate::BenchError;
use crate::api::Api;
use crate::database::Database;
use crate::http::Http;
use crate::process;
use crate::process::ChildProcess;
use embedded_postgres::Embedded;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use sqlx::ConnectOptions;
use std::fs;
use std::fs::File;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio::time::sleep;

/// The API key of the servers under test, so that their cost includes its check.
const KEY: &str = "sk-bench-0123456789abcdefghijklmnopqrstuvwxyz";

/// How to start a server.
#[derive(Clone)]
pub(crate) enum Kind {
    /// This program's null server.
    Null,
    /// An assistd binary.
    Assistd {
        binary: PathBuf,
        /// The database to use; without it assistd runs its own.
        database_url: Option<String>,
        /// The number of processes on that database.
        replicas: usize,
        /// Further settings, as environment variables.
        settings: Vec<(String, String)>,
    },
}

impl Kind {
    /// Adds settings that do not override existing ones.
    pub(crate) fn with<'a>(&self, more: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut kind = self.clone();
        if let Self::Assistd { settings, .. } = &mut kind {
            let more = more.into_iter();
            let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
            settings.splice(..0, more);
        }
        kind
    }

    /// Whether a server brings its own database.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self, Self::Assistd { database_url, .. } if database_url.is_none())
    }

    pub(crate) fn replicas(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Assistd { replicas, .. } => *replicas,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Assistd { .. } => "assistd",
        }
    }
}

/// A running server.
pub(crate) struct Subject {
    name: &'static str,
    pub(crate) api: Api,
    /// The database, unless it is a null server.
    pub(crate) database: Option<Database>,
    pub(crate) kind: Kind,
    listen: SocketAddr,
    upstream: SocketAddr,
    /// From the start of the process to its first response.
    pub(crate) first_answer: Duration,
    server: ChildProcess,
    /// Further processes on the same database.
    replicas: Vec<ChildProcess>,
    // Dropped after the server, which writes to it until it exits.
    folder: TempDir,
}

impl Subject {
    /// Starts a server and waits for its first response.
    pub(crate) async fn start(kind: Kind, upstream: SocketAddr) -> Result<Self, BenchError> {
        let folder = TempDir::with_prefix("assistd-bench-")?;
        // An unprivileged database server must be able to enter the folder.
        make_accessible(folder.path())?;
        let listen = free_address()?;
        let start = Instant::now();
        let server = ChildProcess::start(&mut command(&kind, listen, upstream, folder.path())?)?;
        let mut subject = Self {
            name: kind.name(),
            api: Api {
                http: Http::new(listen, KEY),
            },
            database: None,
            kind,
            listen,
            upstream,
            first_answer: Duration::ZERO,
            server,
            replicas: Vec::new(),
            folder,
        };
        subject.answer().await?;
        subject.first_answer = start.elapsed();
        subject.start_replicas().await?;
        subject.connect_database().await?;
        Ok(subject)
    }

    /// Starts the other replicas, between which requests are then divided.
    async fn start_replicas(&mut self) -> Result<(), BenchError> {
        let mut addresses = vec![self.listen];
        for number in 1..self.kind.replicas() {
            let listen = free_address()?;
            let folder = self.folder.path().join(format!("replica-{number}"));
            fs::create_dir(&folder)?;
            let mut command = command(&self.kind, listen, self.upstream, &folder)?;
            self.replicas.push(ChildProcess::start(&mut command)?);
            self.api.http = Http::new(listen, KEY);
            self.answer().await?;
            addresses.push(listen);
        }
        self.api.http = Http::balanced(addresses, KEY);
        Ok(())
    }

    pub(crate) fn pid(&self) -> Pid {
        self.server.pid()
    }

    /// CPU time of the server, without its children.
    pub(crate) fn cpu(&self) -> Duration {
        let processes = [&self.server].into_iter().chain(&self.replicas);
        processes.map(|process| process::cpu(process.pid())).sum()
    }

    /// Kills the server; its embedded database may keep running.
    pub(crate) fn kill(&mut self) -> Result<(), BenchError> {
        self.database = None;
        Ok(self.server.kill()?)
    }

    /// Stops the server with SIGTERM.
    pub(crate) fn stop(&mut self) -> Result<(), BenchError> {
        self.database = None;
        Ok(self.server.stop()?)
    }

    /// Restarts a stopped server on its data; the time to its first response.
    pub(crate) async fn restart(&mut self) -> Result<Duration, BenchError> {
        let path = self.folder.path();
        let mut command = command(&self.kind, self.listen, self.upstream, path)?;
        let start = Instant::now();
        self.server = ChildProcess::start(&mut command)?;
        self.answer().await?;
        let elapsed = start.elapsed();
        self.connect_database().await?;
        Ok(elapsed)
    }

    /// Waits until the server can create a thread.
    async fn answer(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let error = match self.api.create_thread().await {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            };
            let why = match self.server.ended() {
                Some(status) => format!("it ended: {status}"),
                None if Instant::now() > deadline => error,
                None => {
                    sleep(Duration::from_millis(2)).await;
                    continue;
                }
            };
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(20)..].join("\n");
            let name = self.name;
            return Err(BenchError::Start { name, why, tail });
        }
    }

    async fn connect_database(&mut self) -> Result<(), BenchError> {
        let Kind::Assistd { database_url, .. } = &self.kind else {
            return Ok(());
        };
        let database = match database_url {
            Some(url) => Database::at_url(url).await?,
            None => Database::in_folder(&cluster(self.folder.path())).await?,
        };
        self.database = Some(database);
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Err(error) = self.server.stop() {
            eprintln!("could not stop {}: {error}", self.name);
        }
        // A killed server leaves its database running.
        let file = cluster(self.folder.path()).join("postmaster.pid");
        let Ok(text) = fs::read_to_string(file) else {
            return;
        };
        let Some(pid) = text.lines().next().and_then(|line| line.parse().ok()) else {
            return;
        };
        let pid = Pid::from_raw(pid);
        let is_there = || process::parent_of(pid, "postgres").is_some();
        if is_there() && kill(pid, Signal::SIGINT).is_ok() {
            for _ in (0..100).take_while(|_| is_there()) {
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// A PostgreSQL server for several replicas, with the settings of assistd's own.
pub(crate) struct SharedDatabase {
    server: Embedded,
    _folder: TempDir,
}

impl SharedDatabase {
    /// Connections of a replica, with some reserve.
    const CONNECTIONS: u32 = 30;

    pub(crate) async fn start(replicas: usize) -> Result<Self, BenchError> {
        let folder = TempDir::with_prefix("assistd-bench-")?;
        make_accessible(folder.path())?;
        let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
        let options = embedded_postgres::Options {
            data_dir: folder.path().join("data"),
            bin_dir: None,
            user: "nobody".to_owned(),
            connections: replicas.saturating_mul(Self::CONNECTIONS),
        };
        Ok(Self {
            server: Embedded::start(&options).await?,
            _folder: folder,
        })
    }

    pub(crate) fn url(&self) -> String {
        self.server.connect_options().to_url_lossy().to_string()
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

/// Where assistd keeps its own database cluster.
fn cluster(folder: &Path) -> PathBuf {
    folder.join("data/postgres")
}

/// The fake upstream, as a process.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    http: Http,
    process: ChildProcess,
}

impl Upstream {
    pub(crate) async fn start() -> Result<Self, BenchError> {
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["upstream", "--listen", &address.to_string()]);
        let upstream = Self {
            address,
            http: Http::new(address, KEY),
            process: ChildProcess::start(&mut command)?,
        };
        while upstream.calls().await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(upstream)
    }

    /// The number of model calls so far.
    pub(crate) async fn calls(&self) -> Result<u64, BenchError> {
        let body = self.http.get("/calls").await?;
        let count = std::str::from_utf8(&body).ok().and_then(|n| n.parse().ok());
        Ok(count.expect("the upstream answers with a number"))
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }
}

fn command(
    kind: &Kind,
    listen: SocketAddr,
    upstream: SocketAddr,
    folder: &Path,
) -> Result<Command, BenchError> {
    let mut command = match kind {
        Kind::Null => {
            let mut command = Command::new(std::env::current_exe()?);
            let (listen, upstream) = (listen.to_string(), upstream.to_string());
            command.args(["null", "--listen", &listen, "--upstream", &upstream]);
            command
        }
        Kind::Assistd {
            binary,
            database_url,
            settings,
            ..
        } => {
            let mut command = Command::new(binary);
            command
                .env("ASSISTD_LISTEN", listen.to_string())
                .env("ASSISTD_DATA_DIR", folder.join("data"))
                .env("ASSISTD_API_KEYS", format!("bench:{KEY}"))
                .env("OPENAI_BASE_URL", format!("http://{upstream}/v1"))
                .env("OPENAI_API_KEY", KEY)
                .env_remove("DATABASE_URL")
                .envs(database_url.iter().map(|url| ("DATABASE_URL", url)))
                .envs(settings.iter().map(|(name, value)| (name, value)));
            command
        }
    };
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}

fn make_accessible(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

/// An unused local address.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
