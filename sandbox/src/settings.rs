//! All settings of the worker. No other module reads the environment.
//!
//! A command-line flag overrides its environment variable, which overrides the default.
//! `assistd-sandbox serve --help` is the reference.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

use crate::confine::limits::Limits;

#[derive(Debug, Parser)]
#[command(
    name = "assistd-sandbox",
    version,
    about = "Runs Python code for assistd in confined sessions"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve sessions
    Serve {
        #[command(flatten)]
        listen: Box<ListenSettings>,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Create one session, verify its confinement, and print the result
    Check {
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Check that the worker with these settings is serving
    Ping {
        #[command(flatten)]
        listen: Box<ListenSettings>,
    },
}

/// Where the worker listens, and which clients it accepts.
#[derive(Debug, Clone, Args)]
pub struct ListenSettings {
    /// Address to listen on: unix:PATH or tcp:ADDRESS:PORT. A path that ends in / is a folder, in
    /// which the socket is named after this host, so that scaled-out containers can share it
    #[arg(
        long = "listen",
        env = "ASSISTD_SANDBOX_LISTEN",
        value_name = "ADDRESS"
    )]
    pub address: Address,
    /// Secret that clients must send; required on TCP
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_TOKEN",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub token: Option<String>,
    /// User id that may connect to the Unix socket, besides root and the worker's own; repeatable
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_PEER_UID",
        value_name = "UID",
        value_delimiter = ','
    )]
    pub peer_uid: Vec<u32>,
    /// Stop when standard input closes, that is, when the parent process ends. SIGTERM and SIGINT
    /// are then ignored, because the parent may still need the worker
    #[arg(long, env = "ASSISTD_SANDBOX_DIE_WITH_PARENT")]
    pub die_with_parent: bool,
}

/// How sessions are created, and their limits.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Python executable of the sessions' virtual environment [default: .venv beside the program's
    /// project, or in the current folder]
    #[arg(long, env = "ASSISTD_SANDBOX_PYTHON", value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// Isolation of sessions: "auto" uses namespaces, or else the container around the worker
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_TIER",
        value_name = "TIER",
        default_value = "auto"
    )]
    pub tier: TierChoice,
    /// Maximum number of sessions; the container tier has one, ever
    #[arg(long, env = "ASSISTD_SANDBOX_SESSIONS", value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub sessions: u32,
    /// Maximum number of sessions of one project; 0 sets no limit
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_PROJECT_SESSIONS",
        value_name = "N",
        default_value_t = 0
    )]
    pub project_sessions: u32,
    /// Number of pre-forked sessions
    #[arg(long, env = "ASSISTD_SANDBOX_SPARES", value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub spares: u32,
    /// Seconds of idle time after which a session ends
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_IDLE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 3600
    )]
    pub idle_seconds: u64,
    /// Seconds after which a session ends, idle or not
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_LIFE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 86_400
    )]
    pub life_seconds: u64,
    /// Time limit of a cell in seconds; then it is interrupted
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_CELL_SECONDS",
        value_name = "SECONDS",
        default_value_t = 120
    )]
    pub cell_seconds: u64,
    /// CPU time limit of a cell in seconds, over all its processes; then it is interrupted
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_CPU_SECONDS",
        value_name = "SECONDS",
        default_value_t = 240
    )]
    pub cpu_seconds: u64,
    /// CPU time limit in seconds for what cells leave running, until the next cell; then these
    /// processes are killed, and the session too if that does not help
    #[arg(long, env = "ASSISTD_SANDBOX_BACKGROUND_CPU_SECONDS", value_name = "SECONDS",
          default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub background_cpu_seconds: u64,
    /// Seconds that an interrupted cell has to end before its session is killed
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_GRACE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 5
    )]
    pub grace_seconds: u64,
    /// Memory limit of a session in MiB, in addition to the memory of the zygote
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_MEMORY_MIB",
        value_name = "MIB",
        default_value_t = 1024
    )]
    pub memory_mib: u64,
    /// Maximum number of processes and threads of a session
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_PROCESSES",
        value_name = "N",
        default_value_t = 64
    )]
    pub processes: u64,
    /// Maximum number of open files per process
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_OPEN_FILES",
        value_name = "N",
        default_value_t = 256
    )]
    pub open_files: u64,
    /// Maximum size of a file in MiB
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_FILE_MIB",
        value_name = "MIB",
        default_value_t = 512
    )]
    pub file_mib: u64,
    /// Size of /mnt/data in MiB; held in memory
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_DATA_MIB",
        value_name = "MIB",
        default_value_t = 512
    )]
    pub data_mib: u64,
    /// Maximum number of files, folders and links in /mnt/data, and in /tmp
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_DATA_INODES",
        value_name = "N",
        default_value_t = 4096
    )]
    pub data_inodes: u64,
    /// Size of /tmp in MiB; held in memory
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_TMP_MIB",
        value_name = "MIB",
        default_value_t = 256
    )]
    pub tmp_mib: u64,
    /// Size of /dev/shm in MiB; held in memory
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_SHM_MIB",
        value_name = "MIB",
        default_value_t = 64
    )]
    pub shm_mib: u64,
    /// Maximum output of a cell in KiB; the rest is dropped
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_OUTPUT_KIB",
        value_name = "KIB",
        default_value_t = 1024
    )]
    pub output_kib: u64,
    /// Maximum size of a cell's tracebacks in KiB; the rest is dropped
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_TRACEBACK_KIB",
        value_name = "KIB",
        default_value_t = 64
    )]
    pub traceback_kib: u64,
    /// Maximum number of images that a cell may show; the rest is dropped
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_IMAGES",
        value_name = "N",
        default_value_t = 20
    )]
    pub images: u32,
    /// Maximum size of an image in MiB; a larger one is dropped
    #[arg(long, env = "ASSISTD_SANDBOX_IMAGE_MIB", value_name = "MIB", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=10))]
    pub image_mib: u64,
    /// Maximum number of changed files that a cell reports; the rest is left out
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_FILES",
        value_name = "N",
        default_value_t = 100
    )]
    pub files: u32,
    /// Maximum total size of the files that a cell reports, in MiB
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_FILES_MIB",
        value_name = "MIB",
        default_value_t = 512
    )]
    pub files_mib: u64,
    /// User and group id of the first session if the worker runs as root; each session has its own
    #[arg(long, env = "ASSISTD_SANDBOX_FIRST_UID", value_name = "UID", default_value_t = 200_000,
          value_parser = clap::value_parser!(u32).range(1_000..2_000_000_000))]
    pub first_uid: u32,
    /// Number of sessions after which the zygote is restarted
    #[arg(long, env = "ASSISTD_SANDBOX_ZYGOTE_SESSIONS", value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub zygote_sessions: u32,
    /// Seconds after which the zygote is restarted
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_ZYGOTE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 43_200
    )]
    pub zygote_seconds: u64,
}

