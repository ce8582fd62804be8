//! The `x-ratelimit-…` headers.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::service::Budgets;

pub fn write_headers(budgets: &Budgets, headers: &mut HeaderMap) {
    let names = [
        (
            budgets.requests(),
            [
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
            ],
        ),
        (
            budgets.tokens(),
            [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ],
        ),
    ];
    for (budget, [limit, remaining, reset]) in names {
        let Some(budget) = budget else { continue };
        headers.insert(HeaderName::from_static(limit), budget.limit.into());
        headers.insert(HeaderName::from_static(remaining), budget.remaining.into());
        if let Ok(text) = HeaderValue::from_str(&format_duration(budget.full_in)) {
            headers.insert(HeaderName::from_static(reset), text);
        }
    }
}

/// Formats a duration as the hosted API does: `120ms`, `7.5s`, `1m0s`.
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let (minutes, remainder) = (milliseconds / 60_000, milliseconds % 60_000);
    let seconds = format!("{}.{:03}", remainder / 1000, remainder % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match minutes {
        0 => format!("{seconds}s"),
        _ => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_as_in_the_hosted_api() {
        let format = |milliseconds| format_duration(Duration::from_millis(milliseconds));
        let cases = [
            (0, "0ms"),
            (120, "120ms"),
            (1000, "1s"),
            (7500, "7.5s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (370_000, "6m10s"),
        ];
        for (milliseconds, expected) in cases {
            assert_eq!(format(milliseconds), expected);
        }
    }
}
