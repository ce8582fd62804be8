//! Files that a client has put and takes away again.

use sandbox_protocol::Response;

use crate::testbed::Stage;

/// The paths of the files that the answer to opening the session lists.
fn placed(stage: &Stage, name: &str) -> Vec<String> {
    match stage.worker().connect().open(name, false) {
        Response::Opened { files, .. } => files.into_iter().map(|file| file.path).collect(),
        other => panic!("{other:?}"),
    }
}

fn a_removed_file_is_gone_by_both_names_and_what_cells_made_stays(stage: &Stage) {
    let mut session = stage.worker().session();
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
            .expect("it fits");
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
    // Under another name, as another file.
    session
        .put("secret.csv", Some("file-1"), "file-1", b"again")
        .expect("its place is free");
    assert_eq!(session.run("print(open('file-1').read())").ok(), "again\n");
    // What nobody has put is no file to remove.
    assert_eq!(session.remove(&["copy.csv", "file-9"]), Response::Removed);
    let name = session.name().to_owned();
    session.let_go();
    assert_eq!(placed(stage, &name), ["stays.csv", "secret.csv"]);
}

/// Only root may remove what lies in a folder that forbids it.
fn a_session_that_does_not_let_a_file_go_is_ended(stage: &Stage) {
    let mut session = stage.worker().session();
    session
        .put("secret.csv", Some("file-1"), "file-1", b"secret")
        .expect("it fits");
    session.run("import os; os.chmod('.', 0o500)").ok();
    let name = session.name().to_owned();
    match session.remove(&["file-1"]) {
        Response::Removed => {
            assert!(stage.is_roots());
            assert_eq!(session.run("print(os.listdir())").ok(), "[]\n");
        }
        Response::Closed => {
            session.let_go();
            let opened = stage.worker().connect().open(&name, false);
            assert_eq!(opened, Response::Absent);
        }
        other => panic!("{other:?}"),
    }
}

for_both!(
    a_removed_file_is_gone_by_both_names_and_what_cells_made_stays,
    a_session_that_does_not_let_a_file_go_is_ended,
);
