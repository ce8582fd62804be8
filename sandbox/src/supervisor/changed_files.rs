//! Finds out which files of a workspace are new or changed.
//!
//! A session may put anything there: links out of it, pipes, sockets, folders without end. Nothing
//! is opened here but folders, one level at a time, without following any link.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::fcntl::OpenHow;
use nix::fcntl::ResolveFlag;
use nix::fcntl::openat2;
use nix::sys::stat::FileStat;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::fstatat;
use sandbox_protocol::ChangedFile;

/// Folders within folders beyond this are not looked into.
const DEPTH_MAX: usize = 8;

/// Names beyond this many are not looked at.
const NAMES_MAX: usize = 20_000;

/// What Python leaves behind on its own.
const IGNORED: &str = "__pycache__";

/// How paths are walked: never out of the workspace, never through a link.
const BENEATH: ResolveFlag = ResolveFlag::RESOLVE_BENEATH
    .union(ResolveFlag::RESOLVE_NO_SYMLINKS)
    .union(ResolveFlag::RESOLVE_NO_MAGICLINKS)
    .union(ResolveFlag::RESOLVE_NO_XDEV);

/// What tells a file's content from what it was, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl Mark {
    /// The mark of a file of which this is known.
    pub fn of(found: &FileStat) -> Self {
        Self {
            inode: (found.st_dev, found.st_ino),
            size: u64::try_from(found.st_size).unwrap_or(0),
            modified: (found.st_mtime, found.st_mtime_nsec),
        }
    }

    /// Whether the two are one file, be its content the same or not.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

/// Regular files by path.
pub type Marks = BTreeMap<String, Mark>;

/// How much may be told at once.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Files.
    pub files: usize,
    /// Bytes, all files together.
    pub bytes: u64,
}

/// Opens something in a workspace, never through a link and never out of it.
pub fn open_beneath(
    folder: impl AsFd,
    path: &str,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY)
        .mode(mode)
        .resolve(BENEATH);
    openat2(folder, path, how)
}

/// All regular files, and whether something was left out.
pub fn walk(workspace: &OwnedFd) -> (Marks, bool) {
    let mut walk = Walk::default();
    // Not the descriptor itself: reading a folder moves its position, which duplicates share.
    match open_beneath(
        workspace,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    ) {
        Ok(top) => walk.folder(top, "", 0),
        Err(_) => walk.cut = true,
    }
    (walk.found, walk.cut)
}

/// Which of `now` are not as they were in `before`, at most a measure of them, and whether there
/// were more. Of several names of a file one is told, if possible none of `tags`.
pub fn changes(
    now: &Marks,
    before: &Marks,
    tags: &HashSet<String>,
    measure: Measure,
) -> (Vec<ChangedFile>, bool) {
    let mut names: HashMap<(u64, u64), (&str, Mark)> = HashMap::new();
    for (path, mark) in now
        .iter()
        .filter(|(path, mark)| before.get(*path) != Some(mark))
    {
        names
            .entry(mark.inode)
            .and_modify(|(chosen, _)| {
                if tags.contains(*chosen) && !tags.contains(path) {
                    *chosen = path;
                }
            })
            .or_insert((path, *mark));
    }
    let mut changed: Vec<_> = names.into_values().collect();
    // As they were written; several at once by name.
    changed.sort_by_key(|(path, mark)| (mark.modified, *path));
    let (mut told, mut bytes, mut dropped) = (Vec::new(), 0u64, false);
    for (path, mark) in changed {
        if told.len() >= measure.files || bytes.saturating_add(mark.size) > measure.bytes {
            dropped = true;
            continue;
        }
        bytes += mark.size;
        told.push(ChangedFile {
            path: path.to_owned(),
            size: mark.size,
        });
    }
    (told, dropped)
}

#[derive(Default)]
struct Walk {
    found: Marks,
    names: usize,
    cut: bool,
}

impl Walk {
    fn folder(&mut self, folder: OwnedFd, prefix: &str, depth: usize) {
        let Ok(mut entries) = Dir::from_fd(folder) else {
            self.cut = true;
            return;
        };
        let names: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some(entry.ok()?.file_name().to_owned()))
            .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
            .take(NAMES_MAX - self.names.min(NAMES_MAX))
            .collect();
        self.names += names.len();
        self.cut |= self.names >= NAMES_MAX;
        for name in names {
            let Ok(found) = fstatat(&entries, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
            if kind != SFlag::S_IFREG && kind != SFlag::S_IFDIR {
                continue;
            }
            let Some(name) = name.to_str().ok().filter(|name| tellable(name)) else {
                self.cut = true;
                continue;
            };
            let path = format!("{prefix}{name}");
            if kind == SFlag::S_IFREG {
                self.found.insert(path, Mark::of(&found));
            } else if name == IGNORED {
            } else if depth >= DEPTH_MAX {
                self.cut = true;
            } else if let Ok(folder) = open_beneath(
                &entries,
                name,
                OFlag::O_RDONLY | OFlag::O_DIRECTORY,
                Mode::empty(),
            ) {
                self.folder(folder, &format!("{path}/"), depth + 1);
            }
        }
    }
}

