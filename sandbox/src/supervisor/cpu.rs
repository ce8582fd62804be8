//! Processor time of a session, measured by samples, and the bound on what it uses between cells.

use std::collections::HashMap;
use std::thread::available_parallelism;
use std::time::Duration;
use std::time::Instant;

/// The longest time that a process is charged for having been seen running once.
const GUESS_MAX: Duration = Duration::from_secs(1);

/// What a session may still use between cells after its processes were killed. If it uses more, the
/// notebook's own process is at work, or starts others again and again.
const LAST_ALLOWANCE: Duration = Duration::from_secs(1);

/// What one sample says of one process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessSample {
    /// Its number and the time of its start, which no other process shares.
    pub id: (i32, u64),
    /// Processor time of its own threads.
    pub own: Duration,
    /// Processor time of the children that it has waited for.
    pub children: Duration,
    /// Whether it was on a processor or ready for one.
    pub running: bool,
    /// Memory in bytes, resident or swapped out; pages that processes share count for each.
    pub memory: u64,
}

/// Adds up the processor time of a session from samples of its processes.
///
/// The kernel keeps no sum: where a parent ignores the ends of its children, their time is lost
/// with them. So a process that the last sample did not have and that is running in this one
/// stands for a chain of short-lived ones, and is charged the time between the two samples.
#[derive(Debug)]
pub struct CpuMeter {
    taken: Instant,
    total: Duration,
    own: HashMap<(i32, u64), Duration>,
    used: Duration,
}

/// Watches a session between two cells.
#[derive(Debug)]
pub struct BackgroundWatch {
    meter: CpuMeter,
    allowance: Duration,
    processes_killed: bool,
}

/// What is to be done about a session between cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sanction {
    /// End the processes that cells have left behind.
    KillProcesses,
    /// End the session.
    EndSession,
}

impl CpuMeter {
    /// Counts from this sample on.
    pub fn new(sample: &[ProcessSample], now: Instant) -> Self {
        Self {
            taken: now,
            total: total(sample),
            own: own_times(sample),
            used: Duration::ZERO,
        }
    }

    /// Adds what was used since the last sample.
    pub fn add(&mut self, sample: &[ProcessSample], now: Instant) {
        let elapsed = now.duration_since(self.taken);
        let (mut seen, mut guessed) = (Duration::ZERO, Duration::ZERO);
        for process in sample {
            match self.own.get(&process.id) {
                Some(&before) => seen += process.own.saturating_sub(before),
                None if process.running => guessed += process.own.max(elapsed.min(GUESS_MAX)),
                None => seen += process.own,
            }
        }
        let processors = available_parallelism().map_or(1, |number| number.get() as u32);
        seen += guessed.min(elapsed.saturating_mul(processors));
        // Each of the two misses something: this one processes that have ended, that one those
        // whose parents ignored it.
        let total = total(sample);
        self.used += seen.max(total.saturating_sub(self.total));
        self.total = total;
        self.own = own_times(sample);
        self.taken = now;
    }

    /// Processor time since the first sample.
    pub fn used(&self) -> Duration {
        self.used
    }
}

impl BackgroundWatch {
    /// Watches a session that may use `budget` until its next cell.
    pub fn new(sample: &[ProcessSample], now: Instant, budget: Duration) -> Self {
        Self {
            meter: CpuMeter::new(sample, now),
            allowance: budget,
            processes_killed: false,
        }
    }

    /// Adds a sample, and decides.
    pub fn check(&mut self, sample: &[ProcessSample], now: Instant) -> Option<Sanction> {
        self.meter.add(sample, now);
        let used = self.meter.used();
        if used <= self.allowance {
            return None;
        }
        if self.processes_killed {
            return Some(Sanction::EndSession);
        }
        self.processes_killed = true;
        self.allowance = used + LAST_ALLOWANCE;
        Some(Sanction::KillProcesses)
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

    /// What a meter counts over these samples, one second apart.
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
        assert_eq!(check(5), Some(Sanction::KillProcesses));
        assert_eq!(check(6), None);
        assert_eq!(check(7), Some(Sanction::EndSession));
    }
}
