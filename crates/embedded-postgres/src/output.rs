//! What PostgreSQL's programs print, and what it means for the operator.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::AsyncBufReadExt as _;
use tokio::io::BufReader;
use tokio::process::ChildStderr;
use tokio::task::JoinHandle;

const KEPT_LINES: usize = 20;

/// The last lines that a server wrote to standard error before it redirected its output to its log.
pub(crate) struct Output(JoinHandle<VecDeque<String>>);

impl Output {
    pub(crate) fn read(stderr: ChildStderr) -> Self {
        Self(tokio::spawn(async move {
            let mut last = VecDeque::new();
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::debug!("postgres: {line}");
                if last.len() == KEPT_LINES {
                    last.pop_front();
                }
                last.push_back(line);
            }
            last
        }))
    }

    pub(crate) async fn collect(self) -> String {
        // Bounded, as an orphaned child of the server could keep the pipe open.
        let lines = tokio::time::timeout(Duration::from_secs(1), self.0).await;
        let lines = lines.ok().and_then(Result::ok).unwrap_or_default();
        lines.into_iter().map(|line| line + "\n").collect()
    }
}

/// Adds advice about errors that PostgreSQL itself does not explain.
pub(crate) fn with_advice(mut output: String) -> String {
    if output.contains("could not look up effective user ID") {
        output += "The user of this process is not in the system's list of users: add it to \
                   /etc/passwd, or start assistd as another one.\n";
    }
    output
}

pub(crate) fn is_disk_full(output: &str) -> bool {
    output.contains("No space left on device") || output.contains("Disk quota exceeded")
}

/// Whether a server refused to start because another one, or its children, has not ended yet.
pub(crate) fn has_predecessor(output: &str) -> bool {
    output.contains("postmaster.pid\" already exists")
        || output.contains("pre-existing shared memory block")
}
