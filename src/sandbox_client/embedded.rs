//! A worker that this server starts as a child process, watches, and starts again.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::sandbox_client::address::Address;

/// How long a worker may take to listen. Loading Python and its packages takes seconds, on a busy
/// machine many.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Pauses before a worker that ended is started again, from one failure in a row to the next.
const RESTART_AFTER: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// A worker that lived this long was not ended by what is wrong with the machine.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// How long a worker may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program `assistd-sandbox`.
    pub path: PathBuf,
    /// Its settings: nothing else of this process's environment reaches it.
    pub environment: Vec<(String, String)>,
    /// Where it is to listen.
    pub socket: PathBuf,
}

/// Whether the worker can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Not yet.
    Starting,
    /// It listens.
    Ready,
    /// It could not be started, and why.
    Failed(String),
}

/// A worker that is kept alive.
#[derive(Debug)]
pub struct Embedded {
    address: Address,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    keeper: JoinHandle<()>,
}

impl Embedded {
    /// Starts the worker, in the background.
    pub fn start(program: Program) -> Self {
        let (sender, state) = watch::channel(State::Starting);
        let stop = CancellationToken::new();
        let address = Address::Unix(program.socket.clone());
        let keeper = tokio::spawn(keep(program, sender, stop.clone()));
        Self {
            address,
            state,
            stop,
            keeper,
        }
    }

    pub(super) fn address(&self) -> Address {
        self.address.clone()
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Stops the worker and all its sessions.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.keeper.await.is_err() {
            tracing::error!("the task that keeps the sandbox worker has panicked");
        }
    }
}

async fn keep(program: Program, state: watch::Sender<State>, stop: CancellationToken) {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let ended = live(&program, &state, &stop).await;
        if stop.is_cancelled() {
            return;
        }
        failures = match began.elapsed() > HEALTHY_AFTER {
            true => 1,
            false => failures + 1,
        };
        tracing::warn!(error.cause = %ended, "the sandbox worker has ended: {ended}");
        // Runs wait for a worker that comes back soon, and fail at once otherwise.
        state.send_replace(match failures {
            1 => State::Starting,
            _ => State::Failed(ended),
        });
        let pause = RESTART_AFTER[(failures - 1).min(RESTART_AFTER.len() - 1)];
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One life of a worker; how it ended.
async fn live(program: &Program, state: &watch::Sender<State>, stop: &CancellationToken) -> String {
    let mut child = match spawn(program) {
        Ok(child) => child,
        Err(error) => return format!("{} cannot be started: {error}", program.path.display()),
    };
    // Its end is the sign that this process has gone. Left with the child, waiting would close it.
    let lifeline = child.stdin.take();
    let ready = tokio::select! {
        ready = until_ready(&mut child) => ready,
        () = stop.cancelled() => Ok(()),
    };
    match ready {
        Ok(()) if !stop.is_cancelled() => {
            tracing::info!("the sandbox worker is ready");
            state.send_replace(State::Ready);
        }
        Ok(()) => {}
        Err(reason) => {
            drop(lifeline);
            end(child).await;
            return reason;
        }
    }
    tokio::select! {
        status = child.wait() => match status {
            Ok(status) => format!("its worker ended with {status}; the log says why"),
            Err(error) => error.to_string(),
        },
        () = stop.cancelled() => {
            drop(lifeline);
            end(child).await;
            String::new()
        }
    }
}

fn spawn(program: &Program) -> std::io::Result<Child> {
    if let Some(folder) = program.socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // What a killed worker left.
    match std::fs::remove_file(&program.socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Command::new(&program.path)
        .arg("serve")
        .arg("--listen")
        .arg(Address::Unix(program.socket.clone()).to_string())
        .arg("--die-with-parent")
        .env_clear()
        .envs(program.environment.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A terminal sends Ctrl-C to the whole group; this process ends its worker itself.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Waits for the line that says that the worker listens, or why it cannot.
async fn until_ready(child: &mut Child) -> Result<(), String> {
    let Some(stdout) = child.stdout.take() else {
        return Err("its output cannot be read".into());
    };
    let mut line = String::new();
    // A line is all that is to come; a program that is not ours may say more.
    let mut lines = BufReader::new(stdout.take(4096));
    match timeout(READY_WITHIN, lines.read_line(&mut line)).await {
        Err(_) => return Err("it takes too long to start".into()),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(_)) => {}
    }
    match line.trim() {
        "ready" => Ok(()),
        "" => Err("it ended before it was ready; the lines above this in the log say why".into()),
        line => Err(line.strip_prefix("error: ").unwrap_or(line).to_owned()),
    }
}

async fn end(mut child: Child) {
    if timeout(STOP_WITHIN, child.wait()).await.is_err()
        && let Err(error) = child.kill().await
    {
        tracing::warn!(error.cause = %error, "the sandbox worker cannot be stopped: {error}");
    }
}

impl Program {
    /// The program beside this one, if it is there.
    pub fn beside(executable: &Path) -> Option<PathBuf> {
        let path = executable.with_file_name("assistd-sandbox");
        path.is_file().then_some(path)
    }
}