/// Whether a name can be shown without doing anything to whoever looks at it.
fn tellable(name: &str) -> bool {
    let turns_text_around = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !name.chars().any(|c| c.is_control() || turns_text_around(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const PLENTY: Measure = Measure {
        files: 100,
        bytes: 1 << 30,
    };

    fn folder() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fd = fs::File::open(folder.path()).expect("it exists").into();
        (folder, fd)
    }

    fn paths(marks: &Marks) -> Vec<&str> {
        marks.keys().map(String::as_str).collect()
    }

    fn told(files: &[ChangedFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn links_pipes_and_sockets_are_not_found_nor_followed() {
        let (folder, fd) = folder();
        let outside = tempfile::tempdir().expect("a temporary folder");
        fs::write(outside.path().join("secret"), "s").expect("a file");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).expect("a folder");
        fs::write(at("sub/real.txt"), "x").expect("a file");
        symlink("/etc/passwd", at("link.txt")).expect("a link");
        symlink(outside.path(), at("out")).expect("a link");
        symlink("sub", at("within")).expect("a link");
        symlink("..", at("sub/up")).expect("a link");
        nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).expect("a pipe");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
        let (found, cut) = walk(&fd);
        assert_eq!(paths(&found), ["sub/real.txt"]);
        assert!(!cut);
        for path in [
            "link.txt",
            "out/secret",
            "within/real.txt",
            "sub/up/sub/real.txt",
            "../x",
            "/etc/passwd",
        ] {
            assert!(
                open_beneath(&fd, path, OFlag::O_RDONLY, Mode::empty()).is_err(),
                "{path}"
            );
        }
        assert!(open_beneath(&fd, "sub/real.txt", OFlag::O_RDONLY, Mode::empty()).is_ok());
    }

    #[test]
    fn names_that_do_something_when_shown_are_left_out() {
        let (folder, fd) = folder();
        for name in [
            &b"new\nline"[..],
            b"esc\x1b[31m",
            b"not\xffutf8",
            "rtl\u{202e}gpj.exe".as_bytes(),
        ] {
            fs::write(
                folder
                    .path()
                    .join(Path::new(std::ffi::OsStr::from_bytes(name))),
                "x",
            )
            .expect("a file");
        }
        fs::write(folder.path().join("grün.csv"), "x").expect("a file");
        let (found, cut) = walk(&fd);
        assert_eq!(paths(&found), ["grün.csv"]);
        assert!(cut);
    }

    #[test]
    fn deep_folders_end_the_walk_and_not_the_walker() {
        let (folder, fd) = folder();
        let mut path = folder.path().to_owned();
        for _ in 0..DEPTH_MAX + 2 {
            path.push("d");
        }
        fs::create_dir_all(&path).expect("folders");
        fs::write(path.join("deep.txt"), "x").expect("a file");
        fs::write(folder.path().join("top.txt"), "x").expect("a file");
        let (found, cut) = walk(&fd);
        assert_eq!(paths(&found), ["top.txt"]);
        assert!(cut);
    }

    #[test]
    fn a_file_is_told_when_it_is_new_or_changed_and_under_its_own_name() {
        let (folder, fd) = folder();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file-1"), "a").expect("a file");
        fs::hard_link(at("file-1"), at("sales.csv")).expect("a link");
        let tags = HashSet::from(["file-1".to_owned()]);
        let before = walk(&fd).0;
        assert_eq!(changes(&before, &before, &tags, PLENTY).0, []);

        fs::write(at("sales.csv"), "longer").expect("a file");
        fs::write(at("new.txt"), "x").expect("a file");
        let now = walk(&fd).0;
        let (mut files, dropped) = changes(&now, &before, &tags, PLENTY);
        // Written within one tick of the clock, they come in either order.
        files.sort_by_key(|file| file.size);
        assert_eq!(told(&files), ["new.txt", "sales.csv"]);
        assert_eq!(files[1].size, 6);
        assert!(!dropped);
    }

    #[test]
    fn what_is_beyond_measure_is_dropped_and_said() {
        let (folder, fd) = folder();
        for number in 0..5 {
            fs::write(folder.path().join(format!("{number}")), "ten bytes!").expect("a file");
        }
        let now = walk(&fd).0;
        let measure = |files, bytes| Measure { files, bytes };
        let tell = |measure| changes(&now, &Marks::new(), &HashSet::new(), measure);
        assert_eq!(tell(measure(5, 50)).0.len(), 5);
        assert!(!tell(measure(5, 50)).1);
        assert_eq!(tell(measure(2, 50)).0.len(), 2);
        assert!(tell(measure(2, 50)).1);
        assert_eq!(tell(measure(5, 35)).0.len(), 3);
        assert!(tell(measure(5, 35)).1);
    }
}
