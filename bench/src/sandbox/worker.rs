//! A sandbox worker process.

use super::Cell;
use super::CellOutput;
use super::connection::Connection;
use crate::BenchError;
use crate::process;
use crate::process::ChildProcess;
use nix::unistd::Pid;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio::time::sleep;

/// More sessions than any step opens at once.
const SESSIONS: usize = 64;

/// Time limit for a worker's start, which warms its interpreter up.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The address of a worker. Cheap to clone.
#[derive(Clone)]
pub(super) struct WorkerAddress {
    socket: Arc<Path>,
    opened: Arc<AtomicU64>,
}

impl WorkerAddress {
    /// Opens a new session on a new connection.
    pub(super) async fn open(&self) -> Result<Connection, BenchError> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let mut connection = Connection::connect(&self.socket).await?;
        connection.open_session(format!("bench_{number}")).await?;
        Ok(connection)
    }
}

pub(super) struct Worker {
    /// Time from the process's start to its first greeting.
    pub(super) start: Duration,
    pub(super) address: WorkerAddress,
    process: ChildProcess,
    // Dropped after the process, which writes to it until it exits.
    _folder: TempDir,
}

impl Worker {
    /// Starts a worker with this many pre-forked sessions, or its default.
    pub(super) async fn start(program: &Path, spares: Option<u32>) -> Result<Self, BenchError> {
        let folder = TempDir::with_prefix("assistd-bench-")?;
        let socket = folder.path().join("worker.sock");
        let log = folder.path().join("log");
        let file = File::create(&log)?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .arg("--die-with-parent")
            .args(["--sessions", &SESSIONS.to_string()])
            .args(spares.map(|number| format!("--spares={number}")))
            // The worker exits when this is closed, so it stays open until the drop.
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file);
        let begun = Instant::now();
        let mut process = ChildProcess::start(&mut command)?;
        while Connection::connect(&socket).await.is_err() {
            let why = match process.ended() {
                Some(status) => format!("it ended: {status}"),
                None if begun.elapsed() > READY_WITHIN => "it does not listen".to_owned(),
                None => {
                    sleep(Duration::from_millis(2)).await;
                    continue;
                }
            };
            return Err(BenchError::Start {
                name: "assistd-sandbox",
                why,
                tail: fs::read_to_string(log).unwrap_or_default(),
            });
        }
        Ok(Self {
            start: begun.elapsed(),
            address: WorkerAddress {
                socket: socket.into(),
                opened: Arc::default(),
            },
            process,
            _folder: folder,
        })
    }

    /// Executes a cell in a new session and closes it; the milliseconds from connecting to the end of
    /// the cell.
    pub(super) async fn first_cell(&self, cell: &Cell) -> Result<f64, BenchError> {
        let begun = Instant::now();
        let mut session = self.address.open().await?;
        let shown: CellOutput = session.run(cell).await?;
        let elapsed = begun.elapsed();
        shown.check(cell)?;
        session.close().await?;
        Ok(elapsed.as_secs_f64() * 1e3)
    }

    /// The worker's processes, including its sessions.
    pub(super) fn processes(&self) -> Vec<Pid> {
        process::tree(self.process.pid())
    }
}
