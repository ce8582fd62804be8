//! Settings and commands of webhooks.

use std::time::Duration;

use clap::Args;
use clap::Subcommand;

use super::values;

/// How webhooks are delivered.
#[derive(Debug, Clone, Args)]
pub struct WebhookSettings {
    /// Let this server post events to private networks and this machine, and over plain http://
    #[arg(
        id = "webhook_allow_private",
        long = "webhook-allow-private",
        env = "ASSISTD_WEBHOOK_ALLOW_PRIVATE",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false",
        action = clap::ArgAction::Set,
        help_heading = "Webhooks",
        global = true
    )]
    pub allow_private: bool,
    /// Retry a failed delivery, with growing pauses, until the event is this old
    #[arg(
        id = "webhook_retry_for",
        long = "webhook-retry-for",
        env = "ASSISTD_WEBHOOK_RETRY_FOR",
        value_name = "DURATION",
        default_value = "4d",
        value_parser = values::positive_duration,
        help_heading = "Webhooks",
        global = true
    )]
    pub retry_for: Duration,
    /// Disable an endpoint that has accepted nothing for this long
    #[arg(
        id = "webhook_disable_after",
        long = "webhook-disable-after",
        env = "ASSISTD_WEBHOOK_DISABLE_AFTER",
        value_name = "DURATION",
        default_value = "5d",
        value_parser = values::positive_duration,
        help_heading = "Webhooks",
        global = true
    )]
    pub disable_after: Duration,
}

/// `assistd webhooks …`
#[derive(Debug, Clone, Subcommand)]
pub enum WebhooksCommand {
    /// Add an endpoint and print its signing secret, once
    Add {
        /// Project to subscribe to; created if it does not exist
        #[arg(long, value_parser = values::name)]
        project: String,
        /// Where events are posted to
        #[arg(long, value_name = "URL")]
        url: String,
        /// Event types, such as thread.run.completed,thread.run.failed; absent: all
        #[arg(long, value_name = "TYPE", value_delimiter = ',')]
        events: Vec<String>,
    },
    /// List the endpoints with their state, without their secrets
    List {
        /// Those of this project only
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
        /// How long events are also signed with the old secret
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
