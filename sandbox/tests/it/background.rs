//! CPU limit between cells.
//!
//! Every attack runs on a worker that allows one second and on one that allows ten. If a process
//! still runs on the second when it was killed on the first, it was killed because of the limit.

use sandbox_protocol::ExecStatus;
use sandbox_protocol::Notice;
use sandbox_protocol::Response;
use sandbox_protocol::Tier;

use crate::client::Session;
use crate::processes::Process;
use crate::processes::eventually;
use crate::processes::set_process_name;
use crate::processes::tree;
use crate::testbed::Testbed;
use crate::testbed::Worker;

const STRICT: &str = "--background-cpu-seconds=1";

/// Waits until the worker has a process of this name, which a cell has started.
fn started(worker: &Worker, name: &str) -> Process {
    let found = || tree(worker.pid()).into_iter().find(|one| one.name == name);
    eventually("the process has started", || found().is_some());
    found().expect("the process does not end by itself")
}

/// Whether the worker has this session. Asking does not count as a cell.
fn has(worker: &Worker, session: &str) -> bool {
    worker.connect().open(session, false) != Response::Absent
}

/// Opens the session. Returns whether it is new, and its notice.
fn reopened(worker: &Worker, session: &str) -> (bool, Option<Notice>) {
    match worker.connect().open(session, true) {
        Response::Opened { fresh, notice, .. } => (fresh, notice),
        other => panic!("{other:?}"),
    }
}

/// Cells that leave a busy process named `burner`.
fn burning_processes() -> [String; 3] {
    let burn = set_process_name("burner");
    let program = format!("{burn}while True: pass");
    let child = format!(
        "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {program:?}])"
    );
    let fork = format!("import os\nif os.fork() == 0:\n    {burn}    while True: pass");
    let detached = format!(
        "
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.closerange(0, 256)
    {burn}    while True: pass
"
    );
    [child, fork, detached]
}

fn processes_left_behind_are_ended_and_the_variables_stay(testbed: &Testbed) {
    let (strict, lax) = (testbed.start(&[STRICT]), testbed.worker());
    for code in burning_processes() {
        let (mut session, mut control) = (strict.session(), lax.session());
        for session in [&mut session, &mut control] {
            session.run("kept = 1").ok();
            session.run(&code).ok();
        }
        let burner = started(&strict, "burner");
        let other = started(lax, "burner");
        eventually("it is ended", || !burner.is_alive());
        assert!(other.is_alive(), "it was ended for something else: {code}");
        assert_eq!(session.run("print(kept)").ok(), "1\n", "{code}");
        let name = session.name().to_owned();
        session.detach();
        let expected = (false, Some(Notice::ProcessesKilled));
        assert_eq!(reopened(&strict, &name), expected, "{code}");
        assert_eq!(reopened(&strict, &name), (false, None), "{code}");
        drop(Session::open(strict.connect(), &name));
        drop(control);
        eventually("the control has ended", || !other.is_alive());
    }
}

/// Cells after which the Python process itself is busy, or keeps starting others.
const RESTLESS: [&str; 3] = [
    "
import threading
def burn():
    while True: pass
threading.Thread(target=burn, daemon=True).start()
",
    // Killed programs are started again.
    "
import subprocess, threading
def burn():
    while True: subprocess.run(['sh', '-c', 'while :; do :; done'])
threading.Thread(target=burn, daemon=True).start()
",
    // Short-lived children whose parent ignores SIGCHLD: their CPU time is lost.
    "
import os, signal, threading, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def burn():
    while True:
        pid = os.fork()
        if pid == 0:
            until = time.monotonic() + 0.05
            while time.monotonic() < until: pass
            os._exit(0)
        try: os.waitpid(pid, 0)
        except ChildProcessError: pass
threading.Thread(target=burn, daemon=True).start()
",
];

fn a_notebook_that_does_not_rest_is_ended_and_the_next_cell_is_told(testbed: &Testbed) {
    let (strict, lax) = (testbed.start(&[STRICT]), testbed.worker());
    for code in RESTLESS {
        let (mut session, mut control) = (strict.session(), lax.session());
        session.run(code).ok();
        control.run(code).ok();
        let names = [&session, &control].map(|session| session.name().to_owned());
        session.detach();
        control.detach();
        eventually("it is ended", || !has(&strict, &names[0]));
        assert!(
            has(lax, &names[1]),
            "it was ended for something else: {code}"
        );
        let expected = (true, Some(Notice::EndedForCpu));
        assert_eq!(reopened(&strict, &names[0]), expected, "{code}");
        assert_eq!(reopened(&strict, &names[0]), (false, None), "{code}");
        for (worker, name) in [(&strict, &names[0]), (lax, &names[1])] {
            drop(Session::open(worker.connect(), name));
        }
    }
}

/// A connection that holds the session learns of its end from the next cell.
fn a_held_session_that_was_ended_says_so_by_its_next_cell(testbed: &Testbed) {
    let strict = testbed.start(&[STRICT]);
    let mut session = strict.session();
    session.run(&set_process_name("restless")).ok();
    let python = started(&strict, "restless");
    session.run(RESTLESS[0]).ok();
    eventually("it is ended", || !python.is_alive());
    let cell = session.run("print(1)");
    assert_eq!(cell.executed.status, ExecStatus::EndedForCpu);
    assert!(cell.executed.session_lost);
    let name = session.name().to_owned();
    session.detach();
    assert_eq!(reopened(&strict, &name), (true, None));
}

fn what_rests_stays_however_long_a_neighbour_burns(testbed: &Testbed) {
    let strict = testbed.start(&[STRICT]);
    let mut session = strict.session();
    let waiting = "
import subprocess, threading, time
child = subprocess.Popen(['sleep', '1000'])
ticks = []
def tick():
    while True:
        time.sleep(0.05)
        ticks.append(1)
threading.Thread(target=tick, daemon=True).start()
";
    session.run(waiting).ok();
    let mut neighbour = strict.session();
    neighbour.run(RESTLESS[0]).ok();
    let name = neighbour.name().to_owned();
    neighbour.detach();
    eventually("the neighbour is ended", || !has(&strict, &name));
    let still = "before = len(ticks); time.sleep(1); print(child.poll(), len(ticks) > before)";
    assert_eq!(session.run(still).ok(), "None True\n");
}

/// Also without a process namespace, where the worker stops with its session.
fn the_container_tier_bounds_it_as_well(testbed: &Testbed) {
    let testbed = &Testbed::separate(testbed);
    let worker = testbed.start(&["--tier=container", "--first-uid=410000", STRICT]);
    assert_eq!(worker.connect().report().tier, Tier::Container);
    let mut session = worker.session();
    session.run("kept = 1").ok();
    for code in burning_processes() {
        session.run(&code).ok();
        let burner = started(&worker, "burner");
        eventually("it is ended", || !burner.is_alive());
    }
    assert_eq!(session.run("print(kept)").ok(), "1\n");
    session.run(RESTLESS[0]).ok();
    session.detach();
    assert_eq!(testbed.wait_for(worker), 0, "it makes way for a fresh one");
}

for_both!(
    processes_left_behind_are_ended_and_the_variables_stay,
    a_notebook_that_does_not_rest_is_ended_and_the_next_cell_is_told,
    a_held_session_that_was_ended_says_so_by_its_next_cell,
    what_rests_stays_however_long_a_neighbour_burns,
    the_container_tier_bounds_it_as_well,
);
