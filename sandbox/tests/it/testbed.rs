//! Where workers are attacked: a private network and mount namespace with stand-ins for what a
//! session must not reach. `testbed.py` is the process behind it.

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

/// Starting a zygote imports half of Python's data libraries; a busy machine takes its time.
const START_SECONDS: u32 = 120;

/// Names that no other test of this process uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id())
}

/// The Python whose packages sessions have.
pub fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("ASSISTD_SANDBOX_PYTHON") {
        return python.into();
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python3")
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// One stage, whose workers all run as the same user.
pub struct Stage {
    folder: PathBuf,
    /// It goes when its standard input closes, however the tests end.
    process: Child,
    sibling: i32,
    secrets: Vec<String>,
    root: bool,
    shared: OnceLock<Result<Worker, String>>,
    narrow: OnceLock<Result<Worker, String>>,
    hasty: OnceLock<Result<Worker, String>>,
    brief: OnceLock<Result<Worker, String>>,
}

/// Little of everything but time.
const NARROW: &[&str] = &[
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

impl Stage {
    /// The stage of workers that root runs. Only root can have it.
    pub fn root() -> Option<&'static Stage> {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        if !is_root() {
            // Past the test runner's capture: what was not tested is to be seen.
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                let told = "NOT TESTED as root: this user is not root";
                let _ = writeln!(std::io::stderr(), "{told}");
            });
            return None;
        }
        Some(STAGE.get_or_init(|| Stage::set_up(0)))
    }

    /// The stage of workers that an ordinary user runs: another one if this one is root.
    pub fn ordinary() -> &'static Stage {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        STAGE.get_or_init(|| {
            let own = nix::unistd::geteuid().as_raw();
            Stage::set_up(if own == 0 { 10_001 } else { own })
        })
    }

    /// A stage like these two, for workers whose sessions share the count of processes with
    /// everything of their user: with users of its own, where root can choose them.
    pub fn apart(like: &Stage) -> Stage {
        match like.root {
            true => Stage::set_up(0),
            false if is_root() => Stage::set_up(10_002),
            false => Stage::set_up(nix::unistd::geteuid().as_raw()),
        }
    }

    fn set_up(uid: u32) -> Stage {
        let folder = tempfile::Builder::new()
            .prefix("assistd-sandbox-stage-")
            // Not in /tmp, which the container tier lets a session have.
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
        let mut said = String::new();
        BufReader::new(process.stdout.take().expect("it is piped"))
            .read_line(&mut said)
            .expect("the stage says something");
        assert_eq!(said, "ready\n", "the stage could not be set up");
        let mut stage = Stage {
            folder,
            process,
            sibling: 0,
            secrets: Vec::new(),
            root: uid == 0,
            shared: OnceLock::new(),
            narrow: OnceLock::new(),
            hasty: OnceLock::new(),
            brief: OnceLock::new(),
        };
        let about = stage.ask(json!({"do": "about"}));
        stage.sibling = about["sibling"].as_i64().expect("a pid") as i32;
        stage.secrets = serde_json::from_value(about["secrets"].clone()).expect("texts");
        stage
    }

    fn ask(&self, question: Value) -> Value {
        self.try_ask(question)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Asks the stage. The error is what did not work.
    fn try_ask(&self, question: Value) -> Result<Value, String> {
        let mut stream = UnixStream::connect(self.folder.join("stage.sock"))
            .expect("the stage listens as long as it lives");
        writeln!(stream, "{question}").expect("the stage reads");
        let mut answer = String::new();
        BufReader::new(stream)
            .read_line(&mut answer)
            .expect("the stage answers");
        let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
        match answer["failed"].as_str() {
            None => Ok(answer),
            Some(failed) => Err(failed.to_owned()),
        }
    }

    /// Whether root runs this stage's workers and controls.
    pub fn is_roots(&self) -> bool {
        self.root
    }

    /// Where the stand-ins are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Somebody's home, with a project that has its own way to [`python`]'s environment, and with
    /// a secret beside it.
    pub fn home(&self) -> &Path {
        Path::new("/home/somebody")
    }

    /// How often each stand-in was reached so far.
    pub fn hits(&self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.ask(json!({"do": "hits"}))).expect("counts by name")
    }

    /// The process beside the worker, which must survive everything.
    pub fn sibling(&self) -> i32 {
        self.sibling
    }

    /// Fails if a secret of the stage is in `text`.
    pub fn assert_no_secret(&self, text: &str) {
        for secret in &self.secrets {
            assert!(!text.contains(secret.as_str()), "a secret got out: {text}");
        }
    }

    /// Runs Python beside the worker, as its user, unconfined: its status and what it wrote.
    pub fn control(&self, code: &str) -> (i64, String) {
        let answer = self.ask(json!({"do": "control", "code": code, "seconds": 120}));
        (
            answer["status"].as_i64().expect("an exit status"),
            answer["text"].as_str().expect("what it wrote").to_owned(),
        )
    }

    /// A worker with its default limits on sessions, for all tests that do it no lasting harm.
    pub fn worker(&self) -> &Worker {
        let started = self
            .shared
            .get_or_init(|| self.try_start(&["--sessions=64"]));
        started.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same with little of everything but time: how long a cell takes is the machine's affair.
    pub fn narrow_worker(&self) -> &Worker {
        let started = self.narrow.get_or_init(|| self.try_start(NARROW));
        started.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same with little time, too.
    pub fn hasty_worker(&self) -> &Worker {
        let started = self.hasty.get_or_init(|| {
            let limits = ["--cell-seconds=3", "--grace-seconds=1", "--cpu-seconds=2"];
            self.try_start(&[NARROW, &limits].concat())
        });
        started.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    /// One whose sessions have little time, but for their cells.
    pub fn brief_worker(&self) -> &Worker {
        let started = self.brief.get_or_init(|| {
            let limits = ["--idle-seconds=2", "--life-seconds=6", "--cpu-seconds=2"];
            self.try_start(&limits)
        });
        started.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A worker of one's own.
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

    /// How a worker that was told to end has ended: its status, or minus the signal.
    pub fn wait_for(&self, mut worker: Worker) -> i64 {
        worker.ended = true;
        let answer = self.ask(json!({"do": "wait", "pid": worker.pid, "seconds": 60}));
        answer["status"].as_i64().expect("an exit status")
    }

    /// What stands above an attack's code.
    pub fn scenery(&self, worker: &Worker, inside: bool, name: &str) -> String {
        let scenery = json!({
            "folder": self.folder, "socket": worker.socket, "worker": worker.pid,
            "sibling": self.sibling, "unique": name, "python": python(),
        });
        let inside = if inside { "True" } else { "False" };
        format!("STAGE = {scenery}\nSTAGE['inside'] = {inside}\n")
    }
}

impl Drop for Stage {
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
    /// Whether it was waited for, and its number may be another's by now.
    ended: bool,
}

impl Worker {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = nix::sys::signal::kill(Pid::from_raw(self.pid), signal);
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).expect("the stage made it");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// A connection over which nothing was said yet.
    pub fn dial(&self) -> UnixStream {
        UnixStream::connect(&self.socket).expect("the worker listens")
    }

    /// A connection that has said hello.
    pub fn connect(&self) -> Client {
        Client::greet(self.dial(), None).expect("the worker says hello")
    }

    /// A session of one's own, which ends when it is dropped.
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
