//! The processes of a session: liveness, resource use and termination.

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
use crate::supervisor::cpu::CpuAction;
use crate::supervisor::cpu::ProcessSample;

/// Allowance for shared pages of the zygote, which count in addition to a session's own memory.
const SHARED_BYTES: u64 = 128 << 20;

/// Maximum number of processes that are examined; sessions are limited to fewer.
const PROCESSES_MAX: usize = 4096;

/// The processes of a session. Dropping this kills them.
pub struct SessionProcesses {
    init: AsyncFd<OwnedFd>,
    python: OwnedFd,
    init_pid: i32,
    /// Whether the kernel kills all processes when the init ends.
    own_namespace: bool,
    memory_max: u64,
    killed: AtomicBool,
    out_of_memory: AtomicBool,
    /// Measures CPU use between cells; `None` while a cell runs and before the first one.
    background: Mutex<Option<BackgroundWatch>>,
    /// What was done between cells and is not reported yet.
    notice: Mutex<Option<Notice>>,
}

impl SessionProcesses {
    /// The processes below the pidfds `init` and `python`, which may use `memory` bytes.
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
            memory_max: memory.saturating_add(SHARED_BYTES),
            killed: AtomicBool::new(false),
            out_of_memory: AtomicBool::new(false),
            background: Mutex::new(None),
            notice: Mutex::new(None),
        })
    }

    /// The id of the Python process in this process's namespace.
    pub fn python_pid(&self) -> io::Result<i32> {
        pid_of(&self.python)
    }

    /// Waits until the init has ended.
    pub async fn ended(&self) {
        // An error means that the runtime is shutting down.
        let _ = self.init.readable().await;
    }

    /// Whether the session has neither ended nor been killed.
    pub fn is_alive(&self) -> bool {
        if self.killed.load(Ordering::Relaxed) {
            return false;
        }
        let mut polled = [PollFd::new(self.init.get_ref().as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut polled, PollTimeout::ZERO), Ok(0))
    }

    /// Sends SIGINT to the Python process.
    pub fn interrupt(&self) {
        // Fails only if the process has ended.
        let _ = descriptors::signal_process(&self.python, Signal::SIGINT);
    }

    /// Kills all processes.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        if !self.own_namespace {
            self.kill_all_but(&[self.init_pid]);
        }
        // Fails only if the init has ended.
        let _ = descriptors::signal_process(self.init.get_ref(), Signal::SIGKILL);
    }

    /// Kills the programs that the Python process has started.
    pub fn kill_descendants_of_python(&self) {
        let python = self.python_pid().unwrap_or(self.init_pid);
        self.kill_all_but(&[self.init_pid, python]);
    }

    /// Kills all processes because they exceed the memory limit.
    pub fn kill_for_memory(&self) {
        self.out_of_memory.store(true, Ordering::Relaxed);
        self.kill();
    }

    /// Whether the session was killed because of the memory limit.
    pub fn was_out_of_memory(&self) -> bool {
        self.out_of_memory.load(Ordering::Relaxed)
    }

    /// Measures the current resource use of each process.
    pub fn sample(&self) -> Vec<ProcessSample> {
        self.pids().into_iter().filter_map(sample_of).collect()
    }

    /// Whether the session uses more memory than it may. `sample` must be a current one. Pages that
    /// processes share count once.
    pub fn exceeds_memory(&self, sample: &[ProcessSample]) -> bool {
        // The resident size is cheap to read, and never less than the proportional one.
        sample.iter().map(|process| process.memory).sum::<u64>() > self.memory_max
            && self
                .pids()
                .into_iter()
                .map(proportional_memory)
                .sum::<u64>()
                > self.memory_max
    }

    /// Stops measuring: a running cell has limits of its own.
    pub fn begin_cell(&self) {
        *self.lock_background() = None;
    }

    /// Starts measuring from `sample`: until the next cell, the processes may use `budget` of CPU
    /// time.
    pub fn end_cell(&self, sample: &[ProcessSample], budget: Duration) {
        *self.lock_background() = Some(BackgroundWatch::new(sample, Instant::now(), budget));
    }

    /// Enforces the memory limit, and between cells the CPU limit. Returns what was done.
    pub fn enforce_limits(&self) -> Option<Notice> {
        if !self.is_alive() {
            return None;
        }
        // Held to the end, so that no cell starts meanwhile and is killed for its predecessors.
        let mut watch = self.lock_background();
        let sample = self.sample();
        let between_cells = watch.is_some();
        let exceeded = watch.as_mut().map(|it| it.check(&sample, Instant::now()));
        let notice = if self.exceeds_memory(&sample) {
            self.kill_for_memory();
            Notice::EndedForMemory
        } else {
            match exceeded.flatten()? {
                CpuAction::KillProcesses => {
                    self.kill_descendants_of_python();
                    Notice::ProcessesKilled
                }
                CpuAction::EndSession => {
                    self.kill();
                    Notice::EndedForCpu
                }
            }
        };
        if between_cells {
            *self.lock_notice() = Some(notice);
        }
        Some(notice)
    }

    /// Takes the notice that is not reported yet.
    pub fn take_notice(&self) -> Option<Notice> {
        self.lock_notice().take()
    }

    fn lock_background(&self) -> MutexGuard<'_, Option<BackgroundWatch>> {
        self.background
            .lock()
            .expect("no code panics while it holds this lock")
    }

    fn lock_notice(&self) -> MutexGuard<'_, Option<Notice>> {
        self.notice
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// The ids of the init and all its descendants in this process's namespace.
    fn pids(&self) -> Vec<i32> {
        let mut pids = vec![self.init_pid];
        let mut next = 0;
        while next < pids.len() && pids.len() < PROCESSES_MAX {
            pids.extend(children(pids[next]));
            next += 1;
        }
        pids
    }

    /// Kills all descendants of the init except `spared`. Orphans become children of the init, so
    /// none is missed. Repeats up to 100 times, because processes may fork meanwhile.
    fn kill_all_but(&self, spared: &[i32]) {
        for _ in 0..100 {
            let mut targets = self.pids();
            targets.retain(|pid| !spared.contains(pid) && !is_zombie(*pid));
            if targets.is_empty() {
                return;
            }
            for pid in targets {
                // Fails only if the process has ended.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

impl Drop for SessionProcesses {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The id of the process of a pidfd.
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

/// Whether a process has ended but was not reaped yet.
fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.starts_with(" Z"))
    })
}

