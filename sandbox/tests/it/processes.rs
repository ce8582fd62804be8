//! The processes of a worker as the kernel lists them in `/proc`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

/// A process, identified by its id and start time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub pid: i32,
    started: u64,
    parent: i32,
    /// `comm`, what `prctl(PR_SET_NAME)` sets.
    pub name: String,
    zombie: bool,
}

fn read_process(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (head, tail) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split(' ').collect();
    Some(Process {
        pid,
        started: fields.get(19)?.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        name,
        zombie: *fields.first()? == "Z",
    })
}

/// Every process in `/proc`.
fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .filter_map(|entry| read_process(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect()
}

impl Process {
    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        read_process(self.pid).is_some_and(|now| now.started == self.started && !now.zombie)
    }

    pub fn is_child_of(&self, pid: i32) -> bool {
        self.parent == pid
    }

    /// A field of `/proc/PID/status`.
    pub fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.strip_prefix(':'))
            .unwrap_or_else(|| panic!("{field} of {self:?}"))
            .trim()
            .to_owned()
    }

    /// The targets of its file descriptors, by number.
    pub fn descriptors(&self) -> BTreeMap<i32, PathBuf> {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else {
            return BTreeMap::new();
        };
        entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some((number, fs::read_link(entry.path()).ok()?))
            })
            .collect()
    }

    /// The content of a file in `/proc/PID`.
    pub fn proc(&self, file: &str) -> String {
        let content = fs::read(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&content).into_owned()
    }

    /// Its namespaces, such as `net:[4026531840]`.
    pub fn namespaces(&self) -> BTreeSet<PathBuf> {
        ["net", "mnt", "pid", "ipc", "uts", "user", "cgroup"]
            .iter()
            .filter_map(|kind| fs::read_link(format!("/proc/{}/ns/{kind}", self.pid)).ok())
            .collect()
    }
}

/// The process with this id.
pub fn process(pid: i32) -> Process {
    read_process(pid).unwrap_or_else(|| panic!("process {pid} has ended"))
}

/// The process `pid` and all its descendants, without zombies.
pub fn tree(pid: i32) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = all.iter().filter(|one| one.pid == pid).cloned().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|one| one.pid) {
        found.extend(
            all.iter()
                .filter(|one| one.parent == parent && !one.zombie)
                .cloned(),
        );
        next += 1;
    }
    found
}

/// The only descendant of `pid` with this name.
pub fn named(pid: i32, name: &str) -> Process {
    let found: Vec<Process> = tree(pid)
        .into_iter()
        .filter(|one| one.name == name)
        .collect();
    assert_eq!(found.len(), 1, "processes named {name}: {found:?}");
    found
        .into_iter()
        .next()
        .expect("the length was just checked")
}

/// Python code that sets the name (`comm`) of the session's process, by which it can be found.
pub fn set_process_name(name: &str) -> String {
    assert!(name.len() < 16, "the kernel keeps 15 bytes");
    format!("import ctypes; ctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\n")
}

/// Waits until `condition` holds. Fails after 30 seconds.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(Duration::from_secs(30), what, condition);
}

/// Waits until `condition` holds. Fails after `limit`.
#[track_caller]
pub fn eventually_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
