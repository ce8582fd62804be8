//! A worker without a testbed, for tests of its start, its parent and TCP.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::testbed::python;

const BINARY: &str = env!("CARGO_BIN_EXE_assistd-sandbox");

/// A worker process.
pub struct LocalWorker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl LocalWorker {
    /// Runs `assistd-sandbox serve` as this user, with a minimal environment.
    pub fn start(args: &[&str]) -> LocalWorker {
        Self::start_with(args, &[])
    }

    /// The same with additional environment variables.
    pub fn start_with(args: &[&str], variables: &[(&str, &str)]) -> LocalWorker {
        let mut command = Command::new(BINARY);
        command.arg("serve").args(args);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let mut child = command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("ASSISTD_SANDBOX_PYTHON", python())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("the folder was just created"))
            .spawn()
            .expect("the program starts");
        LocalWorker {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().expect("stdout is piped")),
            child,
            log,
            _folder: folder,
        }
    }

    /// The first line of its standard output.
    pub fn first_line(&mut self) -> String {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the worker writes UTF-8");
        line
    }

    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let line = self.first_line();
        assert_eq!(line, "ready\n", "{}", self.log());
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).expect("the log was created before the start");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits for its exit status; `None` if a signal ended it.
    pub fn wait(&mut self) -> Option<i32> {
        self.child
            .wait()
            .expect("the worker is a child process")
            .code()
    }

    /// Closes its standard input, as happens when its parent ends.
    pub fn close_input(&mut self) {
        self.input = None;
    }
}

impl Drop for LocalWorker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
