//! The processes of a session: whether they live, what they use, and their end.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use nix::unistd::SysconfVar;
use nix::unistd::sysconf;
use sandbox_protocol::Notice;
use tokio::io::unix::AsyncFd;

use crate::descriptors;
use crate::supervisor::cpu::BackgroundWatch;
use crate::supervisor::cpu::ProcessSample;
use crate::supervisor::cpu::Sanction;

/// What the shared pages of the warm interpreter may count beyond a session's own memory.
const WARM_BYTES: u64 = 128 << 20;

/// A session has fewer processes than this, or it is not worth counting on.
const PROCESSES_MAX: usize = 4096;

/// The processes of a session. They are killed when this is dropped.
pub struct Vitals {
    init: AsyncFd<OwnedFd>,
    python: OwnedFd,
    init_pid: i32,
    /// Whether the end of the init is the end of all.
    own_namespace: bool,
    memory_max: u64,
    killed: AtomicBool,
    out_of_memory: AtomicBool,
    /// Watches the processes between cells; `None` while a cell runs, and before the first.
    background: Mutex<Option<BackgroundWatch>>,
    /// What was done between cells and has not been reported yet.
    notice: Mutex<Option<Notice>>,
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
            killed: AtomicBool::new(false),
            out_of_memory: AtomicBool::new(false),
            background: Mutex::new(None),
            notice: Mutex::new(None),
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

    /// Whether it has neither ended nor been killed.
    pub fn alive(&self) -> bool {
        if self.killed.load(Ordering::Relaxed) {
            return false;
        }
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
        self.killed.store(true, Ordering::Relaxed);
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
    pub fn sample(&self) -> Vec<ProcessSample> {
        self.processes().into_iter().filter_map(sample_of).collect()
    }

    /// Whether `sample`, taken just now, is more memory than the session may have. Pages that
    /// processes share count once.
    pub fn exceeds_memory(&self, sample: &[ProcessSample]) -> bool {
        // This is cheap to read, and never less than the fair share.
        sample.iter().map(|process| process.memory).sum::<u64>() > self.memory_max
            && self.processes().into_iter().map(fair_share).sum::<u64>() > self.memory_max
    }

    /// A cell begins: its own limits hold from now on.
    pub fn begin_cell(&self) {
        *self.watch() = None;
    }

    /// A cell has ended, with this sample: until the next one begins, the processes may use
    /// `budget` of processor time.
    pub fn end_cell(&self, sample: &[ProcessSample], budget: Duration) {
        *self.watch() = Some(BackgroundWatch::new(sample, Instant::now(), budget));
    }

    /// Ends what uses too much: memory at any time, processors between cells. Gives back what was
    /// done.
    pub fn enforce_limits(&self) -> Option<Notice> {
        if !self.alive() {
            return None;
        }
        // Held to the end, so that no cell begins meanwhile and suffers for those before it.
        let mut watch = self.watch();
        let sample = self.sample();
        let between_cells = watch.is_some();
        let checked = watch.as_mut().map(|it| it.check(&sample, Instant::now()));
        let done = if self.exceeds_memory(&sample) {
            self.kill_for_memory();
            Notice::EndedForMemory
        } else {
            match checked.flatten()? {
                Sanction::KillProcesses => {
                    self.kill_descendants_of_python();
                    Notice::ProcessesKilled
                }
                Sanction::EndSession => {
                    self.kill();
                    Notice::EndedForCpu
                }
            }
        };
        if between_cells {
            *self.untold() = Some(done);
        }
        Some(done)
    }

    /// What was done between cells and not taken yet.
    pub fn take_notice(&self) -> Option<Notice> {
        self.untold().take()
    }

    fn watch(&self) -> MutexGuard<'_, Option<BackgroundWatch>> {
        self.background
            .lock()
            .expect("nothing panics while it holds this")
    }

    fn untold(&self) -> MutexGuard<'_, Option<Notice>> {
        self.notice
            .lock()
            .expect("nothing panics while it holds this")
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

fn sample_of(pid: i32) -> Option<ProcessSample> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, may hold anything; it ends in the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
    let ticks_per_second = setting(SysconfVar::CLK_TCK, 100);
    let time =
        |ticks: Option<u64>| Duration::from_millis(ticks.unwrap_or(0) * 1000 / ticks_per_second);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(ProcessSample {
        // The first field here is the third of proc(5), the state; times are in clock ticks.
        id: (pid, number(19)?),
        own: time(number(11)) + time(number(12)),
        children: time(number(13)) + time(number(14)),
        running: fields.first() == Some(&"R"),
        memory: kibibytes(&status, &["VmRSS:", "VmSwap:"]),
    })
}

/// Memory of a process in bytes, of which pages shared by several count in part.
fn fair_share(pid: i32) -> u64 {
    match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        Ok(text) => kibibytes(&text, &["Pss:", "SwapPss:"]),
        // It has ended, or keeps its maps to itself: then all of it counts.
        Err(_) => sample_of(pid).map_or(0, |process| process.memory),
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
