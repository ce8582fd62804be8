//! How a worker ends. No process, mount or socket is left.

use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::client::Client;
use crate::client::Session;
use crate::local_worker::LocalWorker;
use crate::processes::Process;
use crate::processes::eventually;
use crate::processes::named;
use crate::processes::set_process_name;
use crate::processes::tree;
use crate::testbed::Testbed;
use crate::testbed::Worker;

/// A session whose programs ignore signals.
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

fn mounts(testbed: &Testbed) -> usize {
    let table = format!("/proc/{}/mountinfo", testbed.sibling());
    let table = std::fs::read_to_string(table).expect("the sibling process is alive");
    table.lines().count()
}

fn nothing_outlives_a_killed_worker(testbed: &Testbed) {
    let mounted = mounts(testbed);
    let worker = testbed.start(&[]);
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
        !all.iter().any(Process::is_alive)
    });
    assert_eq!(testbed.wait_for(worker), -9);
    assert_eq!(mounts(testbed), mounted);
}

fn a_worker_ends_cleanly_when_told(testbed: &Testbed) {
    let mounted = mounts(testbed);
    let worker = testbed.start(&[]);
    let mut session = stubborn_session(&worker);
    session.start("print('looping', flush=True)\nwhile True: pass");
    session.read_until("looping");
    let all: Vec<Process> = tree(worker.pid());
    let socket = worker.socket().to_owned();
    worker.signal(Signal::SIGTERM);
    assert_eq!(testbed.wait_for(worker), 0);
    eventually("all its processes are gone", || {
        !all.iter().any(Process::is_alive)
    });
    assert!(!socket.exists(), "its socket is still there");
    assert_eq!(mounts(testbed), mounted);
}

/// The worker replaces a zygote that was killed.
fn a_lost_zygote_is_replaced(testbed: &Testbed) {
    let worker = testbed.start(&[]);
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

/// The session's Python process is killed from outside, as the OOM killer does.
fn a_session_killed_from_outside_is_reported(testbed: &Testbed) {
    let worker = testbed.worker();
    let mut session = worker.session();
    let mut bystander = worker.session();
    session.run(&set_process_name("doomed")).ok();
    session.start("print('looping', flush=True)\nwhile True: pass");
    session.read_until("looping");
    let doomed = named(worker.pid(), "doomed");
    nix::sys::signal::kill(Pid::from_raw(doomed.pid), Signal::SIGKILL)
        .expect("the process is alive");
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

/// The parent-death signal would not do: it is sent when the *thread* that started the worker ends,
/// and servers start workers from short-lived threads. The worker watches its standard input
/// instead.
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
    let mut worker = std::thread::spawn(start).join().expect("the worker starts");
    let stream = UnixStream::connect(&socket).expect("the worker listens");
    let client = Client::greet(stream, None).expect("the worker accepts the hello");
    let mut session = Session::open(client, "thread_1");
    assert_eq!(session.run("print(1)").ok(), "1\n");
    let all = tree(worker.pid()).split_off(1);
    assert!(all.len() > 3, "zygote and sessions: {all:?}");
    worker.close_input();
    worker.wait();
    eventually("it is gone with all its processes", || {
        !all.iter().any(Process::is_alive)
    });
}

/// A terminal and a service manager signal the worker together with its parent, which may still
/// need the worker before it stops.
#[test]
fn a_worker_leaves_signals_to_the_parent_that_it_goes_with() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("sandbox.sock");
    let listen = format!("unix:{}", socket.display());
    let mut worker = LocalWorker::start(&["--listen", &listen, "--die-with-parent"]);
    worker.wait_until_ready();
    let stream = UnixStream::connect(&socket).expect("the worker listens");
    let client = Client::greet(stream, None).expect("the worker accepts the hello");
    let mut session = Session::open(client, "thread_1");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
        nix::sys::signal::kill(Pid::from_raw(worker.pid()), signal).expect("the worker is alive");
        assert_eq!(session.run("print(1)").ok(), "1\n");
    }
    worker.close_input();
    assert_eq!(worker.wait(), Some(0));
    assert!(!worker.log().contains("WARN"), "{}", worker.log());
}
