//! Code in a session can write to the socket between the session and its supervisor. It may forge
//! its own output, as `print` can, and lose its own session; nothing else.

use sandbox_protocol::ExecStatus;
use sandbox_protocol::Executed;

use crate::client::Cell;
use crate::processes::process;
use crate::testbed::Testbed;
use crate::testbed::Worker;

/// Finds the socket: the one whose peer is another process.
pub const FIND: &str = r#"
import array, base64, json, os, socket, struct, threading, time
def find():
    for descriptor in range(3, 1024):
        try:
            one = socket.socket(fileno=os.dup(descriptor))
            pid, _, _ = struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            one.getpeername()
        except OSError:
            continue
        if pid != os.getpid():
            return one, descriptor
wire, number = find()
def say(frame):
    body = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
    wire.sendall(struct.pack(">I", len(body)) + body)
def quietly(frame):
    try:
        say(frame)
    except OSError:
        pass
print("found")
"#;

/// Maximum number of later cells that a forgery may spoil.
const SPOILED_MAX: u32 = 60;

/// Runs `forgery` in a session that has found its socket. Each cell must have exactly one end, and
/// other sessions must not be affected.
fn forge(testbed: &Testbed, worker: &Worker, forgery: &str) -> Cell {
    let mut bystander = worker.session();
    bystander.run("here = 'still'").ok();
    let mut session = worker.session();
    assert_eq!(session.run(FIND).ok(), "found\n");
    let cell = session.run(forgery);
    let mut lost = cell.executed.session_lost;
    // Forged ends for later cells may still be queued. After them, every cell has its own end and
    // text again.
    let mut own = 0;
    for round in 0..SPOILED_MAX {
        if lost || own == 3 {
            break;
        }
        let next = session.run(&format!("print('round', {round})"));
        own += u32::from(next.text().contains(&format!("round {round}\n")));
        lost = next.executed.session_lost;
    }
    assert!(lost || own == 3, "out of step for good: {forgery}");
    assert_eq!(bystander.run("print(here)").ok(), "still\n", "{forgery}");
    assert!(process(worker.pid()).is_alive());
    testbed.assert_no_secret(&worker.log());
    cell
}

fn garbage_is_its_own_harm(testbed: &Testbed) {
    for garbage in [
        "wire.sendall(b'garbage')",
        "wire.sendall(b'\\xff' * 100000)",
        "wire.sendall(struct.pack('>I', 0xffffffff) + b'x' * 1000)",
        "wire.sendall(struct.pack('>I', 0x7fffffff))",
        "wire.sendall(struct.pack('>I', 0))",
        "wire.sendall(b'\\0\\0')",
        "say(b'not json')",
        "say(b'null')",
        "say(b'[]')",
        "say(b'[' * 200000)",
        "say(b'{\"a\":' * 100000)",
        "say(b'\\xff\\xfe')",
        "say({})",
        "say({'type': 'own the machine'})",
        "say({'type': 'exec', 'id': 1, 'code': '1'})",
        "say({'type': 'run', 'id': 1, 'code': '1'})",
        "say({'type': 'ready'})",
        "say({'type': 'warm'})",
        "say({'type': 'text', 'id': 'one', 'source': 'stdout', 'text': 1})",
        "say({'type': 'text', 'id': 1, 'source': 'supervisor', 'text': 'x'})",
        "say({'type': 'done', 'id': -1, 'status': 'ok'})",
        "say({'type': 'done', 'id': 2**70, 'status': 'ok'})",
        "say({'type': 'done', 'id': 1, 'status': 'timeout'})",
        "say({'type': 'done', 'id': 1, 'status': 'ok', 'files': [{'path': '/etc/passwd', 'size': 1}], 'session_lost': True})",
        "say({'type': 'image', 'id': 1, 'mime': 'image/png', 'data': 'not base64!'})",
        "say({'type': 'image', 'id': 1, 'mime': 'text/html', 'data': base64.b64encode(b'<script>').decode()})",
        "say({'type': 'image', 'id': 1, 'mime': '../../etc/passwd', 'data': ''})",
    ] {
        forge(testbed, testbed.short_time_worker(), garbage);
    }
}

/// Only an end with the number of the running cell ends it, and only once.
fn forged_ends_leave_one_end_per_cell(testbed: &Testbed) {
    for forgery in [
        "for n in range(40): quietly({'type': 'done', 'id': n, 'status': 'ok'})",
        "for n in range(5000): quietly({'type': 'done', 'id': n % 10, 'status': 'error'})\nprint('after that')",
        "
def later():
    for n in range(2000):
        quietly({'type': 'done', 'id': n % 40, 'status': 'ok'})
threading.Thread(target=later).start()
",
    ] {
        forge(testbed, testbed.short_time_worker(), forgery);
    }
}

