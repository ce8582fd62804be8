//! Isolation between the sessions of one worker.

use std::collections::BTreeSet;
use std::path::PathBuf;

use sandbox_protocol::ExecStatus;

use crate::processes::Process;
use crate::processes::named;
use crate::processes::set_process_name;
use crate::processes::tree;
use crate::testbed::Testbed;

/// Leaves traces wherever another session might find them.
const LEAVE_TRACES: &str = r#"
import os, signal, socket, threading
signal.signal(signal.SIGTERM, lambda *_: print("hit"))
for folder in ("/mnt/data", "/tmp", "/dev/shm", os.path.expanduser("~")):
    with open(f"{folder}/trace", "w") as file:
        file.write("of a neighbour")
listener = socket.socket(socket.AF_UNIX)
listener.bind("\0neighbour")
listener.listen()
other = socket.socket(socket.AF_UNIX)
other.bind("/tmp/neighbour.sock")
other.listen()
os.environ["NEIGHBOUR"] = "of a neighbour"
variable = "of a neighbour"
import builtins
builtins.neighbour = "of a neighbour"
import json
json.neighbour = "of a neighbour"
print(os.getpid())
"#;

/// Searches for these traces, and collects what it finds.
const LOOK_FOR_TRACES: &str = r#"
import builtins, glob, json, os, signal, socket
found = []
for place in ("/mnt/data", "/tmp", "/dev/shm", os.path.expanduser("~")):
    found += glob.glob(f"{place}/trace")
for root, _, files in os.walk("/"):
    if root.startswith(("/usr", "/proc", "/lib")):
        continue
    found += [f"{root}/{file}" for file in files if file in ("trace", "neighbour.sock")]
for address in ("\0neighbour", "/tmp/neighbour.sock"):
    try:
        socket.socket(socket.AF_UNIX).connect(address)
        found.append(address)
    except OSError:
        pass
for place in glob.glob("/proc/[0-9]*/environ"):
    try:
        if "of a " "neighbour" in open(place).read():
            found.append(place)
    except OSError:
        pass
if "NEIGHBOUR" in os.environ or "variable" in globals() or hasattr(builtins, "neighbour") or hasattr(json, "neighbour"):
    found.append("memory")
"#;

fn nothing_of_one_is_seen_by_the_other(testbed: &Testbed) {
    let worker = testbed.worker();
    let (mut one, mut other) = (worker.session(), worker.session());
    let looking = format!("{LOOK_FOR_TRACES}print(found)");
    one.run(LEAVE_TRACES).ok();
    assert_eq!(other.run(&looking).ok(), "[]\n");
    // The same search in the session with the traces finds all of them.
    let own = one.run(&looking).ok();
    for trace in [
        "/mnt/data/trace",
        "/tmp/trace",
        "/dev/shm/trace",
        "neighbour",
        "memory",
    ] {
        assert!(own.contains(trace), "{trace} is not in {own}");
    }
    // A session that starts later finds none either.
    assert_eq!(worker.session().run(&looking).ok(), "[]\n");
}

fn one_cannot_signal_the_other(testbed: &Testbed) {
    let worker = testbed.worker();
    let (mut one, mut other) = (worker.session(), worker.session());
    one.run(&set_process_name("victim")).ok();
    one.run("import signal; hits = []; signal.signal(signal.SIGTERM, lambda *_: hits.append(1))")
        .ok();
    let victim = named(worker.pid(), "victim");
    let attack = format!(
        "
import ctypes, os, signal
reached = []
for pid in ({pid}, -{pid}):
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
            reached.append(pid)
        except OSError:
            pass
if ctypes.CDLL(None).ptrace(16, {pid}, 0, 0) == 0:
    reached.append('traced')
# Every process that can be signalled belongs to this session.
try:
    os.kill(-1, signal.SIGTERM)
except OSError:
    pass
print(reached)
",
        pid = victim.pid
    );
    assert_eq!(other.run(&attack).ok(), "[]\n");
    assert_eq!(one.run("print(hits)").ok(), "[]\n");
}

/// Pipes and sockets that both processes have open.
fn shared(one: &Process, other: &Process) -> BTreeSet<PathBuf> {
    let private = |process: &Process| -> BTreeSet<PathBuf> {
        process
            .descriptors()
            .into_values()
            .filter(|target| {
                let target = target.to_string_lossy();
                target.starts_with("pipe:") || target.starts_with("socket:")
            })
            .collect()
    };
    private(one)
        .intersection(&private(other))
        .cloned()
        .collect()
}

