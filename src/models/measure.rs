//! Metrics of calls to upstreams.

use std::time::Instant;

use metrics::{counter, histogram};

use super::error::UpstreamError;
use super::turn::Usage;

/// Records a call when its response has started, or has failed to.
pub(super) fn record_call(upstream: &str, started: Instant, error: Option<&UpstreamError>) {
    let outcome = error.map_or("ok", UpstreamError::kind);
    counter!("assistd_upstream_requests_total", "upstream" => upstream.to_owned(), "outcome" => outcome)
        .increment(1);
    histogram!("assistd_upstream_request_seconds", "upstream" => upstream.to_owned())
        .record(started.elapsed().as_secs_f64());
}

pub(super) fn record_interruption(upstream: &str, error: &UpstreamError) {
    counter!("assistd_upstream_interruptions_total", "upstream" => upstream.to_owned(), "outcome" => error.kind())
        .increment(1);
}

pub(super) fn record_tokens(model: &str, usage: &Usage) {
    let count = |kind: &'static str, tokens: u32| {
        counter!("assistd_upstream_tokens_total", "model" => model.to_owned(), "kind" => kind)
            .increment(u64::from(tokens));
    };
    count("prompt", usage.prompt);
    count("cached", usage.cached);
    count("completion", usage.completion);
    count("reasoning", usage.reasoning);
}
