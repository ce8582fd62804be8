//! A server process on a shared database, which tests stop or kill.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::cluster::{Db, cluster};
use crate::{process, with_timeout};

/// The scripted models of the tests.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/script.yaml");

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    /// `http://127.0.0.1:port`
    pub origin: String,
    pub folder: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Starts a server on a database; `settings` are environment variables.
    pub async fn start(db: &Db, settings: &[(&str, &str)]) -> Self {
        Self::start_at(&db.url, settings).await
    }

    /// Starts a server on the database at a URL, or on an embedded one if the URL is empty.
    pub async fn start_at(database_url: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_in(&cluster().folder(), database_url, settings).await
    }

    /// Like [`Server::start_at`], with the given data folder.
    pub async fn start_in(folder: &Path, database_url: &str, settings: &[(&str, &str)]) -> Self {
        std::fs::create_dir_all(folder).expect("the temporary folder is writable");
        let log = folder.join("log");
        let output = File::create(&log).expect("the data folder is writable");
        let mut command = Command::from(process::assistd(folder));
        command
            .env("ASSISTD_DATABASE_CONNECTIONS", "8")
            .env("ASSISTD_SCRIPT", SCRIPT)
            .env("DATABASE_URL", database_url)
            .envs(settings.iter().copied())
            .process_group(cluster().process_group())
            .stdout(Stdio::piped())
            .stderr(output)
            .kill_on_drop(true);
        let mut child = command.spawn().expect("Cargo has built the binary");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut server = Self {
            child,
            origin: String::new(),
            folder: folder.to_owned(),
            log,
        };
        server.origin = with_timeout("the server's greeting", read_origin(stdout)).await;
        server
    }

    /// A client whose key is accepted while the database has no API keys.
    pub fn client(&self) -> Client {
        self.client_with_key("any-key")
    }

    pub fn client_with_key(&self, key: &str) -> Client {
        Client::new(&self.origin, key)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> Pid {
        let pid = self.child.id().expect("the process has not been reaped");
        Pid::from_raw(i32::try_from(pid).expect("Linux process ids fit into an i32"))
    }

    /// Suspends all processes of the server's embedded database.
    pub fn pause_database(&self) -> PausedDatabase {
        let file = self.folder.join("postgres/postmaster.pid");
        let file = std::fs::read_to_string(file).expect("the embedded database is running");
        let pid = file.lines().next().and_then(|line| line.parse().ok());
        let postmaster = Pid::from_raw(pid.expect("the file starts with a process id"));
        // A suspended postmaster forks no further children.
        kill(postmaster, Signal::SIGSTOP).expect("the embedded database is running");
        let mut processes = children(postmaster);
        assert!(processes.len() > 1, "PostgreSQL has background processes");
        processes.push(postmaster);
        for process in &processes {
            let _ = kill(*process, Signal::SIGSTOP);
        }
        PausedDatabase(processes)
    }

    /// Kills the process with SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("the process is ours");
    }

    /// Waits until the process has exited.
    pub async fn wait(&mut self) -> ExitStatus {
        let status = with_timeout("the server's exit", self.child.wait()).await;
        status.expect("the process is a child of this one")
    }

    /// Sends SIGTERM, as service managers do.
    pub fn terminate(&self) {
        kill(self.pid(), Signal::SIGTERM).expect("the server is running");
    }
}

/// An embedded database whose processes are suspended.
pub struct PausedDatabase(Vec<Pid>);

impl PausedDatabase {
    pub fn resume(self) {
        for process in self.0 {
            let _ = kill(process, Signal::SIGCONT);
        }
    }
}

fn children(parent: Pid) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").expect("Linux has /proc");
    let processes = processes.flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in parentheses is followed by the state and the parent's id.
        let (_, fields) = stat.rsplit_once(')')?;
        let ppid: i32 = fields.split_whitespace().nth(1)?.parse().ok()?;
        (ppid == parent.as_raw()).then_some(Pid::from_raw(pid))
    });
    processes.collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("end of the server's log:\n{}", tail.join("\n"));
        }
    }
}

/// Reads the server's origin from its greeting. A task reads the remaining output, so that the
/// server never blocks on a full pipe.
async fn read_origin(stdout: tokio::process::ChildStdout) -> String {
    let mut lines = BufReader::new(stdout).lines();
    loop {
        let line = lines.next_line().await.expect("the greeting is UTF-8");
        let line = line.expect("the server failed to start; see its log");
        if let Some((_, url)) = line.split_once("Base URL") {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            let origin = url.trim().strip_suffix("/v1");
            return origin.expect("the base URL ends in /v1").to_owned();
        }
    }
}
