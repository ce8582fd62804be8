//! How a worker ends, and what is left of it then: nothing.

use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::client::Client;
use crate::client::Session;
use crate::local_worker::LocalWorker;
use crate::processes::Process;
use crate::processes::call_itself;
use crate::processes::eventually;
use crate::processes::named;
use crate::processes::tree;
use crate::testbed::Stage;
use crate::testbed::Worker;

/// A session with processes that do not want to end.
fn stubborn_session(worker: &Worker) -> Session {
    let mut session = worker.session();
    session
        .run(
            "
import signal, subprocess
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
for _ in range(3):
    subprocess.Popen('trap \"\" TERM HUP INT; while :; do sleep 1000; done', shell=True, start_new_session=True)
",
        )
        .ok();
    session
}

fn mounts(stage: &Stage) -> usize {
    let table = format!("/proc/{}/mountinfo", stage.sibling());
    let table = std::fs::read_to_string(table).expect("the sibling lives");
    table.lines().count()
}

fn nothing_outlives_a_killed_worker(stage: &Stage) {
    let mounted = mounts(stage);
    let worker = stage.start(&[]);
    let mut session = stubborn_session(&worker);
    session.start("print('looping', flush=True)\nwhile True: pass");
    session.read_until("looping");
    let all: Vec<Process> = tree(worker.pid());
    assert!(
        all.len() >= 8,
        "supervisor, zygote, init, Python, shells: {all:?}"
    );
    worker.signal(Signal::SIGKILL);
    eventually("all its processes are gone", || {
        !all.iter().any(Process::lives)
    });
    assert_eq!(stage.wait_for(worker), -9);
    assert_eq!(mounts(stage), mounted);
}

fn a_worker_ends_cleanly_when_told(stage: &Stage) {
    let mounted = mounts(stage);
    let worker = stage.start(&[]);
    let mut session = stubborn_session(&worker);
    session.start("print('looping', flush=True)\nwhile True: pass");
    session.read_until("looping");
    let all: Vec<Process> = tree(worker.pid());
    let socket = worker.socket().to_owned();
    worker.signal(Signal::SIGTERM);
    assert_eq!(stage.wait_for(worker), 0);
    eventually("all its processes are gone", || {
        !all.iter().any(Process::lives)
    });
    assert!(!socket.exists(), "its socket is still there");
    assert_eq!(mounts(stage), mounted);
}

/// Whatever kills the process that sessions are forked from, the worker gets over it.
fn a_lost_zygote_is_replaced(stage: &Stage) {
    let worker = stage.start(&[]);
    worker.session().run("1").ok();
    let children: Vec<Process> = tree(worker.pid()).split_off(1);
    for child in &children {
        let _ = nix::sys::signal::kill(Pid::from_raw(child.pid), Signal::SIGKILL);
    }
    eventually("a new session works", || {
        let mut client = worker.connect();
        let name = crate::testbed::unique("after");
        let opened = client.open(&name, true);
        matches!(opened, sandbox_protocol::Response::Opened { .. })
            && client.run("print(1)").text() == "1\n"
    });
}

/// One session's init and Python are killed from outside, as the kernel does under pressure.
fn a_session_killed_from_outside_is_reported(stage: &Stage) {
    let worker = stage.worker();
    let mut session = worker.session();
    let mut bystander = worker.session();
    session.run(&call_itself("doomed")).ok();
    session.start("print('looping', flush=True)\nwhile True: pass");
    session.read_until("looping");
    let doomed = named(worker.pid(), "doomed");
    nix::sys::signal::kill(Pid::from_raw(doomed.pid), Signal::SIGKILL).expect("it lives");
    let cell = session.finish();
    assert_eq!(cell.executed.status, sandbox_protocol::ExecStatus::Died);
    assert!(cell.executed.session_lost);
    assert_eq!(bystander.run("print(1)").ok(), "1\n");
}

for_both!(
    nothing_outlives_a_killed_worker,
    a_worker_ends_cleanly_when_told,
    a_lost_zygote_is_replaced,
    a_session_killed_from_outside_is_reported,
);

/// The kernel takes the thread that started a process for its parent, and servers start workers
/// from threads that end. What ends with the whole parent is the other end of standard input.
#[test]
fn a_worker_goes_with_its_parent_if_asked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("sandbox.sock");
    let listen = format!("unix:{}", socket.display());
    let start = move || {
        let mut worker = LocalWorker::start(&["--listen", &listen, "--die-with-parent"]);
        worker.wait_until_ready();
        worker
    };
    let mut worker = std::thread::spawn(start).join().expect("it starts");
    let stream = UnixStream::connect(&socket).expect("it listens");
    let client = Client::greet(stream, None).expect("it says hello");
    let mut session = Session::open(client, "thread_1");
    assert_eq!(session.run("print(1)").ok(), "1\n");
    let all = tree(worker.pid()).split_off(1);
    assert!(all.len() > 3, "zygote and sessions: {all:?}");
    worker.close_input();
    worker.wait();
    eventually("it is gone with all its processes", || {
        !all.iter().any(Process::lives)
    });
}

/// A terminal and a service manager signal the worker together with its parent, which may still run
/// code before it stops.
#[test]
fn a_worker_leaves_signals_to_the_parent_that_it_goes_with() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("sandbox.sock");
    let listen = format!("unix:{}", socket.display());
    let mut worker = LocalWorker::start(&["--listen", &listen, "--die-with-parent"]);
    worker.wait_until_ready();
    let stream = UnixStream::connect(&socket).expect("it listens");
    let client = Client::greet(stream, None).expect("it says hello");
    let mut session = Session::open(client, "thread_1");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
        nix::sys::signal::kill(Pid::from_raw(worker.pid()), signal).expect("it lives");
        assert_eq!(session.run("print(1)").ok(), "1\n");
    }
    worker.close_input();
    assert_eq!(worker.wait(), Some(0));
    assert!(!worker.log().contains("WARN"), "{}", worker.log());
}
