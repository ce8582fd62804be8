//! A server as a process of its own, which tests may stop or kill.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::cluster::{Db, cluster};
use crate::{process, soon};

/// The models that tests talk to.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/script.yaml");

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    /// `http://127.0.0.1:port`
    pub origin: String,
    /// Its data folder.
    pub folder: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Starts a server on this database, with settings besides the usual ones.
    pub async fn start(db: &Db, settings: &[(&str, &str)]) -> Self {
        Self::start_at(&db.url, settings).await
    }

    /// Starts a server on the database of this URL; on one of its own if the URL is empty.
    pub async fn start_at(database_url: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_in(&cluster().folder(), database_url, settings).await
    }

    /// Starts a server as above, with this data folder.
    pub async fn start_in(folder: &Path, database_url: &str, settings: &[(&str, &str)]) -> Self {
        std::fs::create_dir_all(folder).expect("the data folder can be made");
        let log = folder.join("log");
        let output = File::create(&log).expect("the log can be made");
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
        let mut child = command.spawn().expect("the server can be started");
        let stdout = child.stdout.take().expect("it was asked for above");
        let mut server = Self {
            child,
            origin: String::new(),
            folder: folder.to_owned(),
            log,
        };
        server.origin = soon("the server's greeting", origin(stdout)).await;
        server
    }

    /// A client of it, with a key that is good as long as there are no keys.
    pub fn client(&self) -> Client {
        self.client_with_key("any-key")
    }

    /// A client of it with this key.
    pub fn client_with_key(&self, key: &str) -> Client {
        Client::new(&self.origin, key)
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        let pid = self.child.id().expect("it was not waited for yet");
        Pid::from_raw(i32::try_from(pid).expect("process ids are small"))
    }

    /// Stops all processes of the server's own database in their tracks.
    pub fn pause_database(&self) -> PausedDatabase {
        let file = self.folder.join("postgres/postmaster.pid");
        let file = std::fs::read_to_string(file).expect("the database runs");
        let pid = file.lines().next().and_then(|line| line.parse().ok());
        let postmaster = Pid::from_raw(pid.expect("the file begins with a process id"));
        // Stopped, it has no more children.
        kill(postmaster, Signal::SIGSTOP).expect("the database runs");
        let mut processes = children(postmaster);
        assert!(processes.len() > 1, "a database has processes");
        processes.push(postmaster);
        for process in &processes {
            let _ = kill(*process, Signal::SIGSTOP);
        }
        PausedDatabase(processes)
    }

    /// Ends the process at once, as the kernel does when memory runs out.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Waits until the process has ended by itself, or by somebody else's hand.
    pub async fn wait(&mut self) -> ExitStatus {
        let ended = soon("the end of the server", self.child.wait()).await;
        ended.expect("it can be waited for")
    }

    /// Asks the process to stop, as Ctrl-C and service managers do.
    pub fn terminate(&self) {
        kill(self.pid(), Signal::SIGTERM).expect("it runs");
    }
}

/// A database that does nothing.
pub struct PausedDatabase(Vec<Pid>);

impl PausedDatabase {
    /// Lets it go on.
    pub fn resume(self) {
        for process in self.0 {
            let _ = kill(process, Signal::SIGCONT);
        }
    }
}

fn children(parent: Pid) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").expect("this is Linux");
    let processes = processes.flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // After the name, which is in parentheses: the state, then the parent.
        let (_, fields) = stat.rsplit_once(')')?;
        let its_parent: i32 = fields.split_whitespace().nth(1)?.parse().ok()?;
        (its_parent == parent.as_raw()).then_some(Pid::from_raw(pid))
    });
    processes.collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("the last the server said:\n{}", last.join("\n"));
        }
    }
}

/// Where the server says it is. Its output is read to the end, so that it never waits for us.
async fn origin(stdout: tokio::process::ChildStdout) -> String {
    let mut lines = BufReader::new(stdout).lines();
    loop {
        let line = lines.next_line().await.expect("its output is text");
        let line = line.expect("the server tells its address before it ends; see its log");
        if let Some((_, url)) = line.split_once("Base URL") {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            let origin = url.trim().strip_suffix("/v1");
            return origin.expect("the base URL ends in /v1").to_owned();
        }
    }
}
