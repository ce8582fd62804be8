//! Concurrent callers that repeat an operation, and their results.

use crate::BenchError;
use crate::http::CallError;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// When the callers stop.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// After this time; operations in progress are completed and counted.
    For(Duration),
    /// After this many operations of all callers together.
    Times(usize),
}

/// The results of all callers.
pub(crate) struct Load<T> {
    /// The operations' values in no order.
    pub(crate) samples: Vec<T>,
    /// The duration of each operation in milliseconds.
    pub(crate) ms: Vec<f64>,
    elapsed: Duration,
}

impl<T> Load<T> {
    pub(crate) fn count(&self) -> usize {
        self.ms.len()
    }

    /// Operations per second.
    pub(crate) fn rate(&self) -> f64 {
        self.count() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Repeats an operation with `callers` concurrent callers, each of which performs one at a time.
///
/// The operation gets its number, counted from 0 over all callers. The first failure stops all.
pub(crate) async fn repeat<T, F, Fut>(
    callers: usize,
    bound: Bound,
    operation: F,
) -> Result<Load<T>, BenchError>
where
    T: Send + 'static,
    F: Fn(usize) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T, CallError>> + Send,
{
    let start = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (next, operation) = (next.clone(), operation.clone());
        tasks.spawn(async move {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let goes_on = match bound {
                    Bound::For(limit) => start.elapsed() < limit,
                    Bound::Times(limit) => number < limit,
                };
                if !goes_on {
                    return Ok::<_, CallError>(done);
                }
                let began = Instant::now();
                let sample = operation(number).await?;
                done.push((sample, began.elapsed().as_secs_f64() * 1e3));
            }
        });
    }
    let mut load = Load {
        samples: Vec::new(),
        ms: Vec::new(),
        elapsed: Duration::ZERO,
    };
    while let Some(joined) = tasks.join_next().await {
        let done = joined.expect("callers do not panic")?;
        load.samples.reserve(done.len());
        for (sample, ms) in done {
            load.samples.push(sample);
            load.ms.push(ms);
        }
    }
    load.elapsed = start.elapsed();
    if load.ms.is_empty() {
        return Err(BenchError::Nothing);
    }
    Ok(load)
}

/// The value that a `share` (0 to 1) of the samples does not exceed.
pub(crate) fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let found = sorted.get(rank.saturating_sub(1)).copied();
    found.unwrap_or(f64::NAN)
}

/// The median of the samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    percentile(samples, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_at_their_rank() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(median(&samples), 50.0);
        assert_eq!(percentile(&samples, 0.99), 99.0);
        assert_eq!(percentile(&samples, 1.0), 100.0);
        assert_eq!(percentile(&[3.0], 0.99), 3.0);
        assert!(median(&[]).is_nan());
    }
}
