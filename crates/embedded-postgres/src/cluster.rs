//! A database folder: its paths, its creation, and the processes that work on it.

use std::fs;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::process::Command;

use crate::binaries::Binaries;
use crate::error::PostgresError;
use crate::error::at;
use crate::memory;
use crate::options::NAME;
use crate::options::Options;
use crate::output;
use crate::output::Output;
use crate::owner::Owner;

/// How long a server may take to stop on a signal before it gets a stronger one.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Part of the socket's name only: no network port is opened.
pub(crate) const PORT: u16 = 5432;

/// Longest path of the socket's folder in bytes. The kernel allows 104 or more for folder and name.
const MAX_SOCKET_DIR_BYTES: usize = 88;

/// Settings of a new database, which its administrator may change in `postgresql.conf`: the memory
/// of a small machine, a write-ahead log that is recovered within seconds, no replication.
const TUNING: &[&str] = &[
    "work_mem=32MB",
    "maintenance_work_mem=512MB",
    "max_wal_size=1GB",
    "checkpoint_timeout=5min",
    "wal_compression=pglz",
    "wal_level=minimal",
    "max_wal_senders=0",
    "jit=off",
    "random_page_cost=1.1",
    "timezone=UTC",
    "log_timezone=UTC",
];

/// `shared_buffers` in MiB: an eighth of the memory (in bytes), from 256 MiB to 4 GiB. A search in a
/// large vector store reads thousands of pages, and a page outside of this cache is copied each time.
fn shared_buffers(memory: Option<u64>) -> u64 {
    (memory.unwrap_or_default() >> 23).clamp(256, 4096)
}

/// Lines of the log's end that explain an exit: the reason, and the exits of the server's processes.
const LAST_LINES: usize = 8;

/// Log lines about clients that connect during the start. They say nothing about an exit.
const CLIENT_LINES: [&str; 3] = [
    "the database system is starting up",
    "the database system is not yet accepting connections",
    "Consistent recovery state has not been yet reached",
];

/// Settings of every start: a socket only, and a log file for each day of the week.
const FIXED: &[&str] = &[
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "cluster_name=assistd",
    "logging_collector=on",
    "log_directory=log",
    "log_filename=postgresql-%a.log",
    "log_truncate_on_rotation=on",
    "log_rotation_age=1d",
    "log_rotation_size=0",
];

#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    pub(crate) socket_dir: PathBuf,
    owner: Owner,
    binaries: Binaries,
    max_connections: u32,
}

