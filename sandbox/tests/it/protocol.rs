//! The protocol between the worker and its clients.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use sandbox_protocol::ExecStatus;
use sandbox_protocol::Frame;
use sandbox_protocol::PlacedFile;
use sandbox_protocol::Request;
use sandbox_protocol::Response;
use sandbox_protocol::Tier;
use sandbox_protocol::VERSION;

use crate::client::Client;
use crate::client::Session;
use crate::local_worker::LocalWorker;
use crate::processes::eventually;
use crate::processes::set_process_name;
use crate::processes::tree;
use crate::testbed::Testbed;
use crate::testbed::unique;

/// Whether the worker has closed the connection, possibly after a refusal.
fn is_cut_off(client: &mut Client) -> bool {
    match client.receive() {
        Err(_) => true,
        Ok(Response::Refused { .. }) => client.receive().is_err(),
        Ok(_) => false,
    }
}

fn the_worker_tells_its_tier(testbed: &Testbed) {
    let client = testbed.worker().connect();
    let report = client.report();
    assert_eq!(report.version, VERSION);
    assert_eq!(
        report.tier,
        Tier::Namespaces,
        "missing: {:?}",
        report.missing
    );
    assert_eq!(
        (
            report.sessions_max,
            report.idle_seconds,
            report.cell_seconds
        ),
        (64, 3600, 120)
    );
    let kernel =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux has this file");
    assert_eq!(report.kernel, kernel.trim());
    let version = "import sys; print('%d.%d.%d' % sys.version_info[:3])";
    let python = testbed.worker().session().run(version).ok();
    assert_eq!(report.python, python.trim());
}

fn the_socket_is_private(testbed: &Testbed) {
    let socket = std::fs::metadata(testbed.worker().socket()).expect("the worker listens");
    assert_eq!(socket.permissions().mode() & 0o007, 0, "others may connect");
}

for_both!(the_worker_tells_its_tier, the_socket_is_private);

#[test]
fn nothing_happens_before_hello() {
    let worker = Testbed::run_by_user().worker();
    let name = unique("session");
    let open = Request::Open {
        session: name.clone(),
        project: "tests".into(),
        create: true,
    };
    for request in [
        open,
        Request::Exec { code: "1".into() },
        Request::Close,
        Request::Interrupt,
    ] {
        let mut client = Client::raw(worker.dial());
        client.send(&request).expect("it is connected");
        assert!(is_cut_off(&mut client), "{request:?}");
    }
    assert_eq!(worker.connect().open(&name, false), Response::Absent);
}

#[test]
fn another_version_is_refused() {
    for version in [VERSION - 1, VERSION + 1] {
        let mut client = Client::raw(Testbed::run_by_user().worker().dial());
        let hello = Request::Hello {
            version,
            token: None,
        };
        match client.ask(&hello) {
            Response::Refused { message } => assert!(message.contains("same release"), "{message}"),
            other => panic!("{other:?}"),
        }
        assert!(client.receive().is_err(), "the connection goes on");
    }
}

