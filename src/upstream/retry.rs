//! When a failed call is repeated, and after which pause.

use std::time::Duration;
use std::time::SystemTime;

use reqwest::header::HeaderMap;

use super::error::UpstreamError;

/// Pause before the first repetition; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause of our own choice.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Longest pause that an upstream may ask for; beyond it the call fails at once.
const LONGEST_REQUESTED_PAUSE: Duration = Duration::from_secs(60);

/// The pause before repetition number `retry` (0 is the first), or `None` when the error stands.
///
/// `jitter` in 0..1 takes up to half of the pause away, so that many callers do not come back at
/// the same moment. A pause that the upstream asked for is never shortened.
pub(super) fn pause(error: &UpstreamError, retry: u32, jitter: f64) -> Option<Duration> {
    match error.may_pass()? {
        Some(asked) if asked > LONGEST_REQUESTED_PAUSE => None,
        Some(asked) => Some(asked),
        None => {
            let pause = FIRST_PAUSE
                .saturating_mul(2_u32.saturating_pow(retry))
                .min(LONGEST_PAUSE);
            Some(pause.mul_f64(1.0 - jitter / 2.0))
        }
    }
}

/// The pause that an answer asks for: `retry-after-ms`, or `retry-after` in seconds or as a date.
pub(super) fn requested_pause(headers: &HeaderMap) -> Option<Duration> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let seconds = |text: &str, unit: f64| {
        let number = text.parse::<f64>().ok()?;
        Duration::try_from_secs_f64(number * unit).ok()
    };
    if let Some(pause) = header("retry-after-ms").and_then(|text| seconds(text, 0.001)) {
        return Some(pause);
    }
    let text = header("retry-after")?;
    seconds(text, 1.0).or_else(|| {
        let until = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        Some(
            SystemTime::from(until)
                .duration_since(SystemTime::now())
                .unwrap_or_default(),
        )
    })
}
