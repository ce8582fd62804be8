//! Arguments of `assistd webhooks`.

use std::time::Duration;

use clap::Subcommand;

use crate::config::values;

/// Subcommands of `assistd webhooks`.
#[derive(Debug, Clone, Subcommand)]
pub enum WebhooksCommand {
    /// Add an endpoint and print its signing secret, once
    Add {
        /// Project to subscribe to; created if it does not exist
        #[arg(long, value_parser = values::name)]
        project: String,
        /// URL to post events to
        #[arg(long, value_name = "URL")]
        url: String,
        /// Event types, such as thread.run.completed,thread.run.failed; absent: all
        #[arg(long, value_name = "TYPE", value_delimiter = ',')]
        events: Vec<String>,
    },
    /// List the endpoints with their state, without their secrets
    List {
        /// List the endpoints of this project only
        #[arg(long, value_parser = values::name)]
        project: Option<String>,
    },
    /// Remove an endpoint and discard its pending deliveries
    Remove {
        /// Id of the endpoint, as `assistd webhooks list` shows it
        id: String,
    },
    /// Replace an endpoint's secret and print the new one, once
    Rotate {
        /// Id of the endpoint
        id: String,
        /// Sign with the old secret, too, for this long
        #[arg(long, value_name = "DURATION", default_value = "24h",
              value_parser = values::duration)]
        keep: Duration,
    },
    /// Have the running server post an event of type webhook.test, and show the result
    Test {
        /// Id of the endpoint
        id: String,
    },
    /// Enable an endpoint that was disabled
    Enable {
        /// Id of the endpoint
        id: String,
    },
}
