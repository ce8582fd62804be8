//! Detects new and changed files in a workspace.
//!
//! A session may create anything there: links that lead out, pipes, sockets, deeply nested folders.
//! This module opens only folders, one level at a time, and follows no link.

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

/// Maximum nesting depth of folders that are searched.
const DEPTH_MAX: usize = 8;

/// Maximum number of directory entries that are read.
const NAMES_MAX: usize = 20_000;

/// The folder in which Python caches compiled modules.
const IGNORED: &str = "__pycache__";

/// Path resolution never leaves the workspace and follows no link.
const BENEATH: ResolveFlag = ResolveFlag::RESOLVE_BENEATH
    .union(ResolveFlag::RESOLVE_NO_SYMLINKS)
    .union(ResolveFlag::RESOLVE_NO_MAGICLINKS)
    .union(ResolveFlag::RESOLVE_NO_XDEV);

/// Identity and version of a file: if it is unchanged, so is the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileVersion {
    /// Device and inode.
    inode: (u64, u64),
    size: u64,
    /// Modification time in seconds and nanoseconds.
    modified: (i64, i64),
}

impl FileVersion {
    pub fn of(stat: &FileStat) -> Self {
        Self {
            inode: (stat.st_dev, stat.st_ino),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
        }
    }

    /// Whether both are versions of one file.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

/// The regular files of a workspace, by path.
pub type Snapshot = BTreeMap<String, FileVersion>;

/// Limits of one report of changed files.
#[derive(Debug, Clone, Copy)]
pub struct ReportLimits {
    pub files: usize,
    /// Total size in bytes.
    pub bytes: u64,
}

/// Opens a path below `folder` without following links.
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

/// Lists all regular files. The flag tells whether some were left out because of a limit.
pub fn take_snapshot(workspace: &OwnedFd) -> (Snapshot, bool) {
    let mut search = Search::default();
    // Opened anew: reading a folder moves its offset, which duplicates of a descriptor share.
    match open_beneath(
        workspace,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    ) {
        Ok(top) => search.search_folder(top, "", 0),
        Err(_) => search.incomplete = true,
    }
    (search.files, search.incomplete)
}

/// The files of `now` that are new or changed since `before`, up to the limits. The flag tells
/// whether some were left out. Hard links to one file are listed once, if possible under a path
/// that is not in `tags`, the ids under which files were uploaded.
pub fn changed_files(
    now: &Snapshot,
    before: &Snapshot,
    tags: &HashSet<String>,
    limits: ReportLimits,
) -> (Vec<ChangedFile>, bool) {
    let mut names: HashMap<(u64, u64), (&str, FileVersion)> = HashMap::new();
    for (path, version) in now
        .iter()
        .filter(|(path, version)| before.get(*path) != Some(version))
    {
        names
            .entry(version.inode)
            .and_modify(|(chosen, _)| {
                if tags.contains(*chosen) && !tags.contains(path) {
                    *chosen = path;
                }
            })
            .or_insert((path, *version));
    }
    let mut changed: Vec<_> = names.into_values().collect();
    // In the order of modification, then by name.
    changed.sort_by_key(|(path, version)| (version.modified, *path));
    let (mut reported, mut bytes, mut dropped) = (Vec::new(), 0u64, false);
    for (path, version) in changed {
        if reported.len() >= limits.files || bytes.saturating_add(version.size) > limits.bytes {
            dropped = true;
            continue;
        }
        bytes += version.size;
        reported.push(ChangedFile {
            path: path.to_owned(),
            size: version.size,
        });
    }
    (reported, dropped)
}

#[derive(Default)]
struct Search {
    files: Snapshot,
    /// Number of directory entries read so far.
    entries: usize,
    /// Whether some entries were left out.
    incomplete: bool,
}

impl Search {
    fn search_folder(&mut self, folder: OwnedFd, prefix: &str, depth: usize) {
        let Ok(mut entries) = Dir::from_fd(folder) else {
            self.incomplete = true;
            return;
        };
        let names: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some(entry.ok()?.file_name().to_owned()))
            .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
            .take(NAMES_MAX - self.entries.min(NAMES_MAX))
            .collect();
        self.entries += names.len();
        self.incomplete |= self.entries >= NAMES_MAX;
        for name in names {
            let Ok(stat) = fstatat(&entries, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
            if kind != SFlag::S_IFREG && kind != SFlag::S_IFDIR {
                continue;
            }
            let Some(name) = name.to_str().ok().filter(|name| is_displayable(name)) else {
                self.incomplete = true;
                continue;
            };
            let path = format!("{prefix}{name}");
            if kind == SFlag::S_IFREG {
                self.files.insert(path, FileVersion::of(&stat));
            } else if name == IGNORED {
            } else if depth >= DEPTH_MAX {
                self.incomplete = true;
            } else if let Ok(folder) = open_beneath(
                &entries,
                name,
                OFlag::O_RDONLY | OFlag::O_DIRECTORY,
                Mode::empty(),
            ) {
                self.search_folder(folder, &format!("{path}/"), depth + 1);
            }
        }
    }
}

/// Whether a name has neither control characters nor characters that change the text direction.
fn is_displayable(name: &str) -> bool {
    let is_bidi_control = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !name.chars().any(|c| c.is_control() || is_bidi_control(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const NO_LIMIT: ReportLimits = ReportLimits {
        files: 100,
        bytes: 1 << 30,
    };

    fn workspace() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fd = fs::File::open(folder.path())
            .expect("the folder was just created")
            .into();
        (folder, fd)
    }

    fn paths(snapshot: &Snapshot) -> Vec<&str> {
        snapshot.keys().map(String::as_str).collect()
    }

    fn paths_of(files: &[ChangedFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn links_pipes_and_sockets_are_not_found_nor_followed() {
        let (folder, fd) = workspace();
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
        let (files, incomplete) = take_snapshot(&fd);
        assert_eq!(paths(&files), ["sub/real.txt"]);
        assert!(!incomplete);
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
        let (folder, fd) = workspace();
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
        let (files, incomplete) = take_snapshot(&fd);
        assert_eq!(paths(&files), ["grün.csv"]);
        assert!(incomplete);
    }

    #[test]
    fn deep_folders_end_the_walk_and_not_the_walker() {
        let (folder, fd) = workspace();
        let mut path = folder.path().to_owned();
        for _ in 0..DEPTH_MAX + 2 {
            path.push("d");
        }
        fs::create_dir_all(&path).expect("folders");
        fs::write(path.join("deep.txt"), "x").expect("a file");
        fs::write(folder.path().join("top.txt"), "x").expect("a file");
        let (files, incomplete) = take_snapshot(&fd);
        assert_eq!(paths(&files), ["top.txt"]);
        assert!(incomplete);
    }

    #[test]
    fn a_file_is_told_when_it_is_new_or_changed_and_under_its_own_name() {
        let (folder, fd) = workspace();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file-1"), "a").expect("a file");
        fs::hard_link(at("file-1"), at("sales.csv")).expect("a link");
        let tags = HashSet::from(["file-1".to_owned()]);
        let before = take_snapshot(&fd).0;
        assert_eq!(changed_files(&before, &before, &tags, NO_LIMIT).0, []);

        fs::write(at("sales.csv"), "longer").expect("a file");
        fs::write(at("new.txt"), "x").expect("a file");
        let now = take_snapshot(&fd).0;
        let (mut files, dropped) = changed_files(&now, &before, &tags, NO_LIMIT);
        // Both may have the same modification time.
        files.sort_by_key(|file| file.size);
        assert_eq!(paths_of(&files), ["new.txt", "sales.csv"]);
        assert_eq!(files[1].size, 6);
        assert!(!dropped);
    }

    #[test]
    fn what_is_beyond_measure_is_dropped_and_said() {
        let (folder, fd) = workspace();
        for number in 0..5 {
            fs::write(folder.path().join(format!("{number}")), "ten bytes!").expect("a file");
        }
        let now = take_snapshot(&fd).0;
        let report = |files, bytes| {
            let limits = ReportLimits { files, bytes };
            changed_files(&now, &Snapshot::new(), &HashSet::new(), limits)
        };
        assert_eq!(report(5, 50).0.len(), 5);
        assert!(!report(5, 50).1);
        assert_eq!(report(2, 50).0.len(), 2);
        assert!(report(2, 50).1);
        assert_eq!(report(5, 35).0.len(), 3);
        assert!(report(5, 35).1);
    }
}
