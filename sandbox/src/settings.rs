//! Every setting of the worker, parsed once. Nobody else reads the environment.
//!
//! A setting is looked for on the command line, then in the environment, and has a default
//! otherwise. `assistd-sandbox serve --help` is the reference.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

use crate::confine::limits::Limits;

/// The parsed command line.
#[derive(Debug, Parser)]
#[command(
    name = "assistd-sandbox",
    version,
    about = "Runs Python for assistd in confined sessions"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the worker can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve sessions
    Serve {
        /// Where to listen, and for whom.
        #[command(flatten)]
        door: Box<Door>,
        /// How sessions are made.
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Build one session, look whether it is confined, and say so
    Check {
        /// How sessions are made.
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Ask the worker that serves with these settings whether it does
    Ping {
        /// Where it listens.
        #[command(flatten)]
        door: Box<Door>,
    },
}

/// Where the worker listens, and for whom.
#[derive(Debug, Clone, Args)]
pub struct Door {
    /// Where to listen: unix:PATH or tcp:ADDRESS:PORT. A path that ends in / is a folder, where
    /// the socket is named for this host: containers scaled out share one
    #[arg(long, env = "ASSISTD_SANDBOX_LISTEN", value_name = "ADDRESS")]
    pub listen: Address,
    /// Secret that clients must know; TCP requires one
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_TOKEN",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub token: Option<String>,
    /// User id that may connect to the Unix socket, besides the worker's own and root; repeatable
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_PEER_UID",
        value_name = "UID",
        value_delimiter = ','
    )]
    pub peer_uid: Vec<u32>,
    /// End when standard input closes, which happens when the parent process ends. SIGTERM and
    /// SIGINT are then left to that process, which may still have use for the worker
    #[arg(long, env = "ASSISTD_SANDBOX_DIE_WITH_PARENT")]
    pub die_with_parent: bool,
}

