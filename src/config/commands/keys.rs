//! Arguments of `assistd keys`.

use clap::Subcommand;

use crate::config::values;

/// Subcommands of `assistd keys`.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Create a key and print it, once
    Create {
        /// Project the key gives access to; created if it does not exist
        #[arg(long, value_parser = values::name)]
        project: String,
        /// Display name of the key
        #[arg(long, value_parser = values::name, default_value = "default")]
        name: String,
    },
    /// List all keys, without their secret part
    List,
    /// Revoke a key, at once and for good
    Revoke {
        /// Id of the key, as `assistd keys list` shows it
        id: String,
    },
}
