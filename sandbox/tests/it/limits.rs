//! Every limit has a default that `--help` shows, a setting, and an effect that the client can see.

use std::process::Command;
use std::time::Duration;

use sandbox_protocol::ExecStatus;
use sandbox_protocol::Request;
use sandbox_protocol::Response;

use crate::client::Cell;
use crate::processes::Process;
use crate::processes::eventually;
use crate::processes::eventually_within;
use crate::processes::named;
use crate::processes::set_process_name;
use crate::processes::tree;
use crate::testbed::Testbed;
use crate::testbed::unique;

/// Time limit for the start of another zygote, which loads Python's packages.
const ZYGOTE_START: Duration = Duration::from_secs(120);

/// Settings and their defaults.
const DEFAULTS: [(&str, &str); 26] = [
    ("sessions", "16"),
    ("project-sessions", "0"),
    ("spares", "2"),
    ("idle-seconds", "3600"),
    ("life-seconds", "86400"),
    ("cell-seconds", "120"),
    ("cpu-seconds", "240"),
    ("background-cpu-seconds", "10"),
    ("grace-seconds", "5"),
    ("memory-mib", "1024"),
    ("processes", "64"),
    ("open-files", "256"),
    ("file-mib", "512"),
    ("data-mib", "512"),
    ("data-inodes", "4096"),
    ("tmp-mib", "256"),
    ("shm-mib", "64"),
    ("output-kib", "1024"),
    ("traceback-kib", "64"),
    ("images", "20"),
    ("image-mib", "10"),
    ("files", "100"),
    ("files-mib", "512"),
    ("first-uid", "200000"),
    ("zygote-sessions", "1000"),
    ("zygote-seconds", "43200"),
];

#[test]
fn the_help_tells_every_setting_with_its_default() {
    let help = Command::new(env!("CARGO_BIN_EXE_assistd-sandbox"))
        .args(["serve", "--help"])
        .output()
        .expect("the program starts");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let help = help.replace("          \n", "");
    for (name, default) in DEFAULTS {
        let entry = help
            .split("\n\n      --")
            .find(|entry| entry.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("--{name} is not in the help"));
        let variable = format!("ASSISTD_SANDBOX_{}", name.to_uppercase().replace('-', "_"));
        assert!(
            entry.contains(&variable),
            "--{name} has no variable: {entry}"
        );
        assert!(
            entry.contains(&format!("[default: {default}]")),
            "--{name}: {entry}"
        );
    }
}

fn a_cell_that_takes_too_long_is_interrupted(testbed: &Testbed) {
    let mut session = testbed.short_time_worker().session();
    let cell = session.run("import time\nkept = 1\ntime.sleep(600)");
    assert_eq!(cell.executed.status, ExecStatus::Timeout);
    assert!(!cell.executed.session_lost);
    assert!(
        cell.executed.wall_ms >= 3_000,
        "{} ms",
        cell.executed.wall_ms
    );
    assert!(cell.text().contains("KeyboardInterrupt"), "{}", cell.text());
    assert_eq!(session.run("print(kept)").ok(), "1\n");
}

/// Code that ignores interrupts is killed.
fn a_cell_that_does_not_give_up_is_killed(testbed: &Testbed) {
    for stubborn in [
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)",
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: time.sleep(1)",
        "
import time
while True:
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        pass
",
        // Machine code that jumps to itself and holds the interpreter's lock.
        "
import ctypes, mmap, platform
room = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
room.write(bytes.fromhex({'x86_64': 'ebfe', 'aarch64': '00000014'}[platform.machine()]))
ctypes.PYFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(room)))()
",
        "import re\nwhile True:\n    try: re.match('(a+)+$', 'a' * 60 + 'b')\n    except BaseException: pass",
    ] {
        let mut session = testbed.short_time_worker().session();
        let cell = session.run(&format!("print('before', flush=True)\n{stubborn}"));
        assert_eq!(
            cell.executed.status,
            ExecStatus::Timeout,
            "{stubborn}: {}",
            cell.text()
        );
        assert!(cell.executed.session_lost, "{stubborn}");
        assert!(cell.text().contains("before"), "{stubborn}");
        let name = session.name().to_owned();
        session.detach();
        let mut again = testbed.short_time_worker().connect();
        let opened = again.open(&name, true);
        assert_eq!(
            opened,
            Response::Opened {
                fresh: true,
                files: vec![],
                notice: None
            }
        );
        assert_eq!(again.ask(&Request::Close), Response::Closed);
    }
}

