//! Settings of the sandbox, which runs the code of code_interpreter.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::values::Secret;

/// Sandbox settings.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Code interpreter")]
pub struct SandboxSettings {
    /// Sandbox workers for code_interpreter: embedded (one that assistd starts), off, or workers at
    /// unix:/PATH,tcp:HOST:PORT; unix:/FOLDER/ stands for all sockets in that folder
    #[arg(
        long,
        env = "ASSISTD_SANDBOX",
        value_name = "WHERE",
        default_value = "embedded"
    )]
    pub sandbox: SandboxWorkers,
    /// Token for sandbox workers on TCP
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub sandbox_token: Option<Secret>,
    /// Program of the embedded worker; absent: assistd-sandbox beside assistd. It gets its own settings,
    /// listed by `assistd-sandbox serve --help`, from the environment
    #[arg(long, env = "ASSISTD_SANDBOX_PROGRAM", value_name = "FILE")]
    pub sandbox_program: Option<PathBuf>,
    /// Environment of the embedded worker: the variables `ASSISTD_SANDBOX_…` that are its settings
    /// and not those of this program.
    #[arg(skip)]
    pub sandbox_environment: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxWorkers {
    Off,
    Embedded,
    /// Workers at these addresses, each `unix:/PATH` or `tcp:HOST:PORT`.
    Remote(Vec<String>),
}

impl FromStr for SandboxWorkers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_address = |address: &&str| {
            let path = address
                .strip_prefix("unix:")
                .is_some_and(|path| path.starts_with('/'));
            path || address
                .strip_prefix("tcp:")
                .is_some_and(|address| address.contains(':'))
        };
        match text {
            "off" => Ok(Self::Off),
            "embedded" => Ok(Self::Embedded),
            addresses => {
                let addresses: Vec<&str> = addresses.split(',').map(str::trim).collect();
                if !addresses.iter().all(is_address) {
                    return Err(
                        "expected embedded, off, or unix:/PATH or tcp:HOST:PORT, several \
                                of these with commas between",
                    );
                }
                Ok(Self::Remote(
                    addresses.into_iter().map(str::to_owned).collect(),
                ))
            }
        }
    }
}