impl Cluster {
    /// Finds the programs and the user that run the server, and creates the database if it does not
    /// exist.
    pub(crate) async fn prepare(options: &Options) -> Result<Self, PostgresError> {
        let data_dir = canonical(&options.data_dir)?;
        let folder = folder(&data_dir);
        let owner = Owner::of_cluster(&folder, &options.user)?;
        let binaries = Binaries::find(options.bin_dir.as_deref())?.accessible_to(&owner)?;
        let socket_dir = socket_dir(&data_dir, &owner);
        make_private(&socket_dir, &owner)?;
        let cluster = Self {
            folder,
            socket_dir,
            owner,
            binaries,
            // A reserve for `assistd doctor`, other commands and psql.
            max_connections: options.connections.saturating_add(20).max(50),
        };
        cluster.remove_unfinished(&data_dir);
        if cluster.folder.exists() {
            cluster.check_version()?;
        } else {
            cluster.create(&data_dir).await?;
        }
        Ok(cluster)
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The last output of a server that has exited: its standard error, or the end of its log if it
    /// had redirected its output there.
    pub(crate) fn explain(&self, output: String) -> String {
        if !output.contains("redirecting log output") {
            return self.explain_lines(output);
        }
        let entries = fs::read_dir(self.log_dir()).into_iter().flatten().flatten();
        let modified =
            |entry: &fs::DirEntry| entry.metadata().and_then(|meta| meta.modified()).ok();
        let newest = entries.max_by_key(modified);
        let text = newest.and_then(|entry| fs::read(entry.path()).ok());
        let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned();
        let is_relevant = |line: &&str| !CLIENT_LINES.iter().any(|text| line.contains(text));
        let lines: Vec<&str> = text.lines().filter(is_relevant).collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        self.explain_lines(last.iter().map(|line| format!("{line}\n")).collect())
    }

    fn explain_lines(&self, lines: String) -> String {
        let mut text = output::with_advice(lines);
        if output::is_disk_full(&text) {
            let folder = self.folder.display();
            text += &format!("The disk of {folder} is full: free some space.\n");
        }
        text
    }

    /// Removes the socket's folder if it is empty; it may be in `/tmp`.
    pub(crate) fn remove_socket_dir(&self) {
        let _ = fs::remove_dir(&self.socket_dir);
    }

    /// Stops the server that a killed process has left running, if there is one.
    ///
    /// It is the process that both listens on the socket in the private folder and is named in the
    /// database's own process id file. The id alone could belong to another process by now.
    pub(crate) async fn stop_orphan(&self) -> Result<(), PostgresError> {
        let Some(pid) = self.recorded_pid() else {
            return Ok(());
        };
        let socket = self.socket_dir.join(format!(".s.PGSQL.{PORT}"));
        let Ok(stream) = UnixStream::connect(&socket).await else {
            return Ok(());
        };
        let listener = stream.peer_cred().map_err(at(&socket))?.pid();
        if listener != Some(pid.as_raw()) {
            return Ok(());
        }
        drop(stream);
        tracing::warn!(
            postgres.pid = pid.as_raw(),
            "stopping the PostgreSQL that a killed assistd left running (process {pid})"
        );
        for signal in [Signal::SIGINT, Signal::SIGQUIT] {
            let started = Instant::now();
            let _ = kill(pid, signal);
            while started.elapsed() < STOP_TIMEOUT {
                if !is_running(pid) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    fn recorded_pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.folder.join("postmaster.pid")).ok()?;
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        (pid > 1).then(|| Pid::from_raw(pid))
    }

    pub(crate) fn spawn_server(&self) -> Result<(Child, Output), PostgresError> {
        let (mut command, _folder) = self.command("postgres", &self.folder)?;
        for setting in FIXED {
            command.arg("-c").arg(setting);
        }
        let quoted = self.socket_dir.to_string_lossy().replace('"', "\"\"");
        command
            .arg("-c")
            .arg(format!("unix_socket_directories=\"{quoted}\""))
            .arg("-c")
            .arg(format!("max_connections={}", self.max_connections))
            .arg("-p")
            .arg(PORT.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(at(&self.binaries.dir))?;
        let stderr = child.stderr.take().expect("stderr is piped above");
        Ok((child, Output::read(stderr)))
    }

    /// Creates the database in a temporary folder and moves that into place, so that an interruption
    /// leaves no half-made database.
    async fn create(&self, data_dir: &Path) -> Result<(), PostgresError> {
        tracing::info!(
            "creating the embedded database in {}",
            self.folder.display()
        );
        // A name of its own: the initdb of a killed process may still be writing to another one.
        let unfinished =
            data_dir.join(format!("{UNFINISHED_PREFIX}{:016x}", rand::random::<u64>()));
        make_private(&unfinished, &self.owner)?;
        let (mut command, _folder) = self.command("initdb", &unfinished)?;
        command
            .args(["--username", NAME, "--auth=trust", "--encoding=UTF8"])
            .args(["--data-checksums", "--no-instructions"]);
        if self.binaries.version >= 17 {
            command.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]);
        } else {
            command.arg("--locale=C");
        }
        command.kill_on_drop(true);
        for setting in TUNING {
            command.arg("--set").arg(setting);
        }
        let buffers = shared_buffers(memory::memory());
        command
            .arg("--set")
            .arg(format!("shared_buffers={buffers}MB"));
        let output = command.output().await.map_err(at(&self.binaries.dir))?;
        if !output.status.success() {
            // If this fails, the next start removes it.
            let _ = fs::remove_dir_all(&unfinished);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(PostgresError::Init {
                path: self.folder.clone(),
                output: match output::is_disk_full(&text) {
                    true => text + "Free some space; a new database needs 60 MB.\n",
                    false => output::with_advice(text),
                },
            });
        }
        fs::rename(&unfinished, &self.folder).map_err(at(&self.folder))?;
        File::open(data_dir)
            .and_then(|folder| folder.sync_all())
            .map_err(at(data_dir))
    }

    fn remove_unfinished(&self, data_dir: &Path) {
        for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(UNFINISHED_PREFIX)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!("could not remove {}: {error}", entry.path().display());
            }
        }
    }

    fn check_version(&self) -> Result<(), PostgresError> {
        let path = self.folder.join("PG_VERSION");
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        let found = text.trim();
        if found == self.binaries.version.to_string() {
            return Ok(());
        }
        Err(PostgresError::Version {
            path: self.folder.clone(),
            found: found.to_owned(),
            expected: self.binaries.version,
        })
    }

    /// A command that runs `program` on `folder` as the owner. It gets none of this process's
    /// environment, which contains secrets, and a process group of its own, so that Ctrl-C in a
    /// terminal does not reach it.
    ///
    /// The returned file, if any, must stay open until the program has been started.
    fn command(
        &self,
        program: &str,
        folder: &Path,
    ) -> Result<(Command, Option<File>), PostgresError> {
        let mut command = Command::new(self.binaries.dir.join(program));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .process_group(0);
        if !self.owner.differs {
            command.current_dir(folder).arg("-D").arg(folder);
            return Ok((command, None));
        }
        // `uid` also drops all supplementary groups.
        command
            .uid(self.owner.uid.as_raw())
            .gid(self.owner.gid.as_raw());
        if self.owner.can_enter(folder) {
            command.current_dir(folder).arg("-D").arg(folder);
            return Ok((command, None));
        }
        // A folder above is closed to the owner, as root's home is. A process of the owner can still
        // work in `folder` if it starts there, and its working directory is then a path to it.
        let opened = File::open(folder).map_err(at(folder))?;
        command
            .current_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()))
            .args(["-D", "/proc/self/cwd"]);
        Ok((command, Some(opened)))
    }
}