#[test]
fn a_worker_on_tcp_wants_its_token() {
    // By variables, so that the command line does not tell the token.
    let variables = [
        ("ASSISTD_SANDBOX_TOKEN", "right"),
        ("ASSISTD_SANDBOX_CELL_SECONDS", "77"),
        ("ASSISTD_SANDBOX_SESSIONS", "5"),
    ];
    let mut worker = LocalWorker::start_with(&["--listen", "tcp:127.0.0.1:0"], &variables);
    let ready = worker.first_line();
    let address = ready.trim().strip_prefix("ready tcp:");
    let address = address
        .unwrap_or_else(|| panic!("{ready}: {}", worker.log()))
        .to_owned();
    let dial = || TcpStream::connect(&address).expect("the worker listens");
    for token in [None, Some(""), Some("wrong"), Some("right "), Some("righ")] {
        let refused = Client::greet(dial(), token)
            .map(|_| ())
            .expect_err("the token is wrong");
        assert!(
            !refused.contains("right"),
            "the refusal contains the token: {refused}"
        );
        let mut client = Client::raw(dial());
        let hello = Request::Hello {
            version: VERSION,
            token: token.map(str::to_owned),
        };
        assert!(matches!(client.ask(&hello), Response::Refused { .. }));
        let _ = client.send(&Request::Exec { code: "1".into() });
        assert!(client.receive().is_err(), "the connection stays open");
    }
    let client = Client::greet(dial(), Some("right")).expect("the token is right");
    let report = client.report();
    assert_eq!((report.cell_seconds, report.sessions_max), (77, 5));
    assert_eq!(
        Session::open(client, &unique("session"))
            .run("print(1)")
            .ok(),
        "1\n"
    );
    let at = format!("tcp:{address}");
    let ping = |token| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_assistd-sandbox"))
            .args(["ping", "--listen", &at])
            .env("ASSISTD_SANDBOX_TOKEN", token)
            .output()
            .expect("the program starts");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), printed)
    };
    let (answered, printed) = ping("right");
    assert!(answered && printed.contains("tier    "), "{printed}");
    let (answered, printed) = ping("wrong");
    assert!(!answered && printed.contains("refuses"), "{printed}");
    assert!(
        !worker.log().contains("right"),
        "the log contains the token"
    );
    drop(worker);
    let (answered, printed) = ping("right");
    assert!(
        !answered && printed.contains("no worker answers"),
        "{printed}"
    );
}

#[test]
fn a_worker_on_tcp_does_not_start_without_a_token() {
    let mut worker = LocalWorker::start(&["--listen", "tcp:127.0.0.1:0"]);
    assert!(worker.first_line().starts_with("error: "));
    assert_ne!(worker.wait(), Some(0));
}

#[test]
fn garbage_ends_only_its_own_connection() {
    let worker = Testbed::run_by_user().worker();
    let mut bystander = worker.session();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let message = |text: &str| {
        Frame::Message(text.into())
            .encode()
            .expect("the frame is small")
    };
    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![b'M', 0xff, 0xff, 0xff, 0xff],
        vec![b'D', 0x7f, 0xff, 0xff, 0xff],
        vec![0; 4096],
        message("{}"),
        message("{\"type\":\"exec\"}"),
        message("{\"type\":\"own_the_machine\"}"),
        message("not json"),
        message(&deep),
        message(""),
        Frame::Data(vec![1, 2, 3])
            .encode()
            .expect("the frame is small"),
    ];
    for bytes in &garbage {
        let mut early = Client::raw(worker.dial());
        let _ = early.send_bytes(bytes);
        assert!(
            is_cut_off(&mut early),
            "as the first thing: {:?}",
            &bytes[..bytes.len().min(40)]
        );
        let mut late = worker.session();
        let _ = late.send_bytes(bytes);
        assert!(
            is_cut_off(&mut late),
            "in a session: {:?}",
            &bytes[..bytes.len().min(40)]
        );
    }
    assert_eq!(bystander.run("print(1)").ok(), "1\n");
}

#[test]
fn a_connection_may_end_anywhere() {
    let worker = Testbed::run_by_user().worker();
    let mut bystander = worker.session();
    let exec = Frame::message(&Request::Exec { code: "1".into() })
        .and_then(|frame| frame.encode())
        .expect("the frame is small");
    for length in 0..exec.len() {
        let mut session = worker.session();
        session
            .send_bytes(&exec[..length])
            .expect("the connection is open");
        let name = session.name().to_owned();
        session.detach();
        assert_eq!(
            Session::open(worker.connect(), &name).run("print(2)").ok(),
            "2\n"
        );
    }
    // The connection ends in the middle of a file.
    let mut session = worker.session();
    let name = session.name().to_owned();
    session
        .send(&Request::Put {
            path: "half".into(),
            alias: None,
            tag: "half".into(),
            size: 1000,
        })
        .expect("the connection is open");
    session.send_data(b"some").expect("the connection is open");
    session.detach();
    let mut again = worker.connect();
    match again.open(&name, false) {
        Response::Opened { files, .. } => assert_eq!(files, []),
        other => panic!("{other:?}"),
    }
    assert_eq!(again.run("import os; print(os.listdir())").ok(), "[]\n");
    assert_eq!(bystander.run("print(1)").ok(), "1\n");
}

