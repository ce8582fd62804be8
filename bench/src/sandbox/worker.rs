//! A sandbox worker, started and stopped by the benchmark.

use super::Cell;
use super::Shown;
use super::dialogue::Dialogue;
use crate::BenchError;
use crate::process;
use crate::process::Running;
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

/// More sessions than any step has at a time.
const SESSIONS: usize = 64;

/// How long a worker may take to warm its interpreter up.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Where a worker listens. Cheap to clone.
#[derive(Clone)]
pub(super) struct Door {
    socket: Arc<Path>,
    opened: Arc<AtomicU64>,
}

impl Door {
    /// Takes a new session over a connection of its own.
    pub(super) async fn open(&self) -> Result<Dialogue, BenchError> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let mut dialogue = Dialogue::begin(&self.socket).await?;
        dialogue.open(format!("bench_{number}")).await?;
        Ok(dialogue)
    }
}

/// A running worker, with the sessions it has.
pub(super) struct Worker {
    /// From starting it to its first greeting.
    pub(super) start: Duration,
    pub(super) door: Door,
    process: Running,
    // Dropped after the process, which writes to it to the end.
    _folder: TempDir,
}

impl Worker {
    /// Starts a worker; it keeps `spares` sessions warm, or its own default.
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
            // Kept open until the worker is dropped: it ends when this closes.
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file);
        let begun = Instant::now();
        let mut process = Running::start(&mut command)?;
        while Dialogue::begin(&socket).await.is_err() {
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
            door: Door {
                socket: socket.into(),
                opened: Arc::default(),
            },
            process,
            _folder: folder,
        })
    }

    /// Runs a cell in a new session, and ends that; gives the milliseconds from before the
    /// connection to the end of the cell.
    pub(super) async fn first_cell(&self, cell: &Cell) -> Result<f64, BenchError> {
        let begun = Instant::now();
        let mut session = self.door.open().await?;
        let shown: Shown = session.run(cell).await?;
        let elapsed = begun.elapsed();
        shown.check(cell)?;
        session.close().await?;
        Ok(elapsed.as_secs_f64() * 1e3)
    }

    /// The worker's processes, those of its sessions included.
    pub(super) fn processes(&self) -> Vec<Pid> {
        process::tree(self.process.pid())
    }
}
