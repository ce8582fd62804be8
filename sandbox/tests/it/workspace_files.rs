//! Files put into and read from a workspace, whatever the code of a session creates there.

use std::collections::BTreeSet;

use sandbox_protocol::ExecStatus;
use sandbox_protocol::Request;

use crate::client::Session;
use crate::processes::named;
use crate::processes::set_process_name;
use crate::testbed::Testbed;
use crate::testbed::Worker;
use crate::testbed::unique;

fn new_and_changed_files_are_told_once(testbed: &Testbed) {
    let mut session = testbed.worker().session();
    session
        .put("given.csv", Some("file-1"), "file-1", b"a,b\n1,2\n")
        .expect("the file is below the limits");
    let read = "print(open('given.csv').read() == open('/mnt/data/file-1').read())";
    let cell = session.run(read);
    assert_eq!((cell.ok().as_str(), cell.files()), ("True\n", vec![]));

    let cell = session.run(
        "
import os
open('new.txt', 'w').write('new')
os.makedirs('a/b')
open('a/b/deep.txt', 'w').write('deep')
os.link('new.txt', 'other name.txt')
open('empty', 'w').close()
",
    );
    let files: BTreeSet<&str> = cell.files().into_iter().collect();
    assert!(
        files.contains("a/b/deep.txt") && files.contains("empty"),
        "{files:?}"
    );
    let names = files.contains("new.txt") as u8 + files.contains("other name.txt") as u8;
    assert_eq!(
        (names, files.len()),
        (1, 3),
        "one file under two names is reported once: {files:?}"
    );
    assert_eq!(cell.file("a/b/deep.txt").map(|file| file.size), Some(4));
    assert_eq!(session.get("a/b/deep.txt"), Ok(b"deep".to_vec()));
    assert_eq!(session.get("empty"), Ok(vec![]));

    assert_eq!(
        session.run("open('new.txt').read()").files(),
        Vec::<&str>::new()
    );
    let cell = session.run("open('empty', 'w').write('no longer'); os.remove('a/b/deep.txt')");
    assert_eq!(cell.files(), ["empty"]);
    let cell = session.run("open('given.csv', 'a').write('3,4\\n')");
    assert_eq!(cell.executed.files.len(), 1, "{:?}", cell.executed.files);
    assert_eq!(session.get("given.csv"), Ok(b"a,b\n1,2\n3,4\n".to_vec()));
}

fn large_files_pass_whole(testbed: &Testbed) {
    let mut session = testbed.worker().session();
    let content: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    session
        .put("large.bin", None, "large", &content)
        .expect("the file is below the limits");
    let cell = session.run("data = open('large.bin', 'rb').read(); open('copy', 'wb').write(data)");
    assert_eq!(cell.files(), ["copy"]);
    assert!(
        session.get("copy") == Ok(content),
        "the content has changed"
    );
}

/// Paths that are not regular files of the workspace.
const NOT_FILES: [&str; 13] = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "../etc/passwd",
    "a/../../etc/passwd",
    "folder",
    "folder/",
    "a\0b",
    "missing",
    "//etc/passwd",
    "./../../etc/passwd",
];

fn links_are_not_followed(testbed: &Testbed) {
    let worker = testbed.worker();
    let mut session = worker.session();
    let secret = testbed.folder().join("secret.txt");
    let code = format!(
        "
import os
os.mkdir('folder')
open('folder/inside.txt', 'w').write('inside')
targets = {{
    'secret.txt': {secret:?}, 'shadow': '/etc/shadow', 'passwd': '/etc/passwd', 'up': '../../etc/passwd',
    'proc': '/proc/self/environ', 'magic': '/proc/self/root/etc/passwd', 'tree': '/etc', 'testbed': {folder:?},
    'own': 'folder/inside.txt', 'own folder': 'folder', 'loop': 'loop', 'zero': '/dev/zero', 'root': '/',
}}
for name, target in targets.items():
    os.symlink(target, name)
    os.symlink('../' + name, 'folder/' + name)
",
        folder = testbed.folder()
    );
    let cell = session.run(&(set_process_name("linker") + &code));
    assert_eq!(cell.executed.status, ExecStatus::Ok, "{}", cell.text());
    assert_eq!(cell.files(), ["folder/inside.txt"]);
    let links = [
        "secret.txt",
        "shadow",
        "passwd",
        "up",
        "proc",
        "magic",
        "own",
        "loop",
        "zero",
        "root",
        "tree/passwd",
        "testbed/secret.txt",
        "own folder/inside.txt",
        "folder/secret.txt",
        "folder/tree/passwd",
    ];
    for path in links.iter().chain(&NOT_FILES) {
        let got = session.get(path);
        assert!(
            got.is_err(),
            "{path:?}: {:?}",
            got.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        );
    }
    assert_eq!(session.get("folder/inside.txt"), Ok(b"inside".to_vec()));

    // Reading the same path from outside without precautions follows the link to the host's file.
    let linker = named(worker.pid(), "linker");
    let path = format!("/proc/{}/root/mnt/data/secret.txt", linker.pid);
    let content = std::fs::read_to_string(path).expect("the link leads to the host's file");
    assert!(content.starts_with("kestrel"), "{content}");
}