#[test]
fn more_data_than_announced_ends_the_connection() {
    let mut session = Testbed::run_by_user().worker().session();
    session
        .send(&Request::Put {
            path: "file".into(),
            alias: None,
            tag: "tag".into(),
            size: 2,
        })
        .expect("the connection is open");
    session.send_data(b"three").expect("the connection is open");
    assert!(is_cut_off(&mut session));
}

#[test]
fn sessions_have_plain_names() {
    let worker = Testbed::run_by_user().worker();
    let long = "x".repeat(129);
    for name in [
        "", ".", "..", "a/b", "../x", "a b", "ä", "a\0b", "a\nb", &long,
    ] {
        match worker.connect().open(name, true) {
            Response::Refused { .. } => {}
            other => panic!("{name:?}: {other:?}"),
        }
    }
    let longest = format!("{}-{}", unique("n"), "x".repeat(128));
    drop(Session::open(worker.connect(), &longest[..128]));
}

#[test]
fn a_session_is_found_again_until_it_is_closed() {
    let worker = Testbed::run_by_user().worker();
    let name = unique("thread");
    assert_eq!(worker.connect().open(&name, false), Response::Absent);
    let mut first = Session::open(worker.connect(), &name);
    first.run("kept = 5").ok();
    first
        .put("in.csv", Some("file-1"), "file-1", b"a,b\n")
        .expect("the file is below the limits");
    first.detach();
    let mut second = worker.connect();
    let opened = second.open(&name, true);
    let file = PlacedFile {
        tag: "file-1".into(),
        path: "in.csv".into(),
    };
    assert_eq!(
        opened,
        Response::Opened {
            fresh: false,
            files: vec![file],
            notice: None
        }
    );
    assert_eq!(second.run("print(kept)").ok(), "5\n");
    assert_eq!(second.ask(&Request::Close), Response::Closed);
    assert_eq!(worker.connect().open(&name, false), Response::Absent);
    let mut third = worker.connect();
    let opened = third.open(&name, true);
    assert_eq!(
        opened,
        Response::Opened {
            fresh: true,
            files: vec![],
            notice: None
        }
    );
    assert_eq!(third.run("'kept' in globals()").ok().trim(), "False");
    assert_eq!(third.ask(&Request::Close), Response::Closed);
}

#[test]
fn whoever_opens_a_session_in_use_waits_for_it() {
    let worker = Testbed::run_by_user().worker();
    let mut holder = worker.session();
    let name = holder.name().to_owned();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut client = worker.connect();
            client
                .send(&Request::Open {
                    session: name.clone(),
                    project: "tests".into(),
                    create: false,
                })
                .expect("the worker reads requests");
            client
        })
        .collect();
    holder.run("turns = 0").ok();
    holder.detach();
    // Each client releases the session when it is done; their order is not defined.
    let threads: Vec<_> = waiting
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                let opened = client.receive().expect("each client gets the session");
                assert!(
                    matches!(opened, Response::Opened { fresh: false, .. }),
                    "{opened:?}"
                );
                client.run("turns += 1").ok();
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("each client gets the session");
    }
    assert_eq!(
        Session::open(worker.connect(), &name)
            .run("print(turns)")
            .ok(),
        "3\n"
    );
}

#[test]
fn a_connection_that_drops_interrupts_its_cell_and_keeps_the_session() {
    let worker = Testbed::run_by_user().worker();
    let mut session = worker.session();
    let name = session.name().to_owned();
    // The interrupt may arrive before the first assignment in the loop.
    session.start("kept = 10\nprint('looping', flush=True)\nwhile True: kept += 1");
    session.read_until("looping");
    session.detach();
    let mut again = Session::open(worker.connect(), &name);
    assert_eq!(again.run("print(kept > 9)").ok(), "True\n");
}

