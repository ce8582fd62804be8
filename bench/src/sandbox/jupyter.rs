//! Jupyter kernels, which `bench/jupyter.py` starts and talks to.

use super::Cell;
use super::Shown;
use crate::BenchError;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::process::Child;
use tokio::process::ChildStdin;
use tokio::process::ChildStdout;
use tokio::process::Command;
use tokio::time::timeout;

/// The program that does with kernels what is asked for.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/jupyter.py");

/// How long it may take to stop its kernels.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// The script while it runs.
pub(super) struct Jupyter {
    child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    // What Jupyter writes goes nowhere else.
    _folder: TempDir,
}

/// What the script answers.
#[derive(Deserialize)]
struct Answer {
    ms: Vec<f64>,
    #[serde(default)]
    mib: f64,
    #[serde(flatten)]
    shown: Shown,
}

impl Jupyter {
    /// Starts the script with this Python.
    pub(super) async fn start(python: &Path) -> Result<Self, BenchError> {
        let folder = TempDir::with_prefix("assistd-bench-")?;
        let mut child = Command::new(python)
            .arg(SCRIPT)
            .env("JUPYTER_RUNTIME_DIR", folder.path())
            .env("JUPYTER_CONFIG_DIR", folder.path())
            .env("IPYTHONDIR", folder.path())
            .env("MPLCONFIGDIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let asks = child.stdin.take().expect("it is piped");
        let answers = child.stdout.take().expect("it is piped");
        Ok(Self {
            child,
            asks,
            answers: BufReader::new(answers).lines(),
            _folder: folder,
        })
    }

    /// Runs a cell in a new kernel; gives the milliseconds from before its start to the end of the
    /// cell.
    pub(super) async fn first_cell(&mut self, cell: &Cell) -> Result<f64, BenchError> {
        let answer = self.ask(cell, json!({"do": "start"})).await?;
        answer.ms.first().copied().ok_or(BenchError::Nothing)
    }

    /// Runs a cell so often in the kernel that is kept; gives the milliseconds of each.
    pub(super) async fn live_cells(
        &mut self,
        cell: &Cell,
        times: usize,
    ) -> Result<Vec<f64>, BenchError> {
        let answer = self.ask(cell, json!({"do": "live", "times": times}));
        Ok(answer.await?.ms)
    }

    /// Starts so many kernels at once; gives when each had run its cell, in milliseconds, and the
    /// memory of all in MiB.
    pub(super) async fn burst(
        &mut self,
        cell: &Cell,
        times: usize,
    ) -> Result<(Vec<f64>, f64), BenchError> {
        let answer = self.ask(cell, json!({"do": "burst", "times": times}));
        let answer = answer.await?;
        Ok((answer.ms, answer.mib))
    }

    /// Stops the kernels.
    pub(super) async fn end(self) -> Result<(), BenchError> {
        let Self {
            mut child, asks, ..
        } = self;
        drop(asks);
        timeout(STOP_WITHIN, child.wait())
            .await
            .unwrap_or(Err(std::io::ErrorKind::TimedOut.into()))?;
        Ok(())
    }

    async fn ask(&mut self, cell: &Cell, mut request: Value) -> Result<Answer, BenchError> {
        request["code"] = cell.code.into();
        self.asks
            .write_all(format!("{request}\n").as_bytes())
            .await?;
        let line = self.answers.next_line().await?;
        let line = line.ok_or(BenchError::Unexpected("Jupyter's script ended"))?;
        let answer: Answer = serde_json::from_str(&line)
            .map_err(|_| BenchError::Unexpected("Jupyter's script spoke nonsense"))?;
        answer.shown.check(cell)?;
        Ok(answer)
    }
}