/// How sessions are made, and what each may use.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Python of the virtual environment that sessions run [default: the .venv beside the
    /// program's project, or in the current folder]
    #[arg(long, env = "ASSISTD_SANDBOX_PYTHON", value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// How sessions are confined: "auto" takes namespaces, or else the container's confinement
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_TIER",
        value_name = "TIER",
        default_value = "auto"
    )]
    pub tier: TierChoice,
    /// Sessions at a time; the container tier has one, ever
    #[arg(long, env = "ASSISTD_SANDBOX_SESSIONS", value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub sessions: u32,
    /// Sessions of one project at a time; 0 sets no limit
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_PROJECT_SESSIONS",
        value_name = "N",
        default_value_t = 0
    )]
    pub project_sessions: u32,
    /// Sessions kept warm for new threads
    #[arg(long, env = "ASSISTD_SANDBOX_SPARES", value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub spares: u32,
    /// Seconds after which an unused session ends
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_IDLE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 3600
    )]
    pub idle_seconds: u64,
    /// Seconds after which a session ends, used or not
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_LIFE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 86_400
    )]
    pub life_seconds: u64,
    /// Seconds a cell may take; then it is interrupted
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_CELL_SECONDS",
        value_name = "SECONDS",
        default_value_t = 120
    )]
    pub cell_seconds: u64,
    /// Processor seconds a cell may use, all its processes together; then it is interrupted
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_CPU_SECONDS",
        value_name = "SECONDS",
        default_value_t = 240
    )]
    pub cpu_seconds: u64,
    /// Processor seconds that what cells left behind may use until the next cell; then its
    /// processes are stopped, and the session if that does not help
    #[arg(long, env = "ASSISTD_SANDBOX_BACKGROUND_CPU_SECONDS", value_name = "SECONDS",
          default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub background_cpu_seconds: u64,
    /// Seconds an interrupted cell has before its session is killed
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_GRACE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 5
    )]
    pub grace_seconds: u64,
    /// Memory of a session in MiB, beyond the warm interpreter's
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_MEMORY_MIB",
        value_name = "MIB",
        default_value_t = 1024
    )]
    pub memory_mib: u64,
    /// Processes and threads of a session
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_PROCESSES",
        value_name = "N",
        default_value_t = 64
    )]
    pub processes: u64,
    /// Open files of one process
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_OPEN_FILES",
        value_name = "N",
        default_value_t = 256
    )]
    pub open_files: u64,
    /// Size of one file in MiB
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_FILE_MIB",
        value_name = "MIB",
        default_value_t = 512
    )]
    pub file_mib: u64,
    /// Size of /mnt/data in MiB; counts as memory of the machine
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_DATA_MIB",
        value_name = "MIB",
        default_value_t = 512
    )]
    pub data_mib: u64,
    /// Files, folders and links in /mnt/data, and in /tmp
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_DATA_INODES",
        value_name = "N",
        default_value_t = 4096
    )]
    pub data_inodes: u64,
    /// Size of /tmp in MiB; counts as memory of the machine
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_TMP_MIB",
        value_name = "MIB",
        default_value_t = 256
    )]
    pub tmp_mib: u64,
    /// Size of /dev/shm in MiB; counts as memory of the machine
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_SHM_MIB",
        value_name = "MIB",
        default_value_t = 64
    )]
    pub shm_mib: u64,
    /// Text that a cell may write, in KiB; the rest is dropped
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_OUTPUT_KIB",
        value_name = "KIB",
        default_value_t = 1024
    )]
    pub output_kib: u64,
    /// Tracebacks of a cell, in KiB; the rest is dropped
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_TRACEBACK_KIB",
        value_name = "KIB",
        default_value_t = 64
    )]
    pub traceback_kib: u64,
    /// Pictures that a cell may show; the rest is dropped
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_IMAGES",
        value_name = "N",
        default_value_t = 20
    )]
    pub images: u32,
    /// Size of one picture in MiB; a larger one is dropped
    #[arg(long, env = "ASSISTD_SANDBOX_IMAGE_MIB", value_name = "MIB", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=10))]
    pub image_mib: u64,
    /// Files that a cell may hand over; the rest is not told of
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_FILES",
        value_name = "N",
        default_value_t = 100
    )]
    pub files: u32,
    /// Size of the files that a cell may hand over, together, in MiB
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_FILES_MIB",
        value_name = "MIB",
        default_value_t = 512
    )]
    pub files_mib: u64,
    /// User and group id of the first session, when the worker runs as root; each has its own
    #[arg(long, env = "ASSISTD_SANDBOX_FIRST_UID", value_name = "UID", default_value_t = 200_000,
          value_parser = clap::value_parser!(u32).range(1_000..2_000_000_000))]
    pub first_uid: u32,
    /// Sessions after which the warm interpreter is started anew
    #[arg(long, env = "ASSISTD_SANDBOX_ZYGOTE_SESSIONS", value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub zygote_sessions: u32,
    /// Seconds after which the warm interpreter is started anew
    #[arg(
        long,
        env = "ASSISTD_SANDBOX_ZYGOTE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 43_200
    )]
    pub zygote_seconds: u64,
}

/// How sessions are to be confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TierChoice {
    /// The strongest of `namespaces` and `container` that holds.
    Auto,
    /// Namespaces for each session, or nothing.
    Namespaces,
    /// The worker's container is the wall: one session, ever.
    Container,
    /// Whatever holds, be it nothing. For development only.
    Unsafe,
}

/// Where the worker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
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
    /// The limits that the kernel enforces.
    pub fn limits(&self) -> Limits {
        Limits {
            memory_bytes: mib(self.memory_mib),
            processes: self.processes,
            open_files: self.open_files,
            file_bytes: mib(self.file_mib),
            data_bytes: mib(self.data_mib),
            data_inodes: self.data_inodes,
            tmp_bytes: mib(self.tmp_mib),
            shm_bytes: mib(self.shm_mib),
        }
    }

    /// How long a cell may take.
    pub fn cell_time(&self) -> Duration {
        Duration::from_secs(self.cell_seconds)
    }

    /// How long an interrupted cell has.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}

/// Mebibytes in bytes.
pub fn mib(number: u64) -> u64 {
    number.saturating_mul(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_their_kind() {
        assert_eq!("unix:/run/a".parse(), Ok(Address::Unix("/run/a".into())));
        let host = nix::unistd::gethostname().expect("every machine has a name");
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
