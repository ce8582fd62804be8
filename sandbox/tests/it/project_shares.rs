//! How the sessions of one worker are divided between projects.

use sandbox_protocol::Request;
use sandbox_protocol::Response;

use crate::client::Client;
use crate::client::Session;
use crate::testbed::Testbed;
use crate::testbed::Worker;
use crate::testbed::unique;

/// Releases the client's session. Opening a missing session does so before the response; closing
/// the connection would do so at some later time.
fn release(client: &mut Client) {
    assert_eq!(client.open(&unique("none"), false), Response::Absent);
}

/// Creates a session of a project, sets a variable in it, and releases it.
fn create_session(worker: &Worker, project: &str, name: &str) {
    let mut client = worker.connect();
    match client.open_for(project, name, true) {
        Response::Opened { fresh: true, .. } => {}
        other => panic!("{name}: {other:?}"),
    }
    client.run("kept = 1").ok();
    release(&mut client);
}

/// Returns those of the sessions that the worker still has, with their variables.
fn kept<'a>(worker: &Worker, names: &'a [String]) -> Vec<&'a str> {
    let is_kept = |name: &&'a str| {
        let mut client = worker.connect();
        match client.open_for("whoever", name, false) {
            Response::Opened { fresh: false, .. } => {
                let is_kept = client.run("print(kept)").ok() == "1\n";
                release(&mut client);
                is_kept
            }
            Response::Absent => false,
            other => panic!("{name}: {other:?}"),
        }
    };
    names.iter().map(String::as_str).filter(is_kept).collect()
}

/// Starts a cell that runs until it is interrupted.
fn busy_session(worker: &Worker, project: &str) -> Client {
    let mut client = worker.connect();
    match client.open_for(project, &unique("busy"), true) {
        Response::Opened { .. } => {}
        other => panic!("{other:?}"),
    }
    client.start("print('busy', flush=True)\nimport time\nwhile True: time.sleep(0.01)");
    client.read_until("busy");
    client
}

fn a_project_with_many_threads_evicts_its_own_sessions_and_not_anothers(testbed: &Testbed) {
    let worker = testbed.start(&["--sessions=16", "--spares=1"]);
    let others = [unique("b")];
    create_session(&worker, "b", &others[0]);
    let own: Vec<String> = (0..17).map(|_| unique("a")).collect();
    for name in &own {
        create_session(&worker, "a", name);
    }
    assert_eq!(kept(&worker, &others), others);
    assert_eq!(kept(&worker, &own), own[2..]);
    // Another project's first session evicts one of the largest project.
    create_session(&worker, "c", &unique("c"));
    assert_eq!(kept(&worker, &others), others);
    assert_eq!(kept(&worker, &own), own[3..]);
}

fn equal_projects_evict_their_own_and_a_new_one_the_longest_unused(testbed: &Testbed) {
    let worker = testbed.start(&["--sessions=2", "--spares=1"]);
    let [first, second, third, fourth] = ["a", "b", "a", "c"].map(unique);
    create_session(&worker, "a", &first);
    create_session(&worker, "b", &second);
    create_session(&worker, "a", &third);
    let names = [first, second, third, fourth];
    assert_eq!(kept(&worker, &names), names[1..3]);
    create_session(&worker, "c", &names[3]);
    assert_eq!(kept(&worker, &names), names[2..]);
}

fn sessions_at_work_are_evicted_by_nobody(testbed: &Testbed) {
    let worker = testbed.start(&["--sessions=3", "--spares=1"]);
    let mut busy = [busy_session(&worker, "a"), busy_session(&worker, "a")];
    let names = ["b", "a"].map(unique);
    create_session(&worker, "b", &names[0]);
    // All sessions of the larger project are in use, so the smaller one's idle session is evicted.
    create_session(&worker, "a", &names[1]);
    assert_eq!(kept(&worker, &names), names[1..]);
    for client in &mut busy {
        client.send(&Request::Interrupt).expect("the worker reads");
        client.finish();
    }
}

fn a_quota_holds_for_each_project(testbed: &Testbed) {
    let worker = testbed.start(&["--sessions=16", "--project-sessions=2", "--spares=1"]);
    let own: Vec<String> = (0..3).map(|_| unique("a")).collect();
    for name in &own {
        create_session(&worker, "a", name);
    }
    assert_eq!(kept(&worker, &own), own[1..]);
    let others = ["b", "b"].map(unique);
    for name in &others {
        create_session(&worker, "b", name);
    }
    assert_eq!(kept(&worker, &own), own[1..]);
    assert_eq!(kept(&worker, &others), others);
    // With both in use, a third is refused although the worker has room.
    let _busy = [busy_session(&worker, "a"), busy_session(&worker, "a")];
    let opened = worker.connect().open_for("a", &unique("a"), true);
    assert_eq!(opened, Response::Busy);
}

/// Code cannot find out to which project its session belongs.
fn a_projects_label_is_nowhere_to_be_seen_by_code(testbed: &Testbed) {
    let worker = testbed.worker();
    let label = unique("label");
    let name = unique("session");
    let mut client = worker.connect();
    let opened = client.open_for(&label, &name, true);
    assert!(matches!(opened, Response::Opened { .. }), "{opened:?}");
    drop(client);
    let mut session = Session::open(worker.connect(), &name);
    // Searched for in two parts, so that the search does not find its own code.
    let (head, tail) = label.split_at(label.len() / 2);
    let search = format!(
        "
import os, sys
label = ({head:?} + {tail:?}).encode()
places = [repr(sys.argv).encode(), repr(os.environ).encode(), os.uname().nodename.encode()]
for pid in filter(str.isdigit, os.listdir('/proc')):
    for file in ('cmdline', 'environ', 'comm', 'mountinfo', 'cgroup'):
        try: places.append(open(f'/proc/{{pid}}/{{file}}', 'rb').read())
        except OSError: pass
print(len(places) > 5, any(label in place for place in places))
"
    );
    assert_eq!(session.run(&search).ok(), "True False\n");
}

#[test]
fn a_label_that_is_too_long_is_refused() {
    let worker = Testbed::run_by_user().worker();
    let opened = worker
        .connect()
        .open_for(&"x".repeat(129), &unique("session"), true);
    assert!(matches!(opened, Response::Refused { .. }), "{opened:?}");
}

for_both!(
    a_project_with_many_threads_evicts_its_own_sessions_and_not_anothers,
    equal_projects_evict_their_own_and_a_new_one_the_longest_unused,
    sessions_at_work_are_evicted_by_nobody,
    a_quota_holds_for_each_project,
    a_projects_label_is_nowhere_to_be_seen_by_code,
);
