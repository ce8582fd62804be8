//! Many sessions and cells leave no processes, descriptors, mounts or memory behind.

use crate::client::Session;
use crate::processes::eventually;
use crate::processes::process;
use crate::processes::tree;
use crate::testbed::Testbed;
use crate::testbed::Worker;
use crate::testbed::unique;

const SESSIONS: usize = 200;
const CELLS: usize = 1_000;

/// Tolerance for memory that allocators keep, in KiB.
const SLACK_KILOBYTES: u64 = 8 << 10;

/// Resources of a worker without open sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resources {
    processes: usize,
    descriptors: Vec<usize>,
    mounts: usize,
}

fn resources(worker: &Worker) -> Resources {
    let lasting = &tree(worker.pid())[..2];
    Resources {
        processes: tree(worker.pid()).len(),
        descriptors: lasting.iter().map(|one| one.descriptors().len()).collect(),
        mounts: lasting
            .iter()
            .map(|one| one.proc("mountinfo").lines().count())
            .sum(),
    }
}

/// Private memory of the supervisor and the zygote in KiB.
fn kilobytes(worker: &Worker) -> u64 {
    let memory = |pid| {
        let rollup = process(pid).proc("smaps_rollup");
        let private = rollup.lines().filter(|line| line.starts_with("Private_"));
        private
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum::<u64>()
    };
    tree(worker.pid())[..2]
        .iter()
        .map(|one| memory(one.pid))
        .sum()
}

fn use_up_a_session(worker: &Worker, cells: usize) {
    let mut session = Session::open(worker.connect(), &unique("soak"));
    session
        .put("in.csv", Some("file-1"), "file-1", b"a,b\n1,2\n")
        .expect("the file is below the limits");
    for number in 0..cells {
        let cell = session.run(&format!(
            "open('out{number}', 'w').write('x'); print({number})"
        ));
        assert_eq!(cell.ok(), format!("{number}\n"));
        session
            .get(&format!("out{number}"))
            .expect("the file was reported");
    }
    if cells.is_multiple_of(2) {
        // Some sessions end without being closed.
        session.run("import os; os._exit(0)");
    }
}

fn sessions_and_cells_leave_nothing_behind(testbed: &Testbed) {
    let worker = testbed.start(&[]);
    for _ in 0..20 {
        use_up_a_session(&worker, 3);
    }
    // Sessions are pre-forked in the background, so wait until nothing changes for a while.
    let stable_resources = || {
        let mut last = resources(&worker);
        let mut same = 0;
        eventually("nothing changes any more", || {
            let now = resources(&worker);
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same == 50
        });
        last
    };
    let before = (stable_resources(), kilobytes(&worker));
    let processes = before.0.processes;
    assert_eq!(
        processes,
        3 + 2 * 2,
        "supervisor, zygote, and two pre-forked sessions"
    );
    for number in 0..SESSIONS {
        use_up_a_session(&worker, 2 + number % 2);
    }
    let mut session = worker.session();
    for number in 0..CELLS {
        assert_eq!(
            session.run(&format!("print({number})")).ok(),
            format!("{number}\n")
        );
    }
    drop(session);
    let after = (stable_resources(), kilobytes(&worker));
    assert_eq!(before.0, after.0);
    assert!(
        after.1 <= before.1 + SLACK_KILOBYTES,
        "{} KiB before, {} KiB after",
        before.1,
        after.1
    );
}

for_both!(sessions_and_cells_leave_nothing_behind);