const UNFINISHED_PREFIX: &str = "postgres.draft-";

pub(crate) fn canonical(data_dir: &Path) -> Result<PathBuf, PostgresError> {
    data_dir.canonicalize().map_err(at(data_dir))
}

pub(crate) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres")
}

/// The folder of the server's socket: in the data folder, or in `/tmp` if the path would be too long
/// for a socket or the owner cannot enter the data folder.
pub(crate) fn socket_dir(data_dir: &Path, owner: &Owner) -> PathBuf {
    let socket_dir = data_dir.join("run");
    if socket_dir.as_os_str().len() <= MAX_SOCKET_DIR_BYTES && owner.can_enter(data_dir) {
        return socket_dir;
    }
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let digest: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    PathBuf::from(format!("/tmp/assistd-{}-{digest}", owner.uid))
}

/// Creates `path` as a folder that only `owner` (and root) can enter, or checks that it is one.
fn make_private(path: &Path, owner: &Owner) -> Result<(), PostgresError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) if owner.differs => {
            std::os::unix::fs::chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
                .map_err(at(path))?;
        }
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at(path)(error)),
    }
    // An existing folder in /tmp may have been created by any user.
    let metadata = fs::symlink_metadata(path).map_err(at(path))?;
    if !metadata.is_dir() || metadata.uid() != owner.uid.as_raw() {
        return Err(PostgresError::NotOurs {
            path: path.to_owned(),
            uid: metadata.uid(),
        });
    }
    if metadata.mode() & 0o777 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(at(path))?;
    }
    Ok(())
}

/// Whether a process runs. A zombie does not.
fn is_running(pid: Pid) -> bool {
    if kill(pid, None) == Err(Errno::ESRCH) {
        return false;
    }
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The state is the first field after the name, which is in parentheses.
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next());
    state != Some('Z')
}