/// A pipe or socket inherited through the fork would be a channel between sessions, or to the
/// zygote.
fn no_descriptor_is_shared_with_another_process(testbed: &Testbed) {
    let worker = testbed.worker();
    let (mut one, mut other) = (worker.session(), worker.session());
    one.run(&set_process_name("first")).ok();
    other.run(&set_process_name("second")).ok();
    let (first, second) = (named(worker.pid(), "first"), named(worker.pid(), "second"));
    assert!(
        !shared(&first, &first).is_empty(),
        "descriptors cannot be read"
    );
    for process in tree(worker.pid()) {
        // The supervisor has the other ends of the session's pipes and sockets.
        if process.pid == first.pid || process.pid == worker.pid() {
            continue;
        }
        assert_eq!(
            shared(&first, &process),
            BTreeSet::new(),
            "with {process:?}"
        );
    }
    assert_eq!(shared(&first, &second), BTreeSet::new());
}

fn random_numbers_differ(testbed: &Testbed) {
    let worker = testbed.worker();
    let draw = "
import os, random, secrets, uuid
import numpy as np
print(random.random()); print(np.random.rand()); print(np.random.default_rng().random())
print(uuid.uuid4()); print(secrets.token_hex()); print(next(__import__('tempfile')._get_candidate_names()))
";
    let one = worker.session().run(draw).ok();
    let other = worker.session().run(draw).ok();
    assert_eq!(one.lines().count(), 6);
    for (mine, theirs) in one.lines().zip(other.lines()) {
        assert_ne!(mine, theirs);
    }
}

/// Runs `bomb` in one session while another one runs cells.
fn others_work_beside(testbed: &Testbed, bomb: &str) -> ExecStatus {
    let worker = testbed.worker();
    let mut bystander = worker.session();
    bystander.run("import pandas, subprocess; count = 0").ok();
    let mut bomber = worker.session();
    bomber.start(&format!("print('armed', flush=True)\n{bomb}"));
    bomber.read_until("armed");
    for round in 1..=5 {
        let cell = bystander.run(
            "
count += 1
frame = pandas.DataFrame({'x': range(1000)})
assert subprocess.run(['true']).returncode == 0
open('/mnt/data/mine', 'w').write('x' * 100000)
print(count, frame.x.sum())
",
        );
        assert_eq!(cell.ok(), format!("{round} 499500\n"));
    }
    bomber
        .send(&sandbox_protocol::Request::Interrupt)
        .expect("the worker reads requests");
    let cell = bomber.finish();
    testbed.assert_no_secret(&cell.text());
    assert_eq!(worker.session().run("print(1)").ok(), "1\n");
    cell.executed.status
}

fn a_fork_bomb_harms_no_other(testbed: &Testbed) {
    others_work_beside(
        testbed,
        "
import os, time
while True:
    try:
        if os.fork() == 0:
            while True:
                try:
                    if os.fork() == 0: pass
                except OSError:
                    time.sleep(0.01)
    except OSError:
        time.sleep(0.01)
",
    );
}

fn a_thread_bomb_harms_no_other(testbed: &Testbed) {
    others_work_beside(
        testbed,
        "
import threading, time
while True:
    try:
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    except RuntimeError:
        time.sleep(0.01)
",
    );
}

fn a_memory_bomb_harms_no_other(testbed: &Testbed) {
    others_work_beside(
        testbed,
        "
kept = []
while True:
    try:
        kept.append(bytearray(16 << 20))
    except MemoryError:
        pass
",
    );
}

fn exhausted_descriptors_harm_no_other(testbed: &Testbed) {
    others_work_beside(
        testbed,
        "
import os, time
kept = []
while True:
    try:
        kept.append(os.pipe())
    except OSError:
        time.sleep(0.01)
",
    );
}

/// The kernel counts descriptors in flight per user, and the sessions of an ordinary user's worker
/// share a user.
fn descriptors_in_flight_harm_no_other(testbed: &Testbed) {
    let worker = testbed.worker();
    let mut session = worker.session();
    let cell = session.run(
        "
import array, os, socket
nothing = os.open('/dev/null', os.O_RDONLY)
parked = 0
kept = []
for _ in range(8):
    pair = socket.socketpair()
    kept.append(pair)
    try:
        for _ in range(8):
            pair[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [nothing] * 250))])
            parked += 250
    except OSError as error:
        print(error)
print('parked', parked)
",
    );
    assert!(cell.ok().contains("parked "), "{}", cell.text());
    // More sessions than are pre-forked.
    let others: Vec<_> = (0..5).map(|_| worker.session()).collect();
    for mut other in others {
        assert_eq!(other.run("print(1)").ok(), "1\n");
    }
}