/// An interrupt by request has the same grace period as one by the time limit.
fn an_interrupt_that_does_not_help_kills(testbed: &Testbed) {
    let mut session = testbed.short_time_worker().session();
    session.start(
        "
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
print('armed', flush=True)
import time
while True: time.sleep(0.1)
",
    );
    session.read_until("armed");
    session.send(&Request::Interrupt).expect("the worker reads");
    let cell = session.finish();
    assert_eq!(cell.executed.status, ExecStatus::Interrupted);
    assert!(cell.executed.session_lost);
}

fn processor_time_counts_over_all_processes(testbed: &Testbed) {
    let cell = testbed.short_life_worker().session().run(
        "
import os
for _ in range(6):
    if os.fork() == 0:
        while True: pass
while True: pass
",
    );
    assert_eq!(cell.executed.status, ExecStatus::Timeout);
    assert!(cell.executed.cpu_ms >= 2_000, "{} ms", cell.executed.cpu_ms);
    assert!(cell.executed.wall_ms < 120_000, "it was the wall clock");
}

fn one_process_meets_its_memory_limit(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    let cell = session.run(
        "
kept = 1
try:
    big = bytearray(2 << 30)
    print('got it')
except MemoryError:
    print('refused')
",
    );
    assert_eq!(cell.ok(), "refused\n");
    assert_eq!(session.run("print(kept)").ok(), "1\n");
    let cell = session.run("blocks = []\nwhile True: blocks.append(b'x' * (1 << 20))");
    if cell.executed.status == ExecStatus::Error {
        assert!(cell.text().contains("MemoryError"), "{}", cell.text());
    } else {
        assert_eq!(cell.executed.status, ExecStatus::OutOfMemory);
        assert!(cell.executed.session_lost);
    }
}

/// Each process stays below the limit for one; together they exceed it.
fn many_processes_meet_the_limit_for_all(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    let cell = session.run(
        "
import os, time
for _ in range(8):
    if os.fork() == 0:
        block = os.urandom(1 << 20) * 50
        time.sleep(600)
time.sleep(600)
",
    );
    assert_eq!(
        cell.executed.status,
        ExecStatus::OutOfMemory,
        "{}",
        cell.text()
    );
    assert!(cell.executed.session_lost);
}

/// Memory that belongs to no process: files without a name.
fn memory_without_a_process_is_limited_too(testbed: &Testbed) {
    let worker = testbed.low_limits_worker();
    let mut session = worker.session();
    let cell = session.run(
        "
import ctypes, os
held = 0
kept = []
def anonymous():
    return os.memfd_create('x')
def unlinked():
    import tempfile
    return os.dup(tempfile.TemporaryFile(dir='/dev/shm').fileno())
for make in (anonymous, unlinked):
    try:
        while len(kept) < 35:
            file = make()
            kept.append(file)
            for _ in range(8):
                held += os.write(file, b'x' * (128 << 10))
    except OSError as error:
        print(type(error).__name__)
print('held', held >> 20)
",
    );
    if cell.executed.status == ExecStatus::Ok {
        let text = cell.text();
        let held = text
            .rsplit_once("held ")
            .expect("the code prints that")
            .1
            .trim();
        let mebibytes: u32 = held.parse().expect("the code prints a number");
        assert!(
            mebibytes <= 8,
            "{mebibytes} MiB of memory that is not accounted for"
        );
    }
}

fn processes_and_threads_are_limited(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    let cell = session.run(
        "
import os, threading, time
made = 0
try:
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        made += 1
except OSError as error:
    print(type(error).__name__, 4 <= made <= 12)
",
    );
    assert_eq!(cell.ok(), "BlockingIOError True\n");
    let mut other = testbed.low_limits_worker().session();
    let cell = other.run(
        "
import threading, time
made = 0
try:
    for _ in range(100):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        made += 1
except RuntimeError:
    print(4 <= made <= 12)
",
    );
    assert_eq!(cell.ok(), "True\n");
}

