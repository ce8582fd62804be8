//! The program as a user starts it: with its own data folder and embedded database.

use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::signal::killpg;
use nix::unistd::Pid;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_assistd");

/// A command for the program that inherits no setting from this process's environment, except
/// where PostgreSQL is installed.
pub(crate) fn assistd(data_dir: &Path) -> Command {
    assistd_at(Path::new(PROGRAM), data_dir)
}

/// As [`assistd`], for a copy of the program.
pub(crate) fn assistd_at(program: &Path, data_dir: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let prefixes = ["ASSISTD_", "OPENAI_", "OTEL_", "AWS_", "PG", "DATABASE_URL"];
        let is_kept = name == "ASSISTD_POSTGRES_BIN";
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) && !is_kept {
            command.env_remove(&*name);
        }
    }
    command
        .env("ASSISTD_DATA_DIR", data_dir)
        .env("ASSISTD_LISTEN", "127.0.0.1:0")
        .env("ASSISTD_SANDBOX", "off")
        .stdin(Stdio::null());
    command
}

pub(crate) fn output(command: &mut Command) -> Output {
    command.output().expect("Cargo has built the program")
}

/// Standard output followed by standard error.
pub(crate) fn text(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// A server that has printed its greeting; killed when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) greeting: String,
}

impl ServerProcess {
    /// Starts the command and waits until the whole greeting is printed.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("Cargo has built the program");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut greeting = String::new();
        for line in BufReader::new(stdout).lines() {
            let line = line.expect("the greeting is UTF-8");
            greeting += &line;
            greeting += "\n";
            if line.starts_with("Ctrl-C stops it") {
                return Self { child, greeting };
            }
        }
        let status = child.wait();
        panic!("the server exited before it was ready: {status:?}\n{greeting}");
    }

    /// The base URL of the greeting, without `/v1`.
    pub(crate) fn origin(&self) -> &str {
        let (_, rest) = self
            .greeting
            .split_once("Base URL")
            .expect("the greeting has the base URL");
        let url = rest.lines().next().unwrap_or_default().trim();
        url.strip_suffix("/v1").expect("the base URL ends in /v1")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("Linux process ids fit into an i32");
        kill(Pid::from_raw(pid), signal).expect("the process has not been reaped");
    }

    /// Signals the whole process group, as a terminal does; the server must lead its group.
    pub(crate) fn signal_group(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("Linux process ids fit into an i32");
        killpg(Pid::from_raw(pid), signal).expect("the process has not been reaped");
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child
            .wait()
            .expect("the process is a child of this one")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Both fail harmlessly if the process has been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
