//! A sandbox worker that this server starts as a child process and restarts when it ends.

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

/// How long a worker may take to become ready. Loading Python and its packages takes seconds, and
/// longer on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Back-off before a restart, by the number of consecutive failures.
const RESTART_DELAYS: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// A worker that ran for longer than this resets the number of consecutive failures.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// How long a worker may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub struct WorkerProgram {
    pub path: PathBuf,
    /// The complete environment of the worker; nothing is inherited.
    pub environment: Vec<(String, String)>,
    pub socket: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Ready,
    /// It does not start, for this reason. Restarts continue.
    Failed(String),
}

#[derive(Debug)]
pub struct EmbeddedWorker {
    address: Address,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl EmbeddedWorker {
    pub fn start(program: WorkerProgram) -> Self {
        let (sender, state) = watch::channel(State::Starting);
        let stop = CancellationToken::new();
        let address = Address::Unix(program.socket.clone());
        let supervisor = tokio::spawn(supervise(program, sender, stop.clone()));
        Self {
            address,
            state,
            stop,
            supervisor,
        }
    }

    pub(super) fn address(&self) -> Address {
        self.address.clone()
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    pub async fn stop(self) {
        self.stop.cancel();
        if self.supervisor.await.is_err() {
            tracing::error!("the supervisor task of the sandbox worker has panicked");
        }
    }
}

async fn supervise(program: WorkerProgram, state: watch::Sender<State>, stop: CancellationToken) {
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let reason = run_once(&program, &state, &stop).await;
        if stop.is_cancelled() {
            return;
        }
        failures = if started.elapsed() > HEALTHY_AFTER {
            1
        } else {
            failures + 1
        };
        let pause = RESTART_DELAYS[(failures - 1).min(RESTART_DELAYS.len() - 1)];
        tracing::warn!(
            error.cause = %reason,
            "the sandbox worker has ended: {reason}; restarting in {} s",
            pause.as_secs_f32()
        );
        // While the state is `Starting`, runs wait for the worker; when it is `Failed`, they fail.
        state.send_replace(match failures {
            1 => State::Starting,
            _ => State::Failed(reason),
        });
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Starts the worker and waits for its end. Returns the reason.
async fn run_once(
    program: &WorkerProgram,
    state: &watch::Sender<State>,
    stop: &CancellationToken,
) -> String {
    let mut child = match spawn(program) {
        Ok(child) => child,
        Err(error) => return format!("{} cannot be started: {error}", program.path.display()),
    };
    // The worker ends when its standard input closes. It is taken out because `Child::wait` would
    // close it.
    let stdin = child.stdin.take();
    let ready = tokio::select! {
        ready = wait_until_ready(&mut child) => ready,
        () = stop.cancelled() => Ok(()),
    };
    match ready {
        Ok(()) if !stop.is_cancelled() => {
            tracing::info!("the sandbox worker is ready");
            state.send_replace(State::Ready);
        }
        Ok(()) => {}
        Err(reason) => {
            drop(stdin);
            terminate(child).await;
            return reason;
        }
    }
    tokio::select! {
        status = child.wait() => match status {
            Ok(status) => format!("its worker ended with {status}; the log says why"),
            Err(error) => error.to_string(),
        },
        () = stop.cancelled() => {
            drop(stdin);
            terminate(child).await;
            String::new()
        }
    }
}

fn spawn(program: &WorkerProgram) -> std::io::Result<Child> {
    if let Some(folder) = program.socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // A killed worker leaves its socket behind.
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
        // A terminal sends SIGINT to the whole process group, but only this process stops the
        // worker.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Waits for the line "ready". The error is the reason why the worker cannot serve.
async fn wait_until_ready(child: &mut Child) -> Result<(), String> {
    let Some(stdout) = child.stdout.take() else {
        return Err("its output cannot be read".into());
    };
    let mut line = String::new();
    // The worker writes one line; another program might write more.
    let mut lines = BufReader::new(stdout.take(4096));
    match timeout(START_TIMEOUT, lines.read_line(&mut line)).await {
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

async fn terminate(mut child: Child) {
    if timeout(STOP_TIMEOUT, child.wait()).await.is_err()
        && let Err(error) = child.kill().await
    {
        tracing::warn!(error.cause = %error, "could not kill the sandbox worker, it may still be running: {error}");
    }
}

impl WorkerProgram {
    /// The path of `assistd-sandbox` in the folder of `executable`, if it exists there.
    pub fn beside(executable: &Path) -> Option<PathBuf> {
        let path = executable.with_file_name("assistd-sandbox");
        path.is_file().then_some(path)
    }
}