#[test]
fn a_request_in_mid_cell_harms_nothing() {
    let worker = Testbed::run_by_user().worker();
    for request in [
        Request::Exec {
            code: "print('second')".into(),
        },
        Request::Get { path: "x".into() },
        Request::Close,
        Request::Hello {
            version: VERSION,
            token: None,
        },
    ] {
        let mut session = worker.session();
        let name = session.name().to_owned();
        session.start("import time\nprint('first', flush=True)\nwhile True: time.sleep(0.01)");
        session.read_until("first");
        session.send(&request).expect("the worker reads");
        session.send(&Request::Interrupt).expect("the worker reads");
        session.detach();
        let mut again = Session::open(worker.connect(), &name);
        assert_eq!(
            again
                .run("print('well')")
                .text_of(sandbox_protocol::TextSource::Stdout),
            "well\n"
        );
    }
}

#[test]
fn silent_connections_cost_nothing() {
    let worker = Testbed::run_by_user().worker();
    let silent: Vec<_> = (0..300).map(|_| worker.dial()).collect();
    assert_eq!(worker.session().run("print(1)").ok(), "1\n");
    drop(silent);
}

#[test]
fn a_closed_session_leaves_no_process() {
    let worker = Testbed::run_by_user().worker();
    let mut session = worker.session();
    session
        .run(&format!(
            "{}
import subprocess
for _ in range(5):
    subprocess.Popen('trap \"\" TERM HUP INT; while :; do sleep 1000; done', shell=True, start_new_session=True)
",
            set_process_name("leaving")
        ))
        .ok();
    let leader = crate::processes::named(worker.pid(), "leaving");
    let all = tree(leader.pid);
    assert!(all.len() > 5, "{all:?}");
    assert_eq!(session.ask(&Request::Close), Response::Closed);
    eventually("the session's processes are gone", || {
        !all.iter().any(|one| one.is_alive())
    });
}

#[test]
fn a_session_that_died_is_made_anew() {
    let worker = Testbed::run_by_user().worker();
    for death in [
        "import os; os._exit(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
        "import os; os.abort()",
        "import os; os.closerange(0, 4096)",
    ] {
        let mut session = worker.session();
        let name = session.name().to_owned();
        session.run("kept = 1").ok();
        let cell = session.run(&format!("print('last words', flush=True)\n{death}"));
        assert_eq!(cell.executed.status, ExecStatus::Died, "{death}");
        assert!(cell.executed.session_lost, "{death}");
        assert!(
            cell.text().contains("last words"),
            "{death}: {}",
            cell.text()
        );
        session.detach();
        let mut again = worker.connect();
        let opened = again.open(&name, true);
        assert_eq!(
            opened,
            Response::Opened {
                fresh: true,
                files: vec![],
                notice: None
            },
            "{death}"
        );
        assert_eq!(again.run("'kept' in globals()").ok().trim(), "False");
        assert_eq!(again.ask(&Request::Close), Response::Closed);
    }
}

#[test]
fn the_log_tells_nothing_of_cells() {
    let testbed = Testbed::run_by_user();
    let worker = testbed.worker();
    let mut session = worker.session();
    session
        .put(
            "confidential-name",
            None,
            "confidential-tag",
            b"confidential content",
        )
        .expect("the file is below the limits");
    let cell = session.run("print('confidential output'); open('confidential file', 'w'); 1 / 0");
    assert!(cell.text().contains("confidential output"));
    let _ = session.get("confidential missing");
    let _ = session.put("../confidential", None, "x", b"x");
    let _ = session.run("import os; print('confidential end'); os._exit(1)");
    assert!(
        worker.log().contains(session.name()),
        "sessions are logged by name"
    );
    assert!(!worker.log().contains("confidential"), "{}", worker.log());
}
