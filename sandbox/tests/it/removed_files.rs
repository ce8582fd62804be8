//! Removal of files that a client has put.

use sandbox_protocol::Response;

use crate::testbed::Testbed;

/// The paths that the response to opening the session lists.
fn placed_files(testbed: &Testbed, name: &str) -> Vec<String> {
    match testbed.worker().connect().open(name, false) {
        Response::Opened { files, .. } => files.into_iter().map(|file| file.path).collect(),
        other => panic!("{other:?}"),
    }
}

fn a_removed_file_is_gone_by_both_names_and_what_cells_made_stays(testbed: &Testbed) {
    let mut session = testbed.worker().session();
    for (path, tag) in [
        ("secret.csv", "file-1"),
        ("changed.csv", "file-2"),
        ("replaced.csv", "file-3"),
        ("folder/deep.csv", "file-4"),
        ("moved/inner.csv", "file-5"),
        ("deleted.csv", "file-6"),
        ("stays.csv", "file-7"),
    ] {
        session
            .put(path, Some(tag), tag, b"secret")
            .expect("the file is below the limits");
    }
    let work = "
import os, shutil
shutil.copy('secret.csv', 'copy.csv')
open('changed.csv', 'a').write(' and more')
open('new.csv', 'w').write('mine')
os.replace('new.csv', 'replaced.csv')
os.rename('moved', 'elsewhere')
os.mkdir('target')
open('target/inner.csv', 'w').write('mine')
os.symlink('target', 'moved')
os.unlink('deleted.csv')
os.unlink('file-6')
";
    session.run(work).ok();
    let tags = ["file-1", "file-2", "file-3", "file-4", "file-5", "file-6"];
    assert_eq!(session.remove(&tags), Response::Removed);
    let list = "
for root, folders, files in os.walk('.'):
    for file in files:
        path = os.path.relpath(os.path.join(root, file))
        print(path, repr(open(path).read()))
";
    let mut lines: Vec<String> = session.run(list).ok().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "changed.csv 'secret and more'",
            "copy.csv 'secret'",
            "elsewhere/inner.csv 'secret'",
            "file-7 'secret'",
            "replaced.csv 'mine'",
            "stays.csv 'secret'",
            "target/inner.csv 'mine'",
        ]
    );
    // The path and the alias can be used again.
    session
        .put("secret.csv", Some("file-1"), "file-1", b"again")
        .expect("the path is free");
    assert_eq!(session.run("print(open('file-1').read())").ok(), "again\n");
    // A file that no client has put is not removed.
    assert_eq!(session.remove(&["copy.csv", "file-9"]), Response::Removed);
    let name = session.name().to_owned();
    session.detach();
    assert_eq!(placed_files(testbed, &name), ["stays.csv", "secret.csv"]);
}

/// Only root can remove a file from a folder without write permission.
fn a_session_that_does_not_let_a_file_go_is_ended(testbed: &Testbed) {
    let mut session = testbed.worker().session();
    session
        .put("secret.csv", Some("file-1"), "file-1", b"secret")
        .expect("the file is below the limits");
    session.run("import os; os.chmod('.', 0o500)").ok();
    let name = session.name().to_owned();
    match session.remove(&["file-1"]) {
        Response::Removed => {
            assert!(testbed.runs_as_root());
            assert_eq!(session.run("print(os.listdir())").ok(), "[]\n");
        }
        Response::Closed => {
            session.detach();
            let opened = testbed.worker().connect().open(&name, false);
            assert_eq!(opened, Response::Absent);
        }
        other => panic!("{other:?}"),
    }
}

for_both!(
    a_removed_file_is_gone_by_both_names_and_what_cells_made_stays,
    a_session_that_does_not_let_a_file_go_is_ended,
);
