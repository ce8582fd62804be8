//! Test environment of a worker: a private network and mount namespace with stand-ins for what a
//! session must not reach. `testbed.py` is the process that provides it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::client::Client;
use crate::client::Session;

/// Time limit of a worker's start: loading Python's packages takes long on a busy machine.
const START_SECONDS: u32 = 120;

/// A name that is unique in this process.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id())
}

/// The Python executable of the sessions' virtual environment.
pub fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("ASSISTD_SANDBOX_PYTHON") {
        return python.into();
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python3")
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A test environment. All its workers run as the same user.
pub struct Testbed {
    folder: PathBuf,
    /// Ends when its standard input closes, that is, when the tests end.
    process: Child,
    sibling: i32,
    secrets: Vec<String>,
    root: bool,
    shared: OnceLock<Result<Worker, String>>,
    low_limits: OnceLock<Result<Worker, String>>,
    short_time: OnceLock<Result<Worker, String>>,
    short_life: OnceLock<Result<Worker, String>>,
}

/// Low limits for everything except time.
const LOW_LIMITS: &[&str] = &[
    "--sessions=64",
    "--memory-mib=96",
    "--processes=12",
    "--open-files=40",
    "--file-mib=1",
    "--data-mib=3",
    "--data-inodes=64",
    "--tmp-mib=2",
    "--shm-mib=1",
    "--output-kib=8",
    "--traceback-kib=2",
    "--images=2",
    "--image-mib=1",
    "--files=5",
    "--files-mib=2",
];

impl Testbed {
    /// The test environment whose workers run as root; `None` if this user is not root.
    pub fn run_by_root() -> Option<&'static Testbed> {
        static TESTBED: OnceLock<Testbed> = OnceLock::new();
        if !is_root() {
            // Written past the test runner's capture, so that the gap is visible.
            static REPORTED: Once = Once::new();
            REPORTED.call_once(|| {
                let notice = "NOT TESTED as root: this user is not root";
                let _ = writeln!(std::io::stderr(), "{notice}");
            });
            return None;
        }
        Some(TESTBED.get_or_init(|| Testbed::set_up(0)))
    }

    /// The test environment whose workers run as an ordinary user.
    pub fn run_by_user() -> &'static Testbed {
        static TESTBED: OnceLock<Testbed> = OnceLock::new();
        TESTBED.get_or_init(|| {
            let own = nix::unistd::geteuid().as_raw();
            Testbed::set_up(if own == 0 { 10_001 } else { own })
        })
    }

    /// A new environment like `like`, for workers whose sessions share a process count with all
    /// processes of their user. Root can give it users of its own.
    pub fn separate(like: &Testbed) -> Testbed {
        match like.root {
            true => Testbed::set_up(0),
            false if is_root() => Testbed::set_up(10_002),
            false => Testbed::set_up(nix::unistd::geteuid().as_raw()),
        }
    }

    fn set_up(uid: u32) -> Testbed {
        let folder = tempfile::Builder::new()
            .prefix("assistd-sandbox-testbed-")
            // Not in /tmp, which sessions of the container tier may use.
            .tempdir_in("/var/tmp")
            .expect("a temporary folder")
            .keep();
        let mut unshare = Command::new("unshare");
        if !is_root() {
            unshare.args(["--map-current-user", "--keep-caps"]);
        }
        let mut process = unshare
            .args(["--net", "--mount", "--"])
            .arg(python())
            .arg("-I")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed.py"))
            .arg(&folder)
            .arg(uid.to_string())
            .arg(env!("CARGO_BIN_EXE_assistd-sandbox"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux's unshare starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("stdout is piped"))
            .read_line(&mut line)
            .expect("the testbed process writes UTF-8");
        assert_eq!(line, "ready\n", "the testbed could not be set up");
        let mut testbed = Testbed {
            folder,
            process,
            sibling: 0,
            secrets: Vec::new(),
            root: uid == 0,
            shared: OnceLock::new(),
            low_limits: OnceLock::new(),
            short_time: OnceLock::new(),
            short_life: OnceLock::new(),
        };
        let about = testbed.ask(json!({"do": "about"}));
        testbed.sibling = about["sibling"].as_i64().expect("a pid") as i32;
        testbed.secrets =
            serde_json::from_value(about["secrets"].clone()).expect("an array of strings");
        testbed
    }

    fn ask(&self, command: Value) -> Value {
        self.try_ask(command)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends a command to the testbed process. The error is its reason for a failure.
    fn try_ask(&self, command: Value) -> Result<Value, String> {
        let mut stream = UnixStream::connect(self.folder.join("testbed.sock"))
            .expect("the testbed listens until it is dropped");
        writeln!(stream, "{command}").expect("the testbed reads commands");
        let mut answer = String::new();
        BufReader::new(stream)
            .read_line(&mut answer)
            .expect("the testbed answers every command");
        let answer: Value = serde_json::from_str(&answer).expect("answers are JSON");
        match answer["failed"].as_str() {
            None => Ok(answer),
            Some(failed) => Err(failed.to_owned()),
        }
    }

    /// Whether workers and controls run as root.
    pub fn runs_as_root(&self) -> bool {
        self.root
    }

    /// The folder with the stand-ins.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A home folder with a project, in which [`python`]'s environment is mounted, and with a
    /// secret file beside it.
    pub fn home(&self) -> &Path {
        Path::new("/home/somebody")
    }

    /// How often each stand-in was reached so far, by its name.
    pub fn hits(&self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.ask(json!({"do": "hits"}))).expect("counts by name")
    }

    /// A process beside the worker, which no attack may harm.
    pub fn sibling(&self) -> i32 {
        self.sibling
    }

    /// Fails if `text` contains a secret of the testbed.
    pub fn assert_no_secret(&self, text: &str) {
        for secret in &self.secrets {
            assert!(!text.contains(secret.as_str()), "a secret got out: {text}");
        }
    }

    /// Runs Python code unconfined, as the worker's user. Returns its exit status and output.
    pub fn control(&self, code: &str) -> (i64, String) {
        let answer = self.ask(json!({"do": "control", "code": code, "seconds": 120}));
        (
            answer["status"].as_i64().expect("an exit status"),
            answer["text"].as_str().expect("what it wrote").to_owned(),
        )
    }

    /// A shared worker with the default limits, except for the number of sessions.
    pub fn worker(&self) -> &Worker {
        let started = self
            .shared
            .get_or_init(|| self.try_start(&["--sessions=64"]));
        started.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A shared worker with low limits, except for time.
    pub fn low_limits_worker(&self) -> &Worker {
        let started = self.low_limits.get_or_init(|| self.try_start(LOW_LIMITS));
        started.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A shared worker with low limits, time included.
    pub fn short_time_worker(&self) -> &Worker {
        let started = self.short_time.get_or_init(|| {
            let limits = ["--cell-seconds=3", "--grace-seconds=1", "--cpu-seconds=2"];
            self.try_start(&[LOW_LIMITS, &limits].concat())
        });
        started.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A shared worker whose sessions have a short lifetime.
    pub fn short_life_worker(&self) -> &Worker {
        let started = self.short_life.get_or_init(|| {
            let limits = ["--idle-seconds=2", "--life-seconds=6", "--cpu-seconds=2"];
            self.try_start(&limits)
        });
        started.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a worker for one test.
    pub fn start(&self, args: &[&str]) -> Worker {
        self.try_start(args)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_start(&self, args: &[&str]) -> Result<Worker, String> {
        let name = unique("worker");
        let socket = self.folder.join("run").join(format!("{name}.sock"));
        let listen = format!("unix:{}", socket.display());
        let answer = self.try_ask(json!({
            "do": "start", "name": name, "listen": listen, "args": args, "seconds": START_SECONDS,
        }))?;
        Ok(Worker {
            socket,
            pid: answer["pid"].as_i64().expect("a pid") as i32,
            log: answer["log"].as_str().expect("a path").into(),
            ended: false,
        })
    }

    /// Waits for a worker that is stopping. Returns its exit status, or minus the signal number.
    pub fn wait_for(&self, mut worker: Worker) -> i64 {
        worker.ended = true;
        let answer = self.ask(json!({"do": "wait", "pid": worker.pid, "seconds": 60}));
        answer["status"].as_i64().expect("an exit status")
    }

    /// The code above an attack: it defines `TESTBED`, what the attacker knows.
    pub fn attack_preamble(&self, worker: &Worker, inside: bool, name: &str) -> String {
        let knowledge = json!({
            "folder": self.folder, "socket": worker.socket, "worker": worker.pid,
            "sibling": self.sibling, "unique": name, "python": python(),
        });
        let inside = if inside { "True" } else { "False" };
        format!("TESTBED = {knowledge}\nTESTBED['inside'] = {inside}\n")
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// A running worker.
pub struct Worker {
    socket: PathBuf,
    pid: i32,
    log: PathBuf,
    /// Whether its end was awaited; its process id may then belong to another process.
    ended: bool,
}

impl Worker {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn signal(&self, signal: Signal) {
        let _ = nix::sys::signal::kill(Pid::from_raw(self.pid), signal);
    }

    /// The Unix socket on which it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).expect("the testbed has created the log");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Connects without a hello.
    pub fn dial(&self) -> UnixStream {
        UnixStream::connect(&self.socket).expect("the worker listens")
    }

    /// Connects and sends the hello.
    pub fn connect(&self) -> Client {
        Client::greet(self.dial(), None).expect("the worker says hello")
    }

    /// Opens a new session, which ends when it is dropped.
    pub fn session(&self) -> Session {
        Session::open(self.connect(), &unique("session"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::SIGKILL);
        }
    }
}