fn open_files_are_limited(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    let cell = session.run(
        "
import os
kept = []
try:
    while len(kept) < 1000:
        kept.append(os.open('/dev/null', os.O_RDONLY))
except OSError as error:
    print(error.strerror, 10 <= len(kept) <= 40)
for descriptor in kept:
    os.close(descriptor)
",
    );
    assert_eq!(cell.ok(), "Too many open files True\n");
}

/// Fills each writable folder with files below the size limit of a file.
fn files_and_folders_are_limited(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    let cell = session.run(
        "
import os, shutil
def fill(folder):
    written = 0
    try:
        for number in range(50):
            with open(f'{folder}/{number}', 'wb', buffering=0) as file:
                for _ in range(8):
                    written += file.write(b'x' * (100 << 10))
    except OSError as error:
        return error.strerror, written / (1 << 20)
    finally:
        for number in range(50):
            if os.path.exists(f'{folder}/{number}'): os.unlink(f'{folder}/{number}')
    return 'none', written / (1 << 20)
for folder, size in (('/mnt/data', 3), ('/tmp', 2), ('/dev/shm', 1)):
    why, got = fill(folder)
    print(why, size - 1 < got <= size)
",
    );
    assert_eq!(cell.ok(), "No space left on device True\n".repeat(3));

    let cell = session.run(
        "
def write():
    with open('large', 'wb', buffering=0) as file:
        for _ in range(20):
            file.write(b'x' * (100 << 10))
def sparse():
    with open('sparse', 'wb') as file:
        file.truncate(1 << 40)
def allocated():
    with open('allocated', 'wb') as file:
        os.posix_fallocate(file.fileno(), 0, 2 << 20)
for attempt in (write, sparse, allocated):
    try:
        attempt()
        print('no limit')
    except OSError as error:
        print(error.strerror)
print([os.path.getsize(path) <= 1 << 20 for path in ('large', 'sparse', 'allocated')])
for path in ('large', 'sparse', 'allocated'): os.unlink(path)
",
    );
    assert_eq!(
        cell.ok(),
        "File too large\n".repeat(3) + "[True, True, True]\n"
    );

    for folder in ["/mnt/data", "/tmp"] {
        let cell = session.run(&format!(
            "
made = 0
try:
    for number in range(1000):
        os.mkdir(f'{folder}/d{{number}}')
        made += 1
except OSError as error:
    print(error.strerror, made <= 64)
for number in range(made):
    os.rmdir(f'{folder}/d{{number}}')
"
        ));
        assert_eq!(cell.ok(), "No space left on device True\n", "{folder}");
    }
}

/// Only the three writable folders accept files.
fn nothing_else_is_writable(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    let cell = session.run(
        "
import os
places = set()
for root, folders, _ in os.walk('/'):
    if root == '/proc':
        folders.clear()
    if os.access(root, os.W_OK):
        places.add(root)
        folders.clear()
print(sorted(places))
",
    );
    assert_eq!(cell.ok(), "['/dev/shm', '/mnt/data', '/tmp']\n");
}

fn a_put_into_a_full_workspace_is_refused(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    let large = vec![b'x'; 8 << 20];
    let refused = session
        .put("large", None, "large", &large)
        .expect_err("the workspace is too small");
    assert!(!refused.is_empty());
    session
        .run("import os\nprint(os.listdir('/mnt/data'))\nos.mkdir('full')")
        .ok();
    let cell = session.run(
        "
try:
    for number in range(1000): open(f'full/{number}', 'w').close()
except OSError:
    print('full')
",
    );
    assert_eq!(cell.ok(), "full\n");
    session
        .put("one", None, "one", b"x")
        .expect_err("no inode is free");
    session.run("import shutil; shutil.rmtree('full')").ok();
    session
        .put("one", None, "one", b"x")
        .expect("removing the folder has freed inodes");
    assert_eq!(
        session.run("print(os.listdir('/mnt/data'))").ok(),
        "['one']\n"
    );
    match session.open(&unique("other"), false) {
        Response::Absent => {}
        other => panic!("{other:?}"),
    }
}

fn assert_truncated(cell: &Cell, most: usize) {
    assert!(cell.executed.truncated, "{:?}", cell.executed);
    let text = cell.text();
    assert!(text.len() <= most, "{} bytes", text.len());
}

