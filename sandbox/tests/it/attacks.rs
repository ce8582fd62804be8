//! Attacks of a session on its surroundings. The code is in `tests/attacks/`; each attack runs in a
//! session, where it must gain nothing, and unconfined beside the worker, where it must succeed.

use std::path::Path;

use sandbox_protocol::ExecStatus;
use sandbox_protocol::Response;
use sandbox_protocol::TextSource;
use sandbox_protocol::Tier;
use serde_json::Value;

use crate::client::Session;
use crate::processes::Process;
use crate::processes::eventually;
use crate::processes::named;
use crate::processes::process;
use crate::processes::set_process_name;
use crate::processes::tree;
use crate::testbed::Testbed;
use crate::testbed::Worker;
use crate::testbed::unique;

const PRELUDE: &str = include_str!("../attacks/prelude.py");

/// Result of one attack.
struct Outcome {
    name: String,
    /// Who must succeed with it outside a session: `any`, `root` or `none`.
    control: String,
    gained: bool,
    detail: String,
}

fn outcomes(text: &str) -> Vec<Outcome> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("@@"));
    let read = lines.map(|line| {
        let line: Value = serde_json::from_str(line).expect("the prelude prints JSON");
        let text = |index: usize| {
            line[index]
                .as_str()
                .expect("the prelude prints strings")
                .to_owned()
        };
        Outcome {
            name: text(0),
            control: text(1),
            gained: line[2].as_bool().expect("the prelude prints a boolean"),
            detail: text(3),
        }
    });
    read.collect()
}

/// Runs the attacks in a new session while another session is in use.
fn run_attacks(testbed: &Testbed, attacks: &str) {
    let worker = testbed.worker();
    let mut bystander = worker.session();
    bystander.run("here = 'still'").ok();
    run_attacks_in(&mut worker.session(), testbed, worker, attacks);
    assert_eq!(bystander.run("print(here)").ok(), "still\n");
}

fn run_attacks_in(session: &mut Session, testbed: &Testbed, worker: &Worker, attacks: &str) {
    let name = unique("attack");
    let code = |inside| {
        let preamble = testbed.attack_preamble(worker, inside, &name);
        format!("{preamble}{PRELUDE}{attacks}\nreport()\n")
    };

    let before = testbed.hits();
    let cell = session.run(&code(true));
    assert_eq!(cell.executed.status, ExecStatus::Ok, "{}", cell.text());
    testbed.assert_no_secret(&cell.text());
    let inside = outcomes(&cell.text());
    let between = testbed.hits();

    let (status, text) = testbed.control(&code(false));
    assert_eq!(status, 0, "{text}");
    let outside = outcomes(&text);
    let after = testbed.hits();

    let names = |outcomes: &[Outcome]| -> Vec<String> {
        outcomes.iter().map(|one| one.name.clone()).collect()
    };
    assert!(!inside.is_empty(), "{}", cell.text());
    assert_eq!(
        names(&inside),
        names(&outside),
        "each attack runs in both places"
    );
    let describe = |one: &Outcome| format!("{}: {}", one.name, one.detail);
    let breaches: Vec<String> = inside
        .iter()
        .filter(|one| one.gained)
        .map(describe)
        .collect();
    assert!(breaches.is_empty(), "gained something: {breaches:#?}");
    let idle: Vec<String> = outside
        .iter()
        .filter(|one| match one.control.as_str() {
            "any" => !one.gained,
            "root" => testbed.runs_as_root() && !one.gained,
            "none" => false,
            other => panic!("no such control: {other}"),
        })
        .map(describe)
        .collect();
    assert!(idle.is_empty(), "could not succeed anywhere: {idle:#?}");

    if attacks.contains("metadata_address") {
        assert_eq!(before, between, "a session reached a stand-in");
        for (place, hits) in between {
            assert!(after[&place] > hits, "the control did not reach {place}");
        }
    }
    for place in [
        "/", "/usr", "/usr/bin", "/etc", "/dev", "/tmp", "/dev/shm", "/mnt",
    ] {
        let entries = std::fs::read_dir(Path::new(place)).expect("the folder exists");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let traces: Vec<String> = names.filter(|file| file.starts_with(&name)).collect();
        assert!(traces.is_empty(), "{place} has {traces:?}");
    }
    assert!(
        process(testbed.sibling()).is_alive(),
        "the sibling was harmed"
    );
    testbed.assert_no_secret(&worker.log());
}

