//! Logs, traces and metrics: where they go and what they are called.
//!
//! Code that has something to say uses the `tracing` and `metrics` macros and knows nothing of
//! this module. Every metric it may name is in [`METRICS`]; a test compares that table with the
//! names in the source.

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

/// What a metric measures, and how.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Goes up only.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, counted in buckets with these upper bounds.
    Seconds(&'static [f64]),
}

/// One row of [`METRICS`].
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name in the code and at `/metrics`.
    pub name: &'static str,
    /// Its kind, and its buckets if it has some.
    pub kind: Kind,
    /// What it means, with its labels in parentheses.
    pub help: &'static str,
}

/// For what this server does by itself: from 0.5 ms, where a good answer lies, to 10 s.
const FAST: &[f64] = &[
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// For what waits for a model: from 10 ms to 5 min.
const SLOW: &[f64] = &[
    0.01, 0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0,
];

/// For requests, most of which are quick and some of which wait for a model.
const MIXED: &[f64] = &[
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
    300.0,
];

/// Every metric there is.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "assistd_requests_total",
        kind: Kind::Counter,
        help: "Requests answered (route, method, status)",
    },
    Metric {
        name: "assistd_request_seconds",
        kind: Kind::Seconds(MIXED),
        help: "Time from a request to the end of its answer's head (route, method)",
    },
    Metric {
        name: "assistd_connections",
        kind: Kind::Gauge,
        help: "Connections of clients that are open",
    },
    Metric {
        name: "assistd_disk_free_bytes",
        kind: Kind::Gauge,
        help: "Space left for the embedded database and for file contents",
    },
    Metric {
        name: "assistd_body_memory_bytes",
        kind: Kind::Gauge,
        help: "Memory set aside for request bodies",
    },
    Metric {
        name: "assistd_runs_total",
        kind: Kind::Counter,
        help: "Runs that came into a status (status)",
    },
    Metric {
        name: "assistd_runs_in_progress",
        kind: Kind::Gauge,
        help: "Runs that this process works on",
    },
    Metric {
        name: "assistd_queue_depth",
        kind: Kind::Gauge,
        help: "Runs that wait for a process to work on them, on all replicas together",
    },
    Metric {
        name: "assistd_code_seconds",
        kind: Kind::Seconds(MIXED),
        help: "Time that a cell of code_interpreter took, files and all",
    },
    Metric {
        name: "assistd_search_seconds",
        kind: Kind::Seconds(FAST),
        help: "Time to search one vector store, models included",
    },
    Metric {
        name: "assistd_indexing_seconds",
        kind: Kind::Seconds(SLOW),
        help: "Time that a file of a vector store was worked on (outcome)",
    },
    Metric {
        name: "assistd_files_to_index",
        kind: Kind::Gauge,
        help: "Files of vector stores that are not indexed yet, of all servers; some seconds old",
    },
    Metric {
        name: "assistd_webhook_deliveries_total",
        kind: Kind::Counter,
        help: "Attempts to deliver a webhook (result)",
    },
    Metric {
        name: "assistd_webhooks_waiting",
        kind: Kind::Gauge,
        help: "Webhooks still to be delivered, of all servers; some seconds old",
    },
    Metric {
        name: "assistd_queue_wait_seconds",
        kind: Kind::Seconds(FAST),
        help: "Time from a run's entry into the queue to its start",
    },
    Metric {
        name: "assistd_added_first_token_seconds",
        kind: Kind::Seconds(FAST),
        help: "Time from a run's creation to its first call of a model",
    },
    Metric {
        name: "assistd_upstream_requests_total",
        kind: Kind::Counter,
        help: "Calls to an upstream (upstream, outcome)",
    },
    Metric {
        name: "assistd_upstream_interruptions_total",
        kind: Kind::Counter,
        help: "Answers that broke off after their first piece (upstream, outcome)",
    },
    Metric {
        name: "assistd_upstream_request_seconds",
        kind: Kind::Seconds(SLOW),
        help: "Time from a call to an upstream to the first byte of its answer (upstream)",
    },
    Metric {
        name: "assistd_upstream_tokens_total",
        kind: Kind::Counter,
        help: "Tokens used (model, kind)",
    },
];

/// What [`init`] needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directives that say which logs and spans there are, such as `info,assistd::engine=debug`.
    pub filter: String,
    /// Whether log lines are JSON objects, for collectors, or text, for people.
    pub json: bool,
    /// Base of the OTLP/HTTP endpoint that traces go to, if any.
    pub otlp_endpoint: Option<Url>,
}

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("the log filter {filter:?} is not valid: {reason}")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        reason: tracing_subscriber::filter::ParseError,
    },
    /// The exporter of traces cannot be built.
    #[error("traces cannot be exported: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Keeps the export of traces alive; [`flush`](Self::flush) it before the process ends.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Sends logs to standard error from now on, and traces to where `options` says.
///
/// # Errors
/// If the filter or the endpoint is not valid; nothing has been set up then.
pub fn init(options: &Options) -> Result<Telemetry, TelemetryError> {
    // The server's notices are about "if not exists" and the like. Later directives win.
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
    /// Sends the traces that are still here. Blocks for some seconds at most.
    pub fn flush(self) {
        let Some(traces) = self.traces else { return };
        if let Err(error) = traces.shutdown_with_timeout(Duration::from_secs(3)) {
            tracing::warn!(error = %error, "the last traces could not be sent: {error}");
        }
    }
}

/// The process's metrics, which `/metrics` renders. The first call starts collecting.
///
/// [`run_upkeep`](PrometheusHandle::run_upkeep) wants to be called every few seconds, or the samples
/// of histograms pile up between two scrapes; `assistd serve` does.
///
/// # Panics
/// If another recorder has been installed, which nothing here does.
pub fn prometheus() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let handle = builder()
                .install_recorder()
                .expect("no other recorder is installed");
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
                .expect("no list of buckets is empty")
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
            text.contains("# HELP assistd_runs_total Runs that came into a status"),
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
        let name = regex::Regex::new(r"assistd_[a-z_]+").expect("a constant that is a pattern");
        let named: BTreeSet<&str> = name
            .find_iter(guide)
            .map(|found| found.as_str().trim_end_matches("_bucket"))
            .collect();
        let known: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(named, known);
    }

    #[test]
    fn every_metric_in_the_source_is_in_the_table() {
        let known: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(known.len(), METRICS.len(), "a name is in the table twice");
        let emitted = regex::Regex::new(r#"(?:counter|gauge|histogram)!\(\s*"([^"]+)""#)
            .expect("a constant that is a pattern");
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder of the source") {
                let path = entry.expect("an entry of the folder").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let Ok(text) = std::fs::read_to_string(&path) else {
                    continue;
                };
                for name in emitted
                    .captures_iter(&text)
                    .map(|found| found[1].to_owned())
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