fn what_is_no_file_is_not_told(testbed: &Testbed) {
    let mut session = testbed.worker().session();
    let cell = session.run(
        "
import os, socket
listener = socket.socket(socket.AF_UNIX)
listener.bind('socket')
listener.listen()
for make in (lambda: os.mkfifo('fifo'), lambda: os.mknod('device', 0o20666, os.makedev(1, 5))):
    try:
        make()
    except OSError as error:
        print(error.errno)
open('deleted', 'w').write('x')
kept = open('deleted')
os.unlink('deleted')
",
    );
    cell.ok();
    assert_eq!(cell.files(), Vec::<&str>::new());
    for path in ["socket", "fifo", "device", "deleted"] {
        assert!(session.get(path).is_err(), "{path}");
    }
    assert_eq!(session.run("print(1)").ok(), "1\n");
}

fn odd_names_do_no_harm(testbed: &Testbed) {
    let worker = testbed.worker();
    let mut session = worker.session();
    let cell = session.run(
        r#"
import os
names = [b"new\nline", b"\x1b[31mred", b"not \xff utf-8", "\u202egnp.exe".encode(), b"x" * 255, b"tab\there",
         b"quote\"s'", b"back\\slash", b"-rf", b"...", b"bell\x07", b"\x7f", "ü €😀".encode(), b" space ",
         b"CON", b"a:b", b"%2e%2e%2fetc", b"..\xef\xbc\x8f", "\u2028".encode(), b"plain.txt"]
for name in names:
    with open(b"/mnt/data/" + name, "wb") as file:
        file.write(b"content")
deep = "/mnt/data/" + "/".join("d" * 200 for _ in range(12))
os.makedirs(deep)
open(deep + "/file", "w").write("deep")
print(len(os.listdir("/mnt/data")))
"#,
    );
    assert_eq!(cell.ok(), "21\n");
    let files = cell.files();
    for name in ["plain.txt", "ü €😀", "-rf", "quote\"s'"] {
        assert!(files.contains(&name), "{name} is not in {files:?}");
    }
    for path in &files {
        assert!(!path.chars().any(|one| one.is_control()), "{path:?}");
        assert!(path.split('/').count() <= 9, "{path:?}");
        assert_eq!(session.get(path), Ok(b"content".to_vec()), "{path:?}");
    }
    assert!(!worker.log().contains('\u{1b}'), "an escape is in the log");
}

fn many_files_are_told_up_to_a_limit(testbed: &Testbed) {
    let mut session = testbed.worker().session();
    let cell = session.run("for n in range(250): open(f'f{n}', 'w').write(str(n))");
    assert_eq!(
        (cell.executed.files.len(), cell.executed.files_dropped),
        (100, true)
    );
    for file in &cell.executed.files {
        assert_eq!(
            session.get(&file.path),
            Ok(file.path.as_bytes()[1..].to_vec())
        );
    }
    let cell = session.run("open('one more', 'w').write('x')");
    assert!(cell.files().contains(&"one more") || cell.executed.files_dropped);
}

/// Searches random trees of files, folders and links; the search must end and report only files.
fn random_trees_are_walked(testbed: &Testbed) {
    let worker = testbed.worker();
    let mut session = worker.session();
    let cell = session.run(
        r#"
import os, random
def grow(folder, random, depth=0):
    made = set()
    for _ in range(random.randrange(1, 7)):
        name = folder + "/" + "".join(random.choice("ab\u00e9. \n") for _ in range(3)).strip(".") + "x"
        try:
            kind = random.randrange(6)
            if kind == 0 and depth < 12:
                os.mkdir(name)
                made |= grow(name, random, depth + 1)
                if random.random() < 0.1:
                    os.chmod(name, 0)
            elif kind == 1:
                os.symlink(random.choice(["/", "..", "/etc/passwd", name, "/proc/self/fd/0", "."]), name)
            elif kind == 2 and made:
                os.link(random.choice(sorted(made)), name)
            else:
                with open(name, "w") as file:
                    file.write("mine" * random.randrange(3))
                if random.random() < 0.1:
                    os.chmod(name, 0)
                made.add(name)
        except OSError:
            pass
    return made
"#,
    );
    cell.ok();
    for seed in 0..40 {
        let cell = session.run(&format!("grow('/mnt/data', random.Random({seed}))"));
        assert_eq!(
            cell.executed.status,
            ExecStatus::Ok,
            "seed {seed}: {}",
            cell.text()
        );
        for file in &cell.executed.files {
            match session.get(&file.path) {
                Ok(content) => assert!(content.len() as u64 == file.size && content.len() % 4 == 0),
                // The file may be unreadable for its owner, who is also an ordinary user's worker.
                Err(message) => assert!(!message.is_empty()),
            }
        }
    }
}