/// Without namespaces, the worker's container isolates its single session.
fn the_container_tier_holds_as_well(testbed: &Testbed) {
    let testbed = &Testbed::separate(testbed);
    let worker = testbed.start(&["--tier=container", "--first-uid=400000"]);
    assert_eq!(worker.connect().report().tier, Tier::Container);
    let mut session = worker.session();
    for attacks in [
        include_str!("../attacks/network.py"),
        include_str!("../attacks/files.py"),
        include_str!("../attacks/calls.py"),
        include_str!("../attacks/processes.py"),
    ] {
        run_attacks_in(&mut session, testbed, &worker, attacks);
    }
    let work = "import pandas, subprocess; print(subprocess.run(['echo', '1']).returncode)";
    assert_eq!(session.run(work).text_of(TextSource::Stdout), "1\n0\n");
    assert_eq!(
        worker.connect().open(&unique("second"), true),
        Response::Busy
    );
    // Without a process namespace, the worker must find and kill what a session leaves behind.
    let left = "
import os, signal, time
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True: time.sleep(1)
";
    session.run(left).ok();
    let all = tree(worker.pid());
    assert!(all.len() > 20, "{all:?}");
    drop(session);
    assert_eq!(testbed.wait_for(worker), 0, "it makes way for a fresh one");
    eventually("its processes are gone", || {
        !all.iter().any(Process::is_alive)
    });
}

fn network(testbed: &Testbed) {
    run_attacks(testbed, include_str!("../attacks/network.py"));
}

fn files(testbed: &Testbed) {
    run_attacks(testbed, include_str!("../attacks/files.py"));
}

fn view(testbed: &Testbed) {
    run_attacks(testbed, include_str!("../attacks/view.py"));
}

fn calls(testbed: &Testbed) {
    run_attacks(testbed, include_str!("../attacks/calls.py"));
}

fn processes(testbed: &Testbed) {
    run_attacks(testbed, include_str!("../attacks/processes.py"));
}

/// The filter has no rules for the 32-bit system call table, so using it must kill the process.
fn a_call_by_the_32_bit_table_kills(testbed: &Testbed) {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    // mov eax, 20 (getpid); int 0x80; ret
    let code = "
import ctypes, mmap
room = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
room.write(bytes.fromhex('b814000000cd80c3'))
number = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(room)))()
print('answered', number > 0)
";
    let worker = testbed.worker();
    let mut bystander = worker.session();
    let cell = worker.session().run(code);
    assert_eq!(cell.executed.status, ExecStatus::Died, "{}", cell.text());
    assert!(cell.executed.session_lost);
    assert_eq!(testbed.control(code), (0, "answered True\n".to_owned()));
    assert_eq!(bystander.run("print(1)").ok(), "1\n");
}

/// A session sees the virtual environment in a home folder, but nothing beside it.
fn an_environment_in_a_home_shows_nothing_else(testbed: &Testbed) {
    let home = testbed.home();
    let python = home.join("project/.venv/bin/python3");
    let worker = testbed.start(&[&format!("--python={}", python.display()), "--spares=0"]);
    assert_eq!(worker.connect().report().tier, Tier::Namespaces);
    // The session that the worker has verified may still be ending.
    eventually("there is no session, not even a spare one", || {
        tree(worker.pid())
            .iter()
            .all(|one| one.name.starts_with("assistd"))
    });
    let look = format!(
        "
import os, pandas
print(os.path.exists({:?}), [os.path.join(root, name) for root, folders, files in os.walk('/home') for name in files])
",
        home.join("secret.txt")
    );
    assert_eq!(worker.session().run(&look).ok(), "False []\n");
    let (_, text) = testbed.control(&look);
    assert!(text.starts_with("True ['/home/somebody/"), "{text}");
}

/// Checks a session's process in `/proc`, which no code inside can forge.
fn the_kernel_agrees_that_a_session_is_confined(testbed: &Testbed) {
    let worker = testbed.worker();
    let mut session = worker.session();
    session.run(&set_process_name("confined")).ok();
    let confined = named(worker.pid(), "confined");
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
        assert_eq!(
            confined.status(capabilities),
            "0000000000000000",
            "{capabilities}"
        );
    }
    assert_eq!(confined.status("NoNewPrivs"), "1");
    assert_eq!(confined.status("Seccomp"), "2");
    assert_eq!(confined.proc("environ").matches("kestrel").count(), 0);
    let users: Vec<u32> = (confined.status("Uid") + "\t" + &confined.status("Gid"))
        .split_whitespace()
        .map(|id| id.parse().expect("a number"))
        .collect();
    assert!(!users.contains(&0), "it runs as root outside: {users:?}");

    let own = process(worker.pid()).namespaces();
    let shared: Vec<_> = own.intersection(&confined.namespaces()).cloned().collect();
    assert!(shared.is_empty(), "shared with the worker: {shared:?}");
    let mounts = confined.proc("mountinfo");
    assert!(
        !mounts.contains(testbed.folder().to_str().expect("UTF-8")),
        "{mounts}"
    );
    let maps = confined.proc("maps");
    let writable: Vec<&str> = maps.lines().filter(|line| line.contains("rw-s")).collect();
    assert!(
        writable.is_empty(),
        "memory shared with others: {writable:#?}"
    );
}

for_both!(
    network,
    files,
    view,
    calls,
    processes,
    a_call_by_the_32_bit_table_kills,
    an_environment_in_a_home_shows_nothing_else,
    the_kernel_agrees_that_a_session_is_confined,
    the_container_tier_holds_as_well,
);
