//! CPU time of a session, measured by samples, and its limit between cells.

use std::collections::HashMap;
use std::thread::available_parallelism;
use std::time::Duration;
use std::time::Instant;

/// Maximum CPU time charged to a process that was seen running in a single sample.
const ESTIMATE_MAX: Duration = Duration::from_secs(1);

/// CPU time that a session may use between cells after its programs were killed. If it uses more,
/// the Python process itself is busy, or it keeps starting programs.
const FINAL_ALLOWANCE: Duration = Duration::from_secs(1);

/// Resource use of one process at one time.
#[derive(Debug, Clone, Copy)]
pub struct ProcessSample {
    /// Process id and start time, which together are unique.
    pub id: (i32, u64),
    /// CPU time of its own threads.
    pub own: Duration,
    /// CPU time of the children that it has waited for.
    pub children: Duration,
    /// Whether it was runnable.
    pub running: bool,
    /// Resident and swapped memory in bytes; shared pages count fully.
    pub memory: u64,
}

/// Adds up the CPU time of a session from samples of its processes.
///
/// The kernel keeps no total: the time of children whose parent ignores SIGCHLD is lost. Therefore
/// a new process that is running in a sample counts as a chain of short-lived ones, and is charged
/// the time since the previous sample.
#[derive(Debug)]
pub struct CpuMeter {
    sampled_at: Instant,
    /// Sum over all processes of the last sample, waited-for children included.
    total: Duration,
    /// Own CPU time of each process of the last sample.
    own: HashMap<(i32, u64), Duration>,
    used: Duration,
}

/// Enforces the CPU limit of a session while no cell is running.
#[derive(Debug)]
pub struct BackgroundWatch {
    meter: CpuMeter,
    allowance: Duration,
    processes_killed: bool,
}

/// What to do about a session that exceeds its CPU limit between cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuAction {
    /// Kill the programs that cells have started.
    KillProcesses,
    /// End the session.
    EndSession,
}

impl CpuMeter {
    /// Starts counting at this sample.
    pub fn new(sample: &[ProcessSample], now: Instant) -> Self {
        Self {
            sampled_at: now,
            total: total(sample),
            own: own_times(sample),
            used: Duration::ZERO,
        }
    }

    /// Adds the CPU time since the previous sample.
    pub fn add(&mut self, sample: &[ProcessSample], now: Instant) {
        let elapsed = now.duration_since(self.sampled_at);
        let (mut measured, mut estimated) = (Duration::ZERO, Duration::ZERO);
        for process in sample {
            match self.own.get(&process.id) {
                Some(&before) => measured += process.own.saturating_sub(before),
                None if process.running => estimated += process.own.max(elapsed.min(ESTIMATE_MAX)),
                None => measured += process.own,
            }
        }
        let processors = available_parallelism().map_or(1, |number| number.get() as u32);
        measured += estimated.min(elapsed.saturating_mul(processors));
        // Both are lower bounds: `measured` misses processes that have ended, `total` those whose
        // parent ignores SIGCHLD.
        let total = total(sample);
        self.used += measured.max(total.saturating_sub(self.total));
        self.total = total;
        self.own = own_times(sample);
        self.sampled_at = now;
    }

    /// CPU time since the first sample.
    pub fn used(&self) -> Duration {
        self.used
    }
}

impl BackgroundWatch {
    /// Starts measuring a session that may use `budget` of CPU time until its next cell.
    pub fn new(sample: &[ProcessSample], now: Instant, budget: Duration) -> Self {
        Self {
            meter: CpuMeter::new(sample, now),
            allowance: budget,
            processes_killed: false,
        }
    }

    /// Adds a sample, and returns the action if the limit is exceeded.
    pub fn check(&mut self, sample: &[ProcessSample], now: Instant) -> Option<CpuAction> {
        self.meter.add(sample, now);
        let used = self.meter.used();
        if used <= self.allowance {
            return None;
        }
        if self.processes_killed {
            return Some(CpuAction::EndSession);
        }
        self.processes_killed = true;
        self.allowance = used + FINAL_ALLOWANCE;
        Some(CpuAction::KillProcesses)
    }
}

fn total(sample: &[ProcessSample]) -> Duration {
    let times = sample.iter().map(|process| process.own + process.children);
    times.sum()
}

fn own_times(sample: &[ProcessSample]) -> HashMap<(i32, u64), Duration> {
    let times = sample.iter().map(|process| (process.id, process.own));
    times.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn process(pid: i32, own: u64, children: u64, running: bool) -> ProcessSample {
        ProcessSample {
            id: (pid, 1),
            own: Duration::from_millis(own),
            children: Duration::from_millis(children),
            running,
            memory: 0,
        }
    }

    /// The CPU time in milliseconds that a meter counts over these samples, one second apart.
    fn measure(samples: &[&[ProcessSample]]) -> u128 {
        let start = Instant::now();
        let mut meter = CpuMeter::new(samples[0], start);
        for (sample, number) in samples[1..].iter().zip(1..) {
            meter.add(sample, start + SECOND * number);
        }
        meter.used().as_millis()
    }

    #[test]
    fn time_is_counted_once_whether_a_process_lives_or_was_waited_for() {
        let parent = |children| process(1, 100, children, false);
        let child = |own, running| process(2, own, 0, running);
        let known: [&[_]; 4] = [
            &[parent(0), child(300, true)],
            &[parent(0), child(1_200, true)],
            &[parent(1_500)],
            &[parent(1_500)],
        ];
        assert_eq!(measure(&known), 1_200);
    }

    #[test]
    fn a_chain_of_short_lived_processes_is_counted_though_nobody_waits_for_them() {
        let parent = process(1, 100, 0, false);
        let samples: Vec<[ProcessSample; 2]> = (2..8)
            .map(|pid| [parent, process(pid, 40, 0, true)])
            .collect();
        let samples: Vec<&[ProcessSample]> = samples.iter().map(|it| &it[..]).collect();
        assert_eq!(measure(&samples), 5_000);
    }

    #[test]
    fn new_processes_that_wait_and_are_quiet_cost_what_they_have_used() {
        let parent = process(1, 100, 0, false);
        let started: [&[_]; 3] = [
            &[parent],
            &[parent, process(2, 40, 0, false)],
            &[parent, process(2, 50, 0, true)],
        ];
        assert_eq!(measure(&started), 50);
    }

    #[test]
    fn processes_are_killed_at_the_budget_and_the_session_where_that_does_not_help() {
        let start = Instant::now();
        let sample = |seconds: u64| [process(1, seconds * 1_000, 0, true)];
        let mut watch = BackgroundWatch::new(&sample(50), start, 3 * SECOND);
        let mut check =
            |used: u64| watch.check(&sample(50 + used), start + Duration::from_secs(used));
        assert_eq!(check(3), None);
        assert_eq!(check(5), Some(CpuAction::KillProcesses));
        assert_eq!(check(6), None);
        assert_eq!(check(7), Some(CpuAction::EndSession));
    }
}
