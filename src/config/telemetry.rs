//! Settings of logs and traces.

use clap::Args;
use clap::ValueEnum;
use reqwest::Url;

use super::values;

/// Settings of logs and traces.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Observability")]
pub struct TelemetrySettings {
    /// Log filter: a level, or directives such as `info,assistd::engine=debug`
    #[arg(
        long,
        env = "ASSISTD_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
    /// Format of log lines
    #[arg(
        long,
        env = "ASSISTD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
    /// OTLP/HTTP endpoint to export traces to; absent: no traces
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL",
        value_parser = values::http_url
    )]
    pub otlp_endpoint: Option<Url>,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text, coloured on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}
