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

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderName;
    use reqwest::header::HeaderValue;

    use super::*;

    fn limited(retry_after: Option<Duration>) -> UpstreamError {
        UpstreamError::RateLimited {
            message: String::new(),
            retry_after,
            exhausted: false,
        }
    }

    #[test]
    fn pauses_grow_to_a_limit_and_jitter_only_shortens_them() {
        let pauses =
            |jitter| (0..6).map(move |n| pause(&limited(None), n, jitter).map(|p| p.as_millis()));
        let full: Vec<_> = pauses(0.0).collect();
        assert_eq!(full, [500, 1_000, 2_000, 4_000, 8_000, 8_000].map(Some));
        let half: Vec<_> = pauses(1.0).collect();
        assert_eq!(half, [250, 500, 1_000, 2_000, 4_000, 4_000].map(Some));
        assert!(pause(&limited(None), u32::MAX, 0.5).is_some());
    }

    #[test]
    fn a_requested_pause_is_kept_unless_it_is_too_long() {
        let asked = |seconds| pause(&limited(Some(Duration::from_secs(seconds))), 0, 1.0);
        assert_eq!(asked(0), Some(Duration::ZERO));
        assert_eq!(asked(20), Some(Duration::from_secs(20)));
        assert_eq!(asked(61), None);
        assert_eq!(pause(&UpstreamError::broken("x"), 0, 0.0), None);
    }

    #[test]
    fn pauses_are_asked_for_in_three_ways() {
        let asked = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value).expect("a header");
            requested_pause(&HeaderMap::from_iter([(
                HeaderName::from_static(name),
                value,
            )]))
        };
        assert_eq!(
            asked("retry-after-ms", "1500"),
            Some(Duration::from_millis(1_500))
        );
        assert_eq!(asked("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(
            asked("retry-after", "0.5"),
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            asked("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        let future = asked("retry-after", "Wed, 21 Oct 2150 07:28:00 GMT").expect("a date");
        assert!(future > Duration::from_secs(1_000_000));
        for nonsense in ["soon", "-1", "NaN", ""] {
            assert_eq!(asked("retry-after", nonsense), None, "{nonsense}");
        }
        assert_eq!(requested_pause(&HeaderMap::new()), None);
    }
}
