//! CPU time and memory of processes from `/proc`, and child processes that end with the benchmark.

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::process::Child;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Clock ticks per second in `/proc`, a constant of Linux.
const TICKS: u64 = 100;

/// The fields of `/proc/<pid>/stat` that the benchmark needs.
struct Stat {
    name: String,
    parent: i32,
    /// Ticks used by the process itself.
    own: u64,
    /// Ticks used by children that have ended.
    ended_children: u64,
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have any character, so fields are counted from its end.
    let (head, tail) = text.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some(Stat {
        name: head.split_once('(')?.1.to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(11)? + ticks(12)?,
        ended_children: ticks(13)? + ticks(14)?,
    })
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1_000 / TICKS)
}

/// CPU time of a process without its children. Zero if it does not exist.
pub(crate) fn cpu(pid: Pid) -> Duration {
    stat(pid).map_or(Duration::ZERO, |stat| time(stat.own))
}

/// CPU time of a process and of all its children, ended ones included.
pub(crate) fn cpu_with_children(parent: Pid) -> Duration {
    let Some(own) = stat(parent) else {
        return Duration::ZERO;
    };
    let children = children(parent).into_iter().filter_map(stat);
    time(own.own + own.ended_children + children.map(|child| child.own).sum::<u64>())
}

/// CPU time of the machine, without idle and stolen time.
pub(crate) fn cpu_of_machine() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let first = text.lines().next().unwrap_or_default();
    let field = |n| -> u64 {
        let word = first.split_ascii_whitespace().nth(n);
        word.and_then(|word| word.parse().ok()).unwrap_or_default()
    };
    // user, nice, system, irq, softirq
    Ok(time([1, 2, 3, 6, 7].map(field).iter().sum()))
}

/// The child processes of `parent`.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let all = all().into_iter();
    all.filter(|(_, stat)| stat.parent == parent.as_raw())
        .map(|(pid, _)| pid)
        .collect()
}

/// All processes of the machine.
fn all() -> Vec<(Pid, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.map(Pid::from_raw)
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect()
}

/// A process, its children, their children, and so on.
pub(crate) fn tree(root: Pid) -> Vec<Pid> {
    let all = all();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        let children = all
            .iter()
            .filter(|(_, stat)| stat.parent == parent.as_raw());
        tree.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// CPU time of processes that have no part in the benchmark, including their ended children.
///
/// Subtracting the benchmark's CPU time from [`cpu_of_machine`] would count processes of the benchmark
/// that end without being measured.
pub(crate) fn cpu_of_other_processes() -> Duration {
    let other_processes = other_processes().into_iter();
    time(
        other_processes
            .map(|(_, stat)| stat.own + stat.ended_children)
            .sum(),
    )
}

/// All processes except this one, its descendants, and kernel threads.
fn other_processes() -> Vec<(Pid, Stat)> {
    /// The parent of all kernel threads.
    const KTHREADD: Pid = Pid::from_raw(2);
    let known = [tree(Pid::this()), tree(KTHREADD)].concat();
    let mut all = all();
    all.retain(|(pid, _)| !known.contains(pid));
    all
}

/// The proportional set size of these processes in MiB; `None` without permission to read it.
pub(crate) fn pss_mib(processes: &[Pid]) -> Option<f64> {
    let kib = processes.iter().map(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim_end_matches("kB").trim().parse::<f64>().ok()
    });
    Some(kib.sum::<Option<f64>>()? / 1024.0)
}

/// The parent of a process whose name is `name`; `None` for any other process.
pub(crate) fn parent_of(pid: Pid, name: &str) -> Option<Pid> {
    let stat = stat(pid).filter(|stat| stat.name == name)?;
    Some(Pid::from_raw(stat.parent))
}

/// Resident memory of a process in MiB: current, and peak since [`reset_peak`].
pub(crate) fn memory_mib(pid: Pid) -> Option<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        Some(kib / 1024.0)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

/// Resets the peak of a process's resident memory.
pub(crate) fn reset_peak(pid: Pid) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// A child process that is stopped on drop.
pub(crate) struct ChildProcess {
    child: Child,
}

impl ChildProcess {
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy();
            io::Error::new(error.kind(), format!("cannot start {program}: {error}"))
        })?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The exit status; `None` while the process runs.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(status.to_string())
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// Sends SIGTERM, and SIGKILL after twenty seconds.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        kill(self.pid(), Signal::SIGTERM)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.ended().is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.kill()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("could not stop process {}: {error}", self.pid());
        }
    }
}

/// Processes that are suspended until this is dropped.
pub(crate) struct Paused(Vec<Pid>);

impl Paused {
    /// Suspends a process and its children.
    pub(crate) fn family(parent: Pid) -> nix::Result<Self> {
        // The parent first, so that it forks no further child.
        kill(parent, Signal::SIGSTOP)?;
        let mut paused = Self(vec![parent]);
        for child in children(parent) {
            // Fails for a process that has just ended.
            if kill(child, Signal::SIGSTOP).is_ok() {
                paused.0.push(child);
            }
        }
        Ok(paused)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        for pid in &self.0 {
            // Fails for a process that has ended.
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_with_their_memory_and_are_no_strangers() {
        let mut command = Command::new("sleep");
        let child = ChildProcess::start(command.arg("60")).expect("every system has it");
        assert!(tree(Pid::this()).contains(&child.pid()));
        let [one, both] = [&[child.pid()][..], &[child.pid(), Pid::this()]].map(pss_mib);
        assert!(Some(0.0) < one && one < both, "{one:?} {both:?}");
        let other_processes: Vec<Pid> = other_processes().into_iter().map(|(pid, _)| pid).collect();
        assert!(
            !other_processes.contains(&child.pid()) && other_processes.contains(&Pid::from_raw(1))
        );
    }
}
