//! Many sessions and many cells in a row leave nothing behind.

use crate::client::Session;
use crate::processes::eventually;
use crate::processes::process;
use crate::processes::tree;
use crate::testbed::Stage;
use crate::testbed::Worker;
use crate::testbed::unique;

const SESSIONS: usize = 200;
const CELLS: usize = 1_000;

/// Memory that may come and go with allocators' moods.
const SLACK_KILOBYTES: u64 = 8 << 10;

/// What a worker holds while no session is open.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holdings {
    processes: usize,
    descriptors: Vec<usize>,
    mounts: usize,
}

fn holdings(worker: &Worker) -> Holdings {
    let lasting = &tree(worker.pid())[..2];
    Holdings {
        processes: tree(worker.pid()).len(),
        descriptors: lasting.iter().map(|one| one.descriptors().len()).collect(),
        mounts: lasting
            .iter()
            .map(|one| one.proc("mountinfo").lines().count())
            .sum(),
    }
}

/// Memory of supervisor and zygote, shared pages by their share.
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
        .expect("it fits");
    for number in 0..cells {
        let cell = session.run(&format!(
            "open('out{number}', 'w').write('x'); print({number})"
        ));
        assert_eq!(cell.ok(), format!("{number}\n"));
        session
            .get(&format!("out{number}"))
            .expect("it was told of");
    }
    if cells.is_multiple_of(2) {
        // Not every one is closed in good order.
        session.run("import os; os._exit(0)");
    }
}

fn sessions_and_cells_leave_nothing_behind(stage: &Stage) {
    let worker = stage.start(&[]);
    for _ in 0..20 {
        use_up_a_session(&worker, 3);
    }
    // Spares are refilled behind one's back: wait until the same is seen again and again.
    let settled = || {
        let mut last = holdings(&worker);
        let mut same = 0;
        eventually("nothing changes any more", || {
            let now = holdings(&worker);
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same == 50
        });
        last
    };
    let before = (settled(), kilobytes(&worker));
    let processes = before.0.processes;
    assert_eq!(processes, 3 + 2 * 2, "supervisor, zygote and two spares");
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
    let after = (settled(), kilobytes(&worker));
    assert_eq!(before.0, after.0);
    assert!(
        after.1 <= before.1 + SLACK_KILOBYTES,
        "{} KiB before, {} KiB after",
        before.1,
        after.1
    );
}

for_both!(sessions_and_cells_leave_nothing_behind);
