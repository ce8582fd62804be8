//! One clock for all processes of a benchmark.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds on the machine's monotonic clock.
///
/// All processes of the machine share this clock, so times of the fake upstream and of the load
/// generator can be subtracted.
pub(crate) fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux always has this clock");
    let seconds = u64::try_from(time.tv_sec()).expect("the monotonic clock counts from boot");
    let nanos = u64::try_from(time.tv_nsec()).expect("nanoseconds are never negative");
    seconds * 1_000_000_000 + nanos
}

/// Milliseconds from one reading of [`now_ns`] to a later one; negative when they are swapped.
pub(crate) fn ms_between(earlier_ns: u64, later_ns: u64) -> f64 {
    (later_ns as f64 - earlier_ns as f64) / 1e6
}
