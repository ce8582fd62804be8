//! Retries: which failures are retried, and after which delay.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;

use super::error::UpstreamError;

/// Delay before the first retry; it doubles each time, up to [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(8);
/// Longest delay that an upstream may ask for; beyond it the call fails at once.
const MAX_REQUESTED_DELAY: Duration = Duration::from_secs(60);

/// The delay before a retry, or `None` if the failure is final. `retry` counts from 0.
///
/// `jitter` in 0..1 shortens the delay by up to half, so that many callers do not retry at the same
/// moment. A delay that the upstream asked for is never shortened.
pub(super) fn delay(error: &UpstreamError, retry: u32, jitter: f64) -> Option<Duration> {
    match error.retry_after()? {
        Some(requested) if requested > MAX_REQUESTED_DELAY => None,
        Some(requested) => Some(requested),
        None => {
            let delay = FIRST_DELAY
                .saturating_mul(2_u32.saturating_pow(retry))
                .min(MAX_DELAY);
            Some(delay.mul_f64(1.0 - jitter / 2.0))
        }
    }
}

/// The delay that a response asks for: `retry-after-ms`, or `retry-after` in seconds or as a date.
pub(super) fn requested_delay(headers: &HeaderMap) -> Option<Duration> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let seconds = |text: &str, unit: f64| {
        let number = text.parse::<f64>().ok()?;
        Duration::try_from_secs_f64(number * unit).ok()
    };
    if let Some(delay) = header("retry-after-ms").and_then(|text| seconds(text, 0.001)) {
        return Some(delay);
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

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn rate_limited(retry_after: Option<Duration>) -> UpstreamError {
        UpstreamError::RateLimited {
            message: String::new(),
            retry_after,
            is_quota_exhausted: false,
        }
    }

    #[test]
    fn delays_grow_to_a_limit_and_jitter_only_shortens_them() {
        let delays = |jitter| {
            (0..6).map(move |n| delay(&rate_limited(None), n, jitter).map(|p| p.as_millis()))
        };
        let full: Vec<_> = delays(0.0).collect();
        assert_eq!(full, [500, 1_000, 2_000, 4_000, 8_000, 8_000].map(Some));
        let half: Vec<_> = delays(1.0).collect();
        assert_eq!(half, [250, 500, 1_000, 2_000, 4_000, 4_000].map(Some));
        assert!(delay(&rate_limited(None), u32::MAX, 0.5).is_some());
    }

    #[test]
    fn a_requested_delay_is_kept_unless_it_is_too_long() {
        let delay_of = |seconds| delay(&rate_limited(Some(Duration::from_secs(seconds))), 0, 1.0);
        assert_eq!(delay_of(0), Some(Duration::ZERO));
        assert_eq!(delay_of(20), Some(Duration::from_secs(20)));
        assert_eq!(delay_of(61), None);
        assert_eq!(delay(&UpstreamError::broken("x"), 0, 0.0), None);
    }

    #[test]
    fn delays_are_requested_in_three_ways() {
        let requested = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value).expect("the value has header characters only");
            requested_delay(&HeaderMap::from_iter([(
                HeaderName::from_static(name),
                value,
            )]))
        };
        assert_eq!(
            requested("retry-after-ms", "1500"),
            Some(Duration::from_millis(1_500))
        );
        assert_eq!(requested("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(
            requested("retry-after", "0.5"),
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            requested("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        let future =
            requested("retry-after", "Wed, 21 Oct 2150 07:28:00 GMT").expect("the date is valid");
        assert!(future > Duration::from_secs(1_000_000));
        for nonsense in ["soon", "-1", "NaN", ""] {
            assert_eq!(requested("retry-after", nonsense), None, "{nonsense}");
        }
        assert_eq!(requested_delay(&HeaderMap::new()), None);
    }
}