/// Files and folders without permissions must not stop the search.
fn closed_files_and_folders_stop_nothing(testbed: &Testbed) {
    let mut session = testbed.worker().session();
    let cell = session.run(
        "
import os
os.mkdir('closed')
open('closed/in', 'w').write('x')
open('secret', 'w').write('x')
open('open', 'w').write('x')
os.chmod('closed', 0)
os.chmod('secret', 0)
",
    );
    cell.ok();
    assert!(cell.files().contains(&"open"), "{:?}", cell.files());
    let _ = session.get("secret");
    let _ = session.get("closed/in");
    session
        .put("put", None, "put", b"x")
        .expect("the workspace is writable");
    // The same for the workspace itself.
    session.run("os.chmod('/mnt/data', 0)").ok();
    let _ = session.put("put", None, "put", b"y");
    let _ = session.get("open");
    session.run("os.chmod('/mnt/data', 0o755)").ok();
    session
        .put("put", None, "put", b"z")
        .expect("the workspace is writable again");
    assert_eq!(session.run("print(open('put').read())").ok(), "z\n");
}

/// A session with a process that replaces files in the workspace as fast as it can.
fn swapper(worker: &Worker, swap: &str) -> Session {
    let mut session = worker.session();
    let code = format!(
        "
import os
open('/mnt/data/mine', 'w').write('mine')
if os.fork() == 0:
    # This child is not the kernel: no code of the notebook may run in it.
    try:
        os.chdir('/mnt/data')
{swap}
    finally:
        os._exit(0)
print('swapping')
"
    );
    assert_eq!(session.run(&code).ok(), "swapping\n");
    session
}

fn a_race_of_file_and_link_is_never_won(testbed: &Testbed) {
    let worker = testbed.worker();
    let secret = testbed.folder().join("secret.txt");
    let mut session = swapper(
        worker,
        &format!(
            "
        os.symlink({secret:?}, 'link')
        while True:
            os.link('mine', 'swapped'); os.unlink('swapped')
            os.symlink({secret:?}, 'swapped'); os.unlink('swapped')
            os.link('mine', 'new'); os.rename('new', 'swapped'); os.rename('link', 'swapped')
            os.unlink('swapped'); os.symlink({secret:?}, 'link')
"
        ),
    );
    let mut got = 0;
    for round in 0..600 {
        match session.get("swapped") {
            Ok(content) => {
                assert_eq!(String::from_utf8_lossy(&content), "mine", "round {round}");
                got += 1;
            }
            Err(message) => testbed.assert_no_secret(&message),
        }
        if round % 100 == 0 {
            // The search for changed files races, too.
            let cell = session.run("1");
            assert!(
                cell.executed.files.iter().all(|file| file.size == 4),
                "{:?}",
                cell.executed.files
            );
        }
    }
    // On a slow machine it may never read the file, but then it reads no link either.
    println!("read the file {got} times");
}

fn a_race_of_folder_and_link_is_never_won(testbed: &Testbed) {
    let worker = testbed.worker();
    let folder = testbed.folder();
    let mut session = swapper(
        worker,
        &format!(
            "
        os.mkdir('real')
        open('real/secret.txt', 'w').write('mine')
        os.symlink({folder:?}, 'link')
        while True:
            os.rename('real', 'folder'); os.rename('folder', 'real')
            os.rename('link', 'folder'); os.rename('folder', 'link')
"
        ),
    );
    for round in 0..600 {
        if let Ok(content) = session.get("folder/secret.txt") {
            assert_eq!(String::from_utf8_lossy(&content), "mine", "round {round}");
        }
        // A put races in the same way.
        let _ = session.put("folder/written", None, "t", b"x");
        if round % 100 == 0 {
            session.run("1");
        }
    }
    assert!(
        !folder.join("written").exists(),
        "a file was written through a link"
    );
}

