//! Jupyter kernels, driven by `bench/jupyter.py`.

use super::Cell;
use super::CellOutput;
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

/// The script that drives the kernels.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/jupyter.py");

/// Time limit for stopping the kernels.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// The running script.
pub(super) struct Jupyter {
    child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    // Jupyter's files stay in this folder.
    _folder: TempDir,
}

/// A reply of the script.
#[derive(Deserialize)]
struct Answer {
    ms: Vec<f64>,
    #[serde(default)]
    mib: f64,
    #[serde(flatten)]
    shown: CellOutput,
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

    /// Executes a cell in a new kernel; the milliseconds from its start to the end of the cell.
    pub(super) async fn first_cell(&mut self, cell: &Cell) -> Result<f64, BenchError> {
        let answer = self.ask(cell, json!({"do": "start"})).await?;
        answer.ms.first().copied().ok_or(BenchError::Nothing)
    }

    /// Executes a cell repeatedly in one kernel; the milliseconds of each.
    pub(super) async fn live_cells(
        &mut self,
        cell: &Cell,
        times: usize,
    ) -> Result<Vec<f64>, BenchError> {
        let answer = self.ask(cell, json!({"do": "live", "times": times}));
        Ok(answer.await?.ms)
    }

    /// Starts kernels at once; when each had executed its cell, in milliseconds, and the memory of all
    /// in MiB.
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
