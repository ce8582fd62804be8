//! Pauses between attempts at the same job.

use std::time::Duration;

/// A schedule of pauses: one for each number of failures; the last one repeats.
#[derive(Debug, Clone, Copy)]
pub struct Backoff(&'static [Duration]);

impl Backoff {
    /// `pauses` must not be empty, so a constant without any does not compile.
    pub const fn new(pauses: &'static [Duration]) -> Self {
        assert!(!pauses.is_empty(), "a schedule has at least one pause");
        Self(pauses)
    }

    /// The pause after this many earlier failures. Up to a tenth is added at random, so that jobs
    /// that failed together do not return together. Whole seconds: PostgreSQL rejects intervals
    /// finer than a microsecond.
    pub fn pause(self, failures: i32) -> Duration {
        let step = usize::try_from(failures).unwrap_or_default();
        let pause = self.0[step.min(self.0.len() - 1)].as_secs();
        Duration::from_secs(pause + rand::random_range(0..=pause / 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_follow_the_schedule_and_repeat_its_last_one() {
        const BACKOFF: Backoff = Backoff::new(&[Duration::from_secs(1), Duration::from_secs(600)]);
        assert_eq!(BACKOFF.pause(-1), Duration::from_secs(1));
        assert_eq!(BACKOFF.pause(0), Duration::from_secs(1));
        for failures in [1, 2, i32::MAX] {
            let pause = BACKOFF.pause(failures).as_secs();
            assert!((600..=660).contains(&pause), "{failures}: {pause}");
        }
    }
}