fn facts_cannot_be_forged(testbed: &Testbed) {
    let mut session = testbed.worker().session();
    session.run(FIND).ok();
    let facts = "{'type': 'done', 'id': n, 'status': 'ok', 'wall_ms': 10**9, 'cpu_ms': 10**9, 'truncated': True, \
                 'session_lost': True, 'files': [{'path': 'x', 'size': 5}], 'files_dropped': True}";
    let cell = session.run(&format!("for n in range(100): quietly({facts})"));
    let Executed {
        status: _,
        session_lost,
        wall_ms,
        cpu_ms,
        truncated,
        files,
        files_dropped,
    } = cell.executed;
    assert!(
        !session_lost && !truncated && !files_dropped && files.is_empty(),
        "{files:?}"
    );
    assert!(wall_ms < 200_000 && cpu_ms < 200_000, "{wall_ms} {cpu_ms}");
}

/// Large frames are dropped before they are stored.
fn floods_of_frames_are_capped(testbed: &Testbed) {
    let worker = testbed.worker();
    let flood = "
for n in range(60):
    quietly({'type': 'text', 'id': 2, 'source': 'stdout', 'text': 'x' * 1000000})
";
    let pictures = "
picture = base64.b64encode(b'\\x89PNG\\r\\n\\x1a\\n' + b'x' * 1000000).decode()
for n in range(60):
    quietly({'type': 'image', 'id': 2, 'mime': 'image/png', 'data': picture})
";
    for forgery in [flood, pictures] {
        let cell = forge(testbed, worker, forgery);
        assert!(
            cell.text().len() < 2 << 20,
            "{} bytes of text",
            cell.text().len()
        );
        assert!(cell.images.len() <= 20, "{} pictures", cell.images.len());
    }
    let resident = process(worker.pid()).status("VmRSS");
    let kilobytes: u64 = resident
        .trim_end_matches(" kB")
        .parse()
        .expect("VmRSS is a number");
    assert!(kilobytes < 300_000, "the supervisor has {resident}");
}

/// The supervisor does not receive descriptors that are sent along.
fn descriptors_cannot_be_pushed_into_the_supervisor(testbed: &Testbed) {
    let worker = testbed.worker();
    let held = || process(worker.pid()).descriptors().len();
    let mut session = worker.session();
    session.run(FIND).ok();
    let before = held();
    let cell = session.run(
        "
kept = [os.open('/dev/null', os.O_RDONLY) for _ in range(50)]
body = json.dumps({'type': 'text', 'id': 2, 'source': 'stdout', 'text': ''}).encode()
for _ in range(20):
    try:
        wire.sendmsg([struct.pack('>I', len(body)) + body],
                     [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', kept))])
    except OSError as error:
        print(error)
        break
",
    );
    assert_eq!(cell.executed.status, ExecStatus::Ok, "{}", cell.text());
    // Other tests open sessions at the same time, each with a few descriptors.
    assert!(held() < before + 500, "{before} before, {} now", held());
}

fn a_closed_socket_is_the_end_of_the_session(testbed: &Testbed) {
    for closing in [
        "wire.shutdown(socket.SHUT_RDWR)",
        "os.close(number); wire.close(); os.closerange(3, 1024)\nimport time\ntime.sleep(600)",
    ] {
        let worker = testbed.worker();
        let mut session = worker.session();
        session.run(FIND).ok();
        let cell = session.run(closing);
        if !cell.executed.session_lost {
            let next = session.run("1");
            assert!(next.executed.session_lost, "{closing}: {next:?}");
        }
    }
}

/// If threads of a session steal its requests, its cell ends by the time limit.
fn requests_that_are_stolen_time_out(testbed: &Testbed) {
    let worker = testbed.short_time_worker();
    let mut session = worker.session();
    session.run(FIND).ok();
    session
        .run(
            "
def steal():
    while True:
        wire.recv(65536)
for _ in range(8):
    threading.Thread(target=steal, daemon=True).start()
",
        )
        .ok();
    let cell = session.run(&format!("stolen = {:?}", "x".repeat(900_000)));
    assert_ne!(cell.executed.status, ExecStatus::Ok);
    // A kernel that reads nothing does not block the supervisor either: it forges the end of this
    // cell (the second), and the third never starts.
    let mut deaf = worker.session();
    deaf.run(FIND).ok();
    let cell = deaf.run("say({'type': 'done', 'id': 2, 'status': 'ok'})\ntime.sleep(600)");
    assert!(!cell.executed.session_lost, "{cell:?}");
    let cell = deaf.run(&format!("unheard = {:?}", "x".repeat(900_000)));
    assert_eq!(cell.executed.status, ExecStatus::Timeout, "{cell:?}");
    assert_eq!(worker.session().run("print(1)").ok(), "1\n");
}

for_both!(
    garbage_is_its_own_harm,
    forged_ends_leave_one_end_per_cell,
    facts_cannot_be_forged,
    floods_of_frames_are_capped,
    descriptors_cannot_be_pushed_into_the_supervisor,
    a_closed_socket_is_the_end_of_the_session,
    requests_that_are_stolen_time_out,
);
