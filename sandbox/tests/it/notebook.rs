//! A session behaves like a notebook: what users know from Jupyter works through the worker.

use sandbox_protocol::ExecStatus;
use sandbox_protocol::TextSource;

use crate::testbed::Testbed;

#[test]
fn state_lasts_from_cell_to_cell() {
    let mut session = Testbed::run_by_user().worker().session();
    session
        .run("import pandas as pd\nframe = pd.DataFrame({'x': [1, 2]})")
        .ok();
    assert_eq!(session.run("print(frame.x.sum())").ok(), "3\n");
}

#[test]
fn the_last_expression_is_the_result() {
    let mut session = Testbed::run_by_user().worker().session();
    let cell = session.run("print('before')\n6 * 7");
    assert_eq!(cell.text_of(TextSource::Stdout), "before\n");
    assert_eq!(cell.text_of(TextSource::Result).trim(), "42");
    assert_eq!(session.run("6 * 7;").ok(), "");
}

#[test]
fn an_exception_is_a_traceback_and_no_end() {
    let mut session = Testbed::run_by_user().worker().session();
    let cell = session.run("kept = 1\ndef inner():\n    return 1 / 0\ninner()");
    assert_eq!(cell.executed.status, ExecStatus::Error);
    assert!(!cell.executed.session_lost);
    let traceback = cell.text_of(TextSource::Traceback);
    assert!(
        traceback.contains("ZeroDivisionError: division by zero"),
        "{traceback}"
    );
    assert!(traceback.contains("inner"), "{traceback}");
    assert!(
        !traceback.contains('\u{1b}'),
        "it has colours: {traceback:?}"
    );
    assert_eq!(session.run("kept").ok().trim(), "1");
}

#[test]
fn text_of_every_source_is_told_apart() {
    let mut session = Testbed::run_by_user().worker().session();
    let cell = session.run(
        "
import os, subprocess, sys
print('python')
print('complaint', file=sys.stderr)
os.write(1, b'raw\\n')
subprocess.run(['echo', 'child'])
subprocess.run('echo moan >&2', shell=True)
",
    );
    cell.ok();
    let (out, errors) = (
        cell.text_of(TextSource::Stdout),
        cell.text_of(TextSource::Stderr),
    );
    for text in ["python\n", "raw\n", "child\n"] {
        assert!(out.contains(text), "{out:?}");
    }
    for text in ["complaint\n", "moan\n"] {
        assert!(errors.contains(text), "{errors:?}");
    }
}

#[test]
fn a_plot_is_a_picture_with_something_on_it() {
    let testbed = Testbed::run_by_user();
    let mut session = testbed.worker().session();
    let cell = session.run(
        "
import matplotlib.pyplot as plt
plt.plot([1, 3, 2])
plt.savefig('/mnt/data/saved.png')
plt.show()
",
    );
    cell.ok();
    assert_eq!(cell.images.len(), 1);
    let (mime, picture) = &cell.images[0];
    assert_eq!(mime, "image/png");
    let saved = session.get("saved.png").expect("the file was reported");
    for picture in [picture, &saved] {
        let bytes: String = picture.iter().map(|byte| format!("{byte:02x}")).collect();
        let look = format!(
            "
import io, matplotlib.image
pixels = matplotlib.image.imread(io.BytesIO(bytes.fromhex('{bytes}')))
print(pixels.shape[0] > 100, pixels.shape[1] > 100, len({{tuple(pixel) for row in pixels for pixel in row}}) > 20)
"
        );
        let (status, seen) = testbed.control(&look);
        assert!(status == 0 && seen.ends_with("True True True\n"), "{seen}");
    }
}

#[test]
fn a_shell_line_runs_inside() {
    let mut session = Testbed::run_by_user().worker().session();
    assert_eq!(session.run("!echo hello; pwd").ok(), "hello\n/mnt/data\n");
    assert_eq!(
        session
            .run("lines = !echo a; echo b\nprint(len(lines))")
            .ok(),
        "2\n"
    );
}

#[test]
fn a_cell_may_await() {
    let mut session = Testbed::run_by_user().worker().session();
    let cell = session.run("import asyncio\nawait asyncio.sleep(0, 'awaited')");
    assert!(cell.ok().contains("'awaited'"));
}

#[test]
fn an_interrupted_loop_keeps_variables() {
    let mut session = Testbed::run_by_user().worker().session();
    session.start("kept = 7\nprint('looping', flush=True)\nwhile True: pass");
    session.read_until("looping");
    session
        .send(&sandbox_protocol::Request::Interrupt)
        .expect("the worker reads requests");
    let cell = session.finish();
    assert_eq!(cell.executed.status, ExecStatus::Interrupted);
    assert!(!cell.executed.session_lost);
    assert!(cell.text().contains("KeyboardInterrupt"), "{}", cell.text());
    assert!(cell.executed.cpu_ms > 0);
    assert_eq!(session.run("print(kept)").ok(), "7\n");
}

#[test]
fn an_interrupt_between_cells_does_nothing() {
    let mut session = Testbed::run_by_user().worker().session();
    session
        .send(&sandbox_protocol::Request::Interrupt)
        .expect("the worker reads requests");
    assert_eq!(session.run("print(1)").ok(), "1\n");
    session
        .send(&sandbox_protocol::Request::Interrupt)
        .expect("the worker reads requests");
    assert_eq!(session.run("print(2)").ok(), "2\n");
}

#[test]
fn leaving_is_not_the_end_of_the_session() {
    let mut session = Testbed::run_by_user().worker().session();
    session.run("kept = 1").ok();
    for code in [
        "exit()",
        "quit()",
        "import sys; sys.exit(3)",
        "raise SystemExit",
    ] {
        let cell = session.run(code);
        assert!(!cell.executed.session_lost, "{code}: {:?}", cell.executed);
    }
    assert_eq!(session.run("print(kept)").ok(), "1\n");
}

#[test]
fn any_text_arrives() {
    let mut session = Testbed::run_by_user().worker().session();
    assert_eq!(
        session.run("print('ä€😀', chr(27), end='')").ok(),
        "ä€😀 \u{1b}"
    );
    // Text that is not valid UTF-8 is replaced.
    let odd = session.run("import os\nprint('\\ud800')\nos.write(1, b'\\xff\\xfe\\n')\n'\\udfff'");
    assert!(!odd.executed.session_lost);
    // A character that is written in two parts arrives as one.
    let halves =
        "import time\nos.write(1, b'\\xe2\\x82'); time.sleep(0.3); os.write(1, b'\\xac\\n')";
    assert!(session.run(halves).text().contains('€'));
    assert_eq!(session.run("print(1)").ok(), "1\n");
}

#[test]
fn python_does_without_proc_and_network() {
    let mut session = Testbed::run_by_user().worker().session();
    let cell = session.run(
        "
import asyncio, concurrent.futures, multiprocessing, sqlite3, subprocess, tempfile, threading
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(abs, range(10))))
with multiprocessing.get_context('fork').Pool(2) as pool:
    print(sum(pool.map(abs, range(10))))
async def child():
    process = await asyncio.create_subprocess_exec('echo', 'child', stdout=-1)
    return (await process.communicate())[0]
print(await child())
print(sqlite3.connect('/mnt/data/x.db').execute('select 1').fetchone())
with tempfile.TemporaryFile() as file:
    print(file.write(b'12'))
import numpy as np
print(float((np.ones((300, 300)) @ np.ones((300, 300))).sum()))
",
    );
    assert_eq!(cell.ok(), "45\n45\nb'child\\n'\n(1,)\n2\n27000000.0\n");
}