/// A session that breaks its own kernel affects no other session, and its cells still end.
fn a_broken_notebook_harms_no_other(testbed: &Testbed) {
    let worker = testbed.short_time_worker();
    let mut bystander = worker.session();
    for breaking in [
        "import sys; sys.stdout = sys.stderr = None",
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "import os; os.close(1); os.close(2)",
        "get_ipython().display_pub = None; get_ipython().displayhook = None; display(1)\n2",
        "get_ipython().run_cell = None; get_ipython().run_cell_async = None",
        "import builtins; builtins.print = builtins.len = builtins.isinstance = None",
        "import json, struct; json.dumps = json.loads = struct.pack = struct.unpack = None",
        "import sys; sys.modules.clear()",
        "import gc\nfor one in gc.get_objects():\n    try: one.__dict__.clear()\n    except Exception: pass",
        "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        "x = 10 ** (10 ** 9)",
        "import threading; threading.Thread(target=lambda: 1/0).start(); import os; os.fork()",
        "import atexit, os; atexit.register(os._exit, 0); raise SystemExit",
        "import faulthandler, signal; signal.pthread_kill(__import__('threading').get_ident(), signal.SIGSTOP)",
        "class R:\n    def __repr__(self): raise BaseException('no')\nR()",
        "class R:\n    def __repr__(self): import os; os._exit(7)\nR()",
    ] {
        let mut session = worker.session();
        // This cell and the next one each have an end.
        if !session.run(breaking).executed.session_lost {
            session.run("print(1)");
        }
        assert_eq!(bystander.run("print(1)").ok(), "1\n", "{breaking}");
    }
}

fn a_full_disk_harms_no_other(testbed: &Testbed) {
    others_work_beside(
        testbed,
        "
import os, time
number = 0
while True:
    for folder in ('/mnt/data', '/tmp', '/dev/shm'):
        try:
            with open(f'{folder}/{number}', 'wb') as file:
                file.write(b'x' * (1 << 20))
        except OSError:
            time.sleep(0.001)
        number += 1
",
    );
}

fn a_flood_of_output_harms_no_other(testbed: &Testbed) {
    others_work_beside(
        testbed,
        "
import os
while True:
    print('x' * 100000)
    os.write(2, b'y' * 100000)
",
    );
}

/// Many small messages cost the supervisor more CPU time than the session.
fn floods_of_nothing_harm_no_other(testbed: &Testbed) {
    let worker = testbed.worker();
    let floods = [
        "bytes(1 << 20)",
        "frame({'type': 'ready'}) * 10000",
        "frame({'type': 'done', 'id': 1, 'status': 'ok'}) * 10000",
        "frame({'type': 'text', 'id': 2, 'source': 'stdout', 'text': ''}) * 10000",
    ];
    let mut flooding: Vec<_> = floods.iter().map(|_| worker.session()).collect();
    for (session, flood) in flooding.iter_mut().zip(floods) {
        session.run(crate::forgery::FIND).ok();
        session.start(&format!(
            "
def frame(what):
    body = json.dumps(what).encode()
    return struct.pack('>I', len(body)) + body
flood = {flood}
print('armed', flush=True)
while True:
    wire.sendall(flood)
"
        ));
        session.read_until("armed");
    }
    let mut bystander = worker.session();
    for round in 0..8 {
        assert_eq!(
            bystander.run(&format!("print({round})")).ok(),
            format!("{round}\n")
        );
    }
    for session in &mut flooding {
        session
            .send(&sandbox_protocol::Request::Interrupt)
            .expect("the worker reads requests");
        assert_eq!(session.finish().executed.status, ExecStatus::Interrupted);
    }
}

fn busy_processors_harm_no_other(testbed: &Testbed) {
    others_work_beside(
        testbed,
        "
import os
for _ in range(16):
    if os.fork() == 0:
        while True: pass
while True: pass
",
    );
}

for_both!(
    nothing_of_one_is_seen_by_the_other,
    one_cannot_signal_the_other,
    no_descriptor_is_shared_with_another_process,
    random_numbers_differ,
    a_fork_bomb_harms_no_other,
    a_thread_bomb_harms_no_other,
    a_memory_bomb_harms_no_other,
    exhausted_descriptors_harm_no_other,
    descriptors_in_flight_harm_no_other,
    a_broken_notebook_harms_no_other,
    a_full_disk_harms_no_other,
    a_flood_of_output_harms_no_other,
    floods_of_nothing_harm_no_other,
    busy_processors_harm_no_other,
);