/// The announced size is sent even if the file shrinks meanwhile, or the connection ends.
fn a_file_that_changes_while_it_is_read_breaks_nothing(testbed: &Testbed) {
    let worker = testbed.worker();
    let mut session = swapper(
        worker,
        "
        while True:
            for size in (8 << 20, 1, 3 << 20, 0):
                os.truncate('mine', size)
",
    );
    let name = session.name().to_owned();
    for _ in 0..60 {
        session
            .send(&Request::Get {
                path: "mine".into(),
            })
            .expect("the worker reads requests");
        let whole = match session.receive() {
            Ok(sandbox_protocol::Response::File { size }) => {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    session.receive_data(size)
                }))
                .is_ok()
            }
            Ok(_) => true,
            Err(_) => false,
        };
        if !whole {
            session.detach();
            session = Session::open(worker.connect(), &name);
        }
    }
    assert_eq!(session.run("print(1)").ok(), "1\n");
}

fn files_are_put_only_into_the_workspace(testbed: &Testbed) {
    let worker = testbed.worker();
    let mut session = worker.session();
    let mark = unique("put");
    let long = "x".repeat(300);
    let outside = [
        format!("../{mark}"),
        format!("/tmp/{mark}"),
        format!("a/../../{mark}"),
        format!("/mnt/data/../{mark}"),
        format!("/{mark}"),
        format!("..//..//{mark}"),
        format!("./../{mark}"),
        String::new(),
        ".".into(),
        "..".into(),
        "/".into(),
        "a/".into(),
        format!("{mark}\0x"),
        long.clone(),
        format!("{long}/x"),
        "a//b".into(),
        "a/./b".into(),
    ];
    for path in &outside {
        session.put(path, None, "tag", b"content").expect_err(path);
        session
            .put("fine", Some(path), "tag", b"content")
            .expect_err(path);
    }
    let code = format!(
        "
import os
for root, _, files in os.walk('/'):
    if not root.startswith(('/proc', '/usr')):
        for file in files:
            if {mark:?} in file:
                print(root, file)
"
    );
    assert_eq!(session.run(&code).ok(), "");
    for place in [
        testbed.folder().join("work"),
        "/tmp".into(),
        "/".into(),
        "/mnt".into(),
    ] {
        assert!(!place.join(&mark).exists(), "{place:?}");
    }
    session
        .put("folder/below/file.txt", Some("file-2"), "file-2", b"yes")
        .expect("the path is valid");
    assert_eq!(
        session
            .run("print(open('folder/below/file.txt').read())")
            .ok(),
        "yes\n"
    );
}

fn a_put_replaces_links_and_does_not_follow_them(testbed: &Testbed) {
    let worker = testbed.worker();
    let mut session = worker.session();
    let work = testbed.folder().join("work");
    let victim = work.join(unique("victim"));
    testbed.control(&format!("open({victim:?}, 'w').write('untouched')"));
    let code = format!(
        "
import os
open('/tmp/victim', 'w').write('untouched')
for number, target in enumerate([{victim:?}, '/tmp/victim', 'missing', '/etc/passwd']):
    os.symlink(target, f'link{{number}}')
os.symlink({work:?}, 'outside')
os.symlink('/tmp', 'elsewhere')
os.mkdir('folder')
open('file', 'w').write('file')
",
    );
    session.run(&code).ok();
    for link in ["link0", "link1", "link2", "link3", "file"] {
        session
            .put(link, None, link, b"put")
            .expect("the link is replaced");
        assert_eq!(
            session
                .run(&format!("os.path.islink('{link}'), open('{link}').read()"))
                .ok()
                .trim(),
            "(False, 'put')"
        );
        session
            .put("given", Some(link), "alias", b"again")
            .expect("the link is replaced");
        assert_eq!(
            session
                .run(&format!("os.path.islink('{link}'), open('{link}').read()"))
                .ok()
                .trim(),
            "(False, 'again')"
        );
    }
    for path in [
        "outside/new",
        "elsewhere/new",
        "folder",
        "file/below",
        "outside",
        "elsewhere/victim",
    ] {
        let put = session.put(path, None, "tag", b"put");
        // A link to a folder as the last component is replaced like any other link.
        assert_eq!(put.is_ok(), path == "outside", "{path}");
    }
    assert_eq!(
        session
            .run("print(open('/tmp/victim').read(), os.path.exists('/tmp/new'))")
            .ok(),
        "untouched False\n"
    );
    assert_eq!(
        std::fs::read_to_string(&victim).expect("the control has created the file"),
        "untouched"
    );
    assert!(!work.join("new").exists());
}

for_both!(
    new_and_changed_files_are_told_once,
    large_files_pass_whole,
    links_are_not_followed,
    what_is_no_file_is_not_told,
    odd_names_do_no_harm,
    many_files_are_told_up_to_a_limit,
    random_trees_are_walked,
    closed_files_and_folders_stop_nothing,
    a_race_of_file_and_link_is_never_won,
    a_race_of_folder_and_link_is_never_won,
    a_file_that_changes_while_it_is_read_breaks_nothing,
    files_are_put_only_into_the_workspace,
    a_put_replaces_links_and_does_not_follow_them,
);
