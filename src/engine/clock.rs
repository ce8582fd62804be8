//! The clock that dates what a worker writes.

use std::time::Instant;

use crate::domain::Timestamp;

/// The database's time, continued by the monotonic clock of this process. Strictly increasing, so
/// that objects of one run are ordered by their dates.
#[derive(Debug)]
pub(super) struct Clock {
    base: Timestamp,
    base_instant: Instant,
    last: Timestamp,
}

impl Clock {
    pub(super) fn new(base: Timestamp) -> Self {
        Self {
            base,
            base_instant: Instant::now(),
            last: base,
        }
    }

    pub(super) fn now(&mut self) -> Timestamp {
        let elapsed = i64::try_from(self.base_instant.elapsed().as_micros()).unwrap_or(i64::MAX);
        let now = self.base + chrono::TimeDelta::microseconds(elapsed);
        self.last = now.max(self.last + chrono::TimeDelta::microseconds(1));
        self.last
    }
}