fn sample_of(pid: i32) -> Option<ProcessSample> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program name, may contain anything; it ends at the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
    let ticks_per_second = sysconf_or(SysconfVar::CLK_TCK, 100);
    let time =
        |ticks: Option<u64>| Duration::from_millis(ticks.unwrap_or(0) * 1000 / ticks_per_second);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(ProcessSample {
        // Field 0 here is field 3 (state) of proc(5); times are in clock ticks.
        id: (pid, number(19)?),
        own: time(number(11)) + time(number(12)),
        children: time(number(13)) + time(number(14)),
        running: fields.first() == Some(&"R"),
        memory: sum_kibibytes(&status, &["VmRSS:", "VmSwap:"]),
    })
}

/// Memory of a process in bytes, in which shared pages count proportionally (PSS).
fn proportional_memory(pid: i32) -> u64 {
    match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        Ok(text) => sum_kibibytes(&text, &["Pss:", "SwapPss:"]),
        // The process has ended or is not readable; then its resident size counts.
        Err(_) => sample_of(pid).map_or(0, |process| process.memory),
    }
}

/// Sums these fields of a `/proc` file, which are in KiB, and returns bytes.
fn sum_kibibytes(text: &str, fields: &[&str]) -> u64 {
    text.lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map(|kib| kib.saturating_mul(1024))
        .sum()
}

fn sysconf_or(variable: SysconfVar, default: u64) -> u64 {
    sysconf(variable)
        .ok()
        .flatten()
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(default)
}
