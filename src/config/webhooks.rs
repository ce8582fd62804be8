//! Settings of webhook delivery.

use std::time::Duration;

use clap::Args;

use super::values;

/// Settings of webhook delivery.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Webhooks")]
pub struct WebhookSettings {
    /// Allow webhooks to private networks and this machine, and over plain http://
    #[arg(
        long,
        env = "ASSISTD_WEBHOOK_ALLOW_PRIVATE",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false",
        action = clap::ArgAction::Set,
    )]
    pub webhook_allow_private: bool,
    /// Retry a failed delivery, with growing pauses, until the event is this old
    #[arg(
        long,
        env = "ASSISTD_WEBHOOK_RETRY_FOR",
        value_name = "DURATION",
        default_value = "4d",
        value_parser = values::positive_duration,
    )]
    pub webhook_retry_for: Duration,
    /// Disable an endpoint that has accepted nothing for this long
    #[arg(
        long,
        env = "ASSISTD_WEBHOOK_DISABLE_AFTER",
        value_name = "DURATION",
        default_value = "5d",
        value_parser = values::positive_duration,
    )]
    pub webhook_disable_after: Duration,
}