fn output_is_cut_and_the_cell_goes_on(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    for flood in [
        "for _ in range(100000): print('x' * 10)",
        "import sys\nfor _ in range(1000): print('x' * 10000, file=sys.stderr)",
        "import os\nfor _ in range(1000): os.write(1, b'x' * 10000)",
        "import subprocess\nsubprocess.run('yes | head -c 5000000', shell=True)",
        "'x' * 5000000",
        "for _ in range(1000): display('x' * 5000)",
        "print('é' * 100000)",
    ] {
        let cell = session.run(flood);
        assert_eq!(cell.executed.status, ExecStatus::Ok, "{flood}");
        assert_truncated(&cell, 9 << 10);
        assert!(cell.text().len() > 1 << 10, "{flood}: {}", cell.text());
    }
    let cell = session.run("print('short')");
    assert_eq!(
        (cell.text().as_str(), cell.executed.truncated),
        ("short\n", false)
    );
}

fn tracebacks_are_cut(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    let cell = session.run("raise ValueError('x' * 1000000)");
    assert_eq!(cell.executed.status, ExecStatus::Error);
    assert_truncated(&cell, 4 << 10);
    assert!(!cell.text().is_empty());
}

fn pictures_are_counted_and_measured(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    let cell = session.run(
        "
import matplotlib.pyplot as plt
for _ in range(5):
    plt.figure(figsize=(1, 1))
    plt.plot([1, 2])
",
    );
    assert_eq!(cell.executed.status, ExecStatus::Ok, "{}", cell.text());
    assert_eq!(cell.images.len(), 2);
    assert!(cell.executed.truncated);
    let cell = session.run(
        "
from IPython.display import Image
import os
display(Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom(2 << 20)))
",
    );
    assert_eq!(
        (cell.images.len(), cell.executed.truncated),
        (0, true),
        "{}",
        cell.text()
    );
    // Data that is no image is not sent as one.
    let cell = session.run("display(Image(data=b'<script>' * 100, format='png'))");
    assert_eq!(cell.images.len(), 0);
}

fn files_handed_over_are_limited(testbed: &Testbed) {
    let mut session = testbed.low_limits_worker().session();
    let cell = session.run("for n in range(9): open(f'f{n}', 'w').write('x')");
    assert_eq!(
        (cell.executed.files.len(), cell.executed.files_dropped),
        (5, true)
    );
    let cell = session.run(
        "
import os
for n in range(9): os.unlink(f'f{n}')
for n in range(3): open(f'g{n}', 'w').write('x' * (900 << 10))
",
    );
    cell.ok();
    assert_eq!(
        (cell.executed.files.len(), cell.executed.files_dropped),
        (2, true)
    );
}

/// A process that outlives its cell writes without end.
fn a_cell_ends_though_its_children_write_on(testbed: &Testbed) {
    let mut session = testbed.worker().session();
    let cell =
        session.run("import subprocess\nchild = subprocess.Popen(['yes'])\nprint('started')");
    assert_eq!(cell.executed.status, ExecStatus::Ok);
    for round in 0..3 {
        let cell = session.run("1 + 1");
        assert_eq!(cell.executed.status, ExecStatus::Ok, "round {round}");
        assert!(
            cell.text().len() <= (1 << 20) + 1_000,
            "{} bytes",
            cell.text().len()
        );
    }
    session.run("child.kill(); child.wait()");
    let mut last = session.run("print('quiet')");
    if last.text() != "quiet\n" {
        last = session.run("print('quiet')");
    }
    assert_eq!(last.text(), "quiet\n");
}

/// A client that does not read delays its own cell and no other.
fn a_client_that_does_not_read_holds_up_nobody(testbed: &Testbed) {
    let worker = testbed.worker();
    let mut deaf = worker.session();
    deaf.start("while True: print('x' * 1000)");
    let mut bystander = worker.session();
    for round in 0..20 {
        let cell = bystander.run(&format!("print({round})"));
        assert_eq!(cell.ok(), format!("{round}\n"));
    }
    deaf.send(&Request::Interrupt)
        .expect("the socket buffer has room for the request");
    let cell = deaf.finish();
    assert_eq!(cell.executed.status, ExecStatus::Interrupted);
}

