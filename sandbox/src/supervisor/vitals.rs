//! The processes of a session: whether they live, what they use, and their end.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use nix::unistd::SysconfVar;
use nix::unistd::sysconf;
use tokio::io::unix::AsyncFd;

use crate::descriptors;

/// What the shared pages of the warm interpreter may count beyond a session's own memory.
const WARM_BYTES: u64 = 128 << 20;

/// A session has fewer processes than this, or it is not worth counting on.
const PROCESSES_MAX: usize = 4096;

/// What a session's processes use, together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time so far.
    pub cpu: Duration,
    /// Memory in bytes, resident or swapped out; pages that processes share count for each.
    pub memory: u64,
}

/// The processes of a session. They are killed when this is dropped.
pub struct Vitals {
    init: AsyncFd<OwnedFd>,
    python: OwnedFd,
    init_pid: i32,
    /// Whether the end of the init is the end of all.
    own_namespace: bool,
    memory_max: u64,
    out_of_memory: AtomicBool,
}

impl Vitals {
    /// The processes of the session with these two, which may use `memory` bytes.
    pub fn new(
        init: OwnedFd,
        python: OwnedFd,
        own_namespace: bool,
        memory: u64,
    ) -> io::Result<Self> {
        let init_pid = pid_of(&init)?;
        Ok(Self {
            init: descriptors::watch(init)?,
            python,
            init_pid,
            own_namespace,
            memory_max: memory.saturating_add(WARM_BYTES),
            out_of_memory: AtomicBool::new(false),
        })
    }

    /// The id of the process that runs Python, as this process's namespace counts.
    pub fn python_pid(&self) -> io::Result<i32> {
        pid_of(&self.python)
    }

    /// Waits until the session has ended.
    pub async fn ended(&self) {
        // An error means that the runtime is shutting down, and everything ends.
        let _ = self.init.readable().await;
    }

    /// Whether it has not ended.
    pub fn alive(&self) -> bool {
        let mut polled = [PollFd::new(self.init.get_ref().as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut polled, PollTimeout::ZERO), Ok(0))
    }

    /// Interrupts what Python does.
    pub fn interrupt(&self) {
        // If it has ended, there is nothing to interrupt.
        let _ = descriptors::signal_process(&self.python, Signal::SIGINT);
    }

    /// Ends all processes at once.
    pub fn kill(&self) {
        if !self.own_namespace {
            self.kill_all_but(&[self.init_pid]);
        }
        // If it has ended, there is nothing to kill.
        let _ = descriptors::signal_process(self.init.get_ref(), Signal::SIGKILL);
    }

    /// Ends whatever Python has started.
    pub fn kill_descendants_of_python(&self) {
        let python = self.python_pid().unwrap_or(self.init_pid);
        self.kill_all_but(&[self.init_pid, python]);
    }

    /// Ends all processes because they use too much memory.
    pub fn kill_for_memory(&self) {
        self.out_of_memory.store(true, Ordering::Relaxed);
        self.kill();
    }

    /// Whether the session was killed for its use of memory.
    pub fn was_out_of_memory(&self) -> bool {
        self.out_of_memory.load(Ordering::Relaxed)
    }

    /// What the processes use now.
    pub fn usage(&self) -> Usage {
        self.processes()
            .into_iter()
            .filter_map(usage_of)
            .fold(Usage::default(), |sum, one| Usage {
                cpu: sum.cpu + one.cpu,
                memory: sum.memory + one.memory,
            })
    }

    /// Whether `usage`, taken just now, is more memory than the session may have. Pages that
    /// processes share count once.
    pub fn exceeds_memory(&self, usage: Usage) -> bool {
        // This is cheap to read, and never less than the fair share.
        usage.memory > self.memory_max
            && self.processes().into_iter().map(fair_share).sum::<u64>() > self.memory_max
    }

    /// The init and everything below it, as this process's namespace counts.
    fn processes(&self) -> Vec<i32> {
        let mut found = vec![self.init_pid];
        let mut next = 0;
        while next < found.len() && found.len() < PROCESSES_MAX {
            found.extend(children(found[next]));
            next += 1;
        }
        found
    }

    /// Orphans become children of the init, so what is below it is everything. What grows while
    /// it is killed is killed again, for a while.
    fn kill_all_but(&self, spared: &[i32]) {
        for _ in 0..100 {
            let mut below = self.processes();
            below.retain(|pid| !spared.contains(pid) && !is_zombie(*pid));
            if below.is_empty() {
                return;
            }
            for pid in below {
                // It may have ended in between.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The id of a process that is held by descriptor.
fn pid_of(process: &OwnedFd) -> io::Result<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|pid| pid.trim().parse().ok())
        .filter(|&pid| pid > 0)
        .ok_or_else(|| io::Error::other("the process has no id here"))
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a process has ended and only waits to be buried.
fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.starts_with(" Z"))
    })
}

fn usage_of(pid: i32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, may hold anything; it ends in the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
    // Times of the process itself and of children it has buried, in clock ticks: fields 14 to 17.
    let ticks = (11..15).filter_map(number).sum::<u64>();
    let ticks_per_second = setting(SysconfVar::CLK_TCK, 100);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage {
        cpu: Duration::from_millis(ticks * 1000 / ticks_per_second),
        memory: kibibytes(&status, &["VmRSS:", "VmSwap:"]),
    })
}

/// Memory of a process in bytes, of which pages shared by several count in part.
fn fair_share(pid: i32) -> u64 {
    match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        Ok(text) => kibibytes(&text, &["Pss:", "SwapPss:"]),
        // It has ended, or keeps its maps to itself: then all of it counts.
        Err(_) => usage_of(pid).map_or(0, |usage| usage.memory),
    }
}

/// The sum of these fields in bytes; each is a line of its own, in KiB.
fn kibibytes(text: &str, fields: &[&str]) -> u64 {
    text.lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map(|kib| kib.saturating_mul(1024))
        .sum()
}

fn setting(variable: SysconfVar, usual: u64) -> u64 {
    sysconf(variable)
        .ok()
        .flatten()
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(usual)
}
