//! Settings of maintenance: what is deleted, and when.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::values;

/// Retention periods.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct MaintenanceSettings {
    /// Delete the event log of an ended run after this long
    #[arg(
        long,
        env = "ASSISTD_EVENT_RETENTION",
        value_name = "DURATION",
        default_value = "24h",
        value_parser = values::duration
    )]
    pub event_retention: Duration,
    /// Expire vector stores created for thread attachments after this many idle days; 0 is never
    #[arg(
        long,
        env = "ASSISTD_THREAD_STORE_EXPIRY",
        value_name = "DAYS",
        default_value = "7d"
    )]
    pub thread_store_expiry: Days,
}

/// A number of days up to 365, written `7d` or `7`; `0` means no expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(u16);

impl Days {
    pub fn days(self) -> Option<i32> {
        (self.0 > 0).then_some(self.0.into())
    }
}

impl FromStr for Days {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let number = text.strip_suffix('d').unwrap_or(text).trim_end();
        match number.parse() {
            Ok(days) if days <= 365 => Ok(Self(days)),
            _ => Err("expected a number of days up to 365, such as 7d; 0 is never"),
        }
    }
}