fn sessions_are_limited(testbed: &Testbed) {
    let worker = testbed.start(&["--sessions=2", "--spares=1"]);
    let (mut one, mut two) = (worker.session(), worker.session());
    for session in [&mut one, &mut two] {
        session.run("kept = 1").ok();
        session.start("print('busy', flush=True)\nimport time\nwhile True: time.sleep(0.01)");
        session.read_until("busy");
    }
    assert_eq!(
        worker.connect().open(&unique("third"), true),
        Response::Busy
    );
    for session in [&mut one, &mut two] {
        session.send(&Request::Interrupt).expect("the worker reads");
        session.finish();
    }
    // The idle session is evicted for another one.
    let name = one.name().to_owned();
    one.detach();
    let mut third = worker.connect();
    eventually("the idle session was evicted", || {
        matches!(
            third.open(&unique("third"), true),
            Response::Opened { fresh: true, .. }
        )
    });
    assert_eq!(worker.connect().open(&name, false), Response::Absent);
    assert_eq!(two.run("print(kept)").ok(), "1\n");
    assert_eq!(worker.connect().report().sessions_max, 2);
}

fn unused_sessions_end(testbed: &Testbed) {
    let worker = testbed.short_life_worker();
    assert_eq!(worker.connect().report().idle_seconds, 2);
    let mut session = worker.session();
    session.run(&set_process_name("unused")).ok();
    let unused = named(worker.pid(), "unused");
    let name = session.name().to_owned();
    session.detach();
    // The process is checked instead of the session, because opening the session would use it.
    eventually("its process is gone", || !unused.is_alive());
    assert_eq!(worker.connect().open(&name, false), Response::Absent);
    // A session that runs a cell is not idle.
    let mut session = worker.session();
    session.run("import time; kept = 1; time.sleep(3.5)").ok();
    assert_eq!(session.run("print(kept)").ok(), "1\n");
}

fn old_sessions_end(testbed: &Testbed) {
    let worker = testbed.short_life_worker();
    let session = worker.session();
    let name = session.name().to_owned();
    session.detach();
    // Repeated use does not prolong its lifetime.
    eventually("it has ended", || {
        let mut client = worker.connect();
        match client.open(&name, false) {
            Response::Opened { .. } => {
                client.run("1");
                false
            }
            Response::Absent => true,
            other => panic!("{other:?}"),
        }
    });
}

/// The zygote is replaced without an effect on existing sessions.
fn the_zygote_is_renewed(testbed: &Testbed) {
    let worker = testbed.start(&["--zygote-sessions=3", "--spares=1"]);
    let zygotes = || -> Vec<Process> {
        let all = tree(worker.pid()).into_iter();
        all.filter(|one| one.is_child_of(worker.pid())).collect()
    };
    let first = zygotes();
    assert_eq!(first.len(), 1, "{first:?}");
    let mut lasting = worker.session();
    lasting.run("kept = 1").ok();
    for _ in 0..8 {
        assert_eq!(worker.session().run("print(1)").ok(), "1\n");
    }
    // The new zygote is visible in the process list while it starts. The worker uses the old one
    // until the new one is ready, which may take minutes on a busy machine.
    eventually_within(ZYGOTE_START, "the zygote was renewed", || {
        worker.log().contains("renewed the zygote")
    });
    assert!(zygotes().iter().any(|one| *one != first[0]));
    assert_eq!(lasting.run("print(kept)").ok(), "1\n");
    // The old zygote stays as long as it has a session.
    assert!(first[0].is_alive());
    drop(lasting);
    eventually("the first zygote is gone", || !first[0].is_alive());
}

for_both!(
    a_cell_that_takes_too_long_is_interrupted,
    a_cell_that_does_not_give_up_is_killed,
    an_interrupt_that_does_not_help_kills,
    processor_time_counts_over_all_processes,
    one_process_meets_its_memory_limit,
    many_processes_meet_the_limit_for_all,
    memory_without_a_process_is_limited_too,
    processes_and_threads_are_limited,
    open_files_are_limited,
    files_and_folders_are_limited,
    nothing_else_is_writable,
    a_put_into_a_full_workspace_is_refused,
    output_is_cut_and_the_cell_goes_on,
    tracebacks_are_cut,
    pictures_are_counted_and_measured,
    files_handed_over_are_limited,
    a_cell_ends_though_its_children_write_on,
    a_client_that_does_not_read_holds_up_nobody,
    sessions_are_limited,
    unused_sessions_end,
    old_sessions_end,
    the_zygote_is_renewed,
);
