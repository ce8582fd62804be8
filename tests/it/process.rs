//! A server process of its own, started as a user would start it.

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

/// The program with a data folder, and with nothing else from this process's environment that it
/// could take for a setting.
pub(crate) fn assistd(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assistd"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let prefixes = ["ASSISTD_", "OPENAI_", "OTEL_", "AWS_", "PG", "DATABASE_URL"];
        let tells_where = name == "ASSISTD_POSTGRES_BIN";
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) && !tells_where {
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

/// Runs a command to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().expect("the program can be started")
}

/// What a command wrote, both streams together, for messages.
pub(crate) fn text(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// A server that has said that it serves. It is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    /// What it said at its start.
    pub(crate) greeting: String,
}

impl Running {
    /// Starts `command` and waits for its greeting.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let stdout = child.stdout.take().expect("it was asked for above");
        let mut greeting = String::new();
        for line in BufReader::new(stdout).lines() {
            let line = line.expect("the greeting is text");
            greeting += &line;
            greeting += "\n";
            if line.starts_with("Ctrl-C stops it") {
                return Self { child, greeting };
            }
        }
        let status = child.wait();
        panic!("the server ended before it served: {status:?}\n{greeting}");
    }

    /// Where it says that it serves, without the `/v1`.
    pub(crate) fn origin(&self) -> &str {
        let (_, rest) = self.greeting.split_once("Base URL").expect("it says where");
        let url = rest.lines().next().unwrap_or_default().trim();
        url.strip_suffix("/v1").expect("the base URL ends in /v1")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process ids are small");
        kill(Pid::from_raw(pid), signal).expect("it has not been waited for");
    }

    /// Sends a signal to its whole process group, as a terminal does; it must lead one.
    pub(crate) fn signal_group(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process ids are small");
        killpg(Pid::from_raw(pid), signal).expect("it has not been waited for");
    }

    /// Waits until it has ended.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it can be waited for")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Does nothing if it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
