//! Set-up of logs and traces, and the table of all metrics.
//!
//! Other modules use the macros of `tracing` and `metrics` only. A test checks that every metric in
//! the source is in [`METRICS`].

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::Matcher;
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_exporter_prometheus::PrometheusHandle;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::Url;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Counter,
    Gauge,
    /// A histogram of seconds with these upper bounds of its buckets.
    Seconds(&'static [f64]),
}

#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Meaning, with the labels in parentheses.
    pub help: &'static str,
}

/// Buckets for work of this server alone: 0.5 ms, which is typical, to 10 s.
const FAST: &[f64] = &[
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// Buckets for calls to models: 10 ms to 5 min.
const SLOW: &[f64] = &[
    0.01, 0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0,
];
/// Buckets for requests, some of which wait for a model.
const MIXED: &[f64] = &[
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
    300.0,
];

pub const METRICS: &[Metric] = &[
    Metric {
        name: "assistd_requests_total",
        kind: Kind::Counter,
        help: "HTTP requests (route, method, status)",
    },
    Metric {
        name: "assistd_request_seconds",
        kind: Kind::Seconds(MIXED),
        help: "Time from a request to its response headers (route, method)",
    },
    Metric {
        name: "assistd_connections",
        kind: Kind::Gauge,
        help: "Open client connections",
    },
    Metric {
        name: "assistd_disk_free_bytes",
        kind: Kind::Gauge,
        help: "Free disk space for the embedded database and for file contents (folder)",
    },
    Metric {
        name: "assistd_body_memory_bytes",
        kind: Kind::Gauge,
        help: "Memory reserved for request bodies",
    },
    Metric {
        name: "assistd_runs_total",
        kind: Kind::Counter,
        help: "Runs that entered a status (status)",
    },
    Metric {
        name: "assistd_runs_in_progress",
        kind: Kind::Gauge,
        help: "Runs that this process executes",
    },
    Metric {
        name: "assistd_queue_depth",
        kind: Kind::Gauge,
        help: "Queued runs, of all replicas together",
    },
    Metric {
        name: "assistd_code_seconds",
        kind: Kind::Seconds(MIXED),
        help: "Time of a code_interpreter call, including file transfers",
    },
    Metric {
        name: "assistd_search_seconds",
        kind: Kind::Seconds(FAST),
        help: "Time to search one vector store, including embedding and reranking",
    },
    Metric {
        name: "assistd_indexing_seconds",
        kind: Kind::Seconds(SLOW),
        help: "Time to index a file of a vector store (outcome)",
    },
    Metric {
        name: "assistd_files_to_index",
        kind: Kind::Gauge,
        help: "Vector store files that are not indexed yet, of all replicas together; some seconds old",
    },
    Metric {
        name: "assistd_webhook_deliveries_total",
        kind: Kind::Counter,
        help: "Webhook delivery attempts (result)",
    },
    Metric {
        name: "assistd_webhooks_waiting",
        kind: Kind::Gauge,
        help: "Pending webhook deliveries, of all replicas together; some seconds old",
    },
    Metric {
        name: "assistd_queue_wait_seconds",
        kind: Kind::Seconds(FAST),
        help: "Time from queueing a run to its start",
    },
    Metric {
        name: "assistd_added_first_token_seconds",
        kind: Kind::Seconds(FAST),
        help: "Time from creating a run to its first model call",
    },
    Metric {
        name: "assistd_upstream_requests_total",
        kind: Kind::Counter,
        help: "Requests to upstreams (upstream, outcome)",
    },
    Metric {
        name: "assistd_upstream_interruptions_total",
        kind: Kind::Counter,
        help: "Responses that broke off after their first chunk (upstream, outcome)",
    },
    Metric {
        name: "assistd_upstream_request_seconds",
        kind: Kind::Seconds(SLOW),
        help: "Time from a request to an upstream to the first byte of its response (upstream)",
    },
    Metric {
        name: "assistd_upstream_tokens_total",
        kind: Kind::Counter,
        help: "Tokens used (model, kind)",
    },
];

#[derive(Debug, Clone)]
pub struct Options {
    /// Filter directives for logs and traces, such as `info,assistd::engine=debug`.
    pub filter: String,
    pub json: bool,
    pub otlp_endpoint: Option<Url>,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log filter {filter:?} is not valid: {reason}")]
    Filter {
        filter: String,
        reason: tracing_subscriber::filter::ParseError,
    },
    #[error("could not set up the export of traces: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Owns the export of traces. Call [`flush`](Self::flush) before the process ends.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Writes logs to standard error from now on, and exports traces.
///
/// # Errors
/// If the filter or the endpoint is not valid.
pub fn init(options: &Options) -> Result<Telemetry, TelemetryError> {
    // Notices of PostgreSQL below WARNING are noise, such as those of `if not exists`. A directive in
    // `options.filter` wins, as it comes later.
    let filter = EnvFilter::builder()
        .parse(format!("sqlx::postgres::notice=warn,{}", options.filter))
        .map_err(|reason| TelemetryError::Filter {
            filter: options.filter.clone(),
            reason,
        })?;
    let traces = options.otlp_endpoint.as_ref().map(exporter).transpose()?;

    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = if options.json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.with_target(false).boxed()
    };
    let spans = traces.as_ref().map(|traces| {
        tracing_opentelemetry::layer().with_tracer(traces.tracer(env!("CARGO_PKG_NAME")))
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(spans)
        .init();
    Ok(Telemetry { traces })
}

fn exporter(endpoint: &Url) -> Result<SdkTracerProvider, TelemetryError> {
    let endpoint = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build()?;
    let resource = Resource::builder()
        .with_service_name(env!("CARGO_PKG_NAME"))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

impl Telemetry {
    /// Exports the remaining traces. Blocks for up to 3 s.
    pub fn flush(self) {
        let Some(traces) = self.traces else { return };
        if let Err(error) = traces.shutdown_with_timeout(Duration::from_secs(3)) {
            tracing::warn!(error.cause = %error, "could not export the remaining traces: {error}");
        }
    }
}

/// The metrics of this process. The first call installs the recorder.
///
/// The caller must call [`run_upkeep`](PrometheusHandle::run_upkeep) every few seconds: without it, the
/// samples of histograms accumulate between two scrapes.
///
/// # Panics
/// If another recorder has been installed.
pub fn prometheus() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let handle = builder()
                .install_recorder()
                .expect("this is the only recorder of the process");
            describe();
            handle
        })
        .clone()
}

fn builder() -> PrometheusBuilder {
    METRICS
        .iter()
        .fold(PrometheusBuilder::new(), |builder, metric| {
            let Kind::Seconds(buckets) = metric.kind else {
                return builder;
            };
            builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                .expect("every list of buckets is a non-empty constant")
        })
}

fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Seconds(_) => {
                metrics::describe_histogram!(metric.name, metrics::Unit::Seconds, metric.help);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn metrics_are_rendered_with_their_help_and_buckets() {
        let recorder = builder().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::counter!("assistd_runs_total", "status" => "completed").increment(2);
            metrics::histogram!("assistd_queue_wait_seconds").record(0.003);
        });
        let handle = recorder.handle();
        handle.run_upkeep();
        let text = handle.render();
        assert!(
            text.contains("assistd_runs_total{status=\"completed\"} 2"),
            "{text}"
        );
        assert!(
            text.contains("# HELP assistd_runs_total Runs that entered a status"),
            "{text}"
        );
        assert!(
            text.contains("assistd_queue_wait_seconds_bucket{le=\"0.002\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("assistd_queue_wait_seconds_bucket{le=\"0.004\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn the_operations_guide_names_every_metric_and_no_other() {
        let guide = include_str!("../docs/operations.md");
        let name = regex::Regex::new(r"assistd_[a-z_]+").expect("the constant is a valid pattern");
        let named: BTreeSet<&str> = name
            .find_iter(guide)
            .map(|name| name.as_str().trim_end_matches("_bucket"))
            .collect();
        let known: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(named, known);
    }

    #[test]
    fn every_metric_in_the_source_is_in_the_table() {
        let known: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(known.len(), METRICS.len(), "a name is in the table twice");
        let emitted = regex::Regex::new(r#"(?:counter|gauge|histogram)!\(\s*"([^"]+)""#)
            .expect("the constant is a valid pattern");
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("the source folder is readable") {
                let path = entry.expect("the source folder is readable").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let Ok(text) = std::fs::read_to_string(&path) else {
                    continue;
                };
                for name in emitted
                    .captures_iter(&text)
                    .map(|captures| captures[1].to_owned())
                {
                    assert!(
                        known.contains(name.as_str()),
                        "{}: {name} is not in telemetry::METRICS",
                        path.display()
                    );
                }
            }
        }
    }
}