/// The setting for [`sandbox_protocol::Tier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TierChoice {
    /// The strongest of `namespaces` and `container` that works here.
    Auto,
    Namespaces,
    Container,
    /// No isolation is guaranteed. For development only.
    Unsafe,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", folder)) if folder.ends_with('/') => {
                let host = nix::unistd::gethostname().map_err(|error| error.to_string())?;
                let name = format!("{}.sock", host.to_string_lossy());
                Ok(Self::Unix(PathBuf::from(folder).join(name)))
            }
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => address
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "expected an address and a port, such as tcp:127.0.0.1:7070".into()),
            _ => Err("expected unix:PATH or tcp:ADDRESS:PORT".into()),
        }
    }
}

impl Settings {
    /// Limits that the kernel enforces.
    pub fn limits(&self) -> Limits {
        Limits {
            memory_bytes: mib_to_bytes(self.memory_mib),
            processes: self.processes,
            open_files: self.open_files,
            file_bytes: mib_to_bytes(self.file_mib),
            data_bytes: mib_to_bytes(self.data_mib),
            data_inodes: self.data_inodes,
            tmp_bytes: mib_to_bytes(self.tmp_mib),
            shm_bytes: mib_to_bytes(self.shm_mib),
        }
    }

    pub fn cell_timeout(&self) -> Duration {
        Duration::from_secs(self.cell_seconds)
    }

    /// How long an interrupted cell may take to end.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}

pub fn mib_to_bytes(mib: u64) -> u64 {
    mib.saturating_mul(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_their_kind() {
        assert_eq!("unix:/run/a".parse(), Ok(Address::Unix("/run/a".into())));
        let host = nix::unistd::gethostname().expect("every Linux host has a name");
        let socket = format!("/run/{}.sock", host.to_string_lossy());
        assert_eq!("unix:/run/".parse(), Ok(Address::Unix(socket.into())));
        assert_eq!(
            "tcp:127.0.0.1:7".parse(),
            Ok(Address::Tcp(([127, 0, 0, 1], 7).into()))
        );
        for wrong in ["", "unix:", "tcp:", "tcp:localhost:7", "/run/a"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
