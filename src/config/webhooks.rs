//! Settings and commands of webhooks.

use std::time::Duration;

use clap::Args;
use clap::Subcommand;

use super::values;

/// How webhooks are delivered.
#[derive(Debug, Clone, Args)]
pub struct WebhookSettings {
    /// Let webhooks lead to private networks and this machine, and over plain http://
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
    /// How long an event is tried to be delivered, with growing pauses, before it is given up
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
    /// How long an endpoint may take nothing before it is switched off
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
        /// Project whose events it is told of; created if there is none of that name
        #[arg(long, value_parser = values::name)]
        project: String,
        /// Where events are posted to
        #[arg(long, value_name = "URL")]
        url: String,
        /// Types of events, such as thread.run.completed,thread.run.failed; absent: all
        #[arg(long, value_name = "TYPE", value_delimiter = ',')]
        events: Vec<String>,
    },
    /// List the endpoints and how they do, without their secrets
    List {
        /// Those of this project only
        #[arg(long, value_parser = values::name)]
        project: Option<String>,
    },
    /// Remove an endpoint; what it was still to be told it is not
    Remove {
        /// Id of the endpoint, as `assistd webhooks list` shows it
        id: String,
    },
    /// Give an endpoint another secret and print it, once
    Rotate {
        /// Id of the endpoint
        id: String,
        /// How long events are signed by the old secret as well
        #[arg(long, value_name = "DURATION", default_value = "24h",
              value_parser = humantime::parse_duration)]
        keep: Duration,
    },
    /// Post a trial event of type webhook.test, and say what the endpoint answers
    Test {
        /// Id of the endpoint
        id: String,
    },
    /// Switch an endpoint on again that was switched off
    Enable {
        /// Id of the endpoint
        id: String,
    },
}
