//! One database folder: its paths, its lock, its creation, and the processes that serve it.

use std::collections::VecDeque;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write as _;
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
use tokio::io::AsyncBufReadExt as _;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::process::ChildStderr;
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::NAME;
use crate::Options;
use crate::PostgresError;
use crate::STOP_LIMIT;
use crate::binaries::Binaries;
use crate::owner::Owner;

/// Part of the socket's name only; nothing listens on a network.
pub(super) const PORT: u16 = 5432;

/// Longest path of a socket's folder. The kernel allows 104 bytes or more for folder and name.
const LONGEST_SOCKET_DIR: usize = 88;

/// What a new database is given, for its administrator to change in `postgresql.conf`: a small
/// machine's share of memory, a log that recovers within seconds, no waiting for replicas that
/// do not exist.
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

/// MiB of the database's own cache: an eighth of the memory, which is given in bytes, within reason.
/// A search in a large vector store reads thousands of pages; what is not in this cache is copied
/// from the system's each time.
fn shared_buffers(memory: Option<u64>) -> u64 {
    (memory.unwrap_or_default() >> 23).clamp(256, 4096)
}

/// How much of the end of the server's log is looked at when the server has ended: the line that
/// says why is followed by those about the end of its processes.
const LAST_LINES: usize = 8;

/// What the log says of clients that come while the server starts; there may be many of them.
const REFUSED_CLIENTS: [&str; 3] = [
    "the database system is starting up",
    "the database system is not yet accepting connections",
    "Consistent recovery state has not been yet reached",
];

/// What every start fixes: reachable through the socket only, a log file for each day of the week.
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

/// A database folder that is ready to be served.
#[derive(Debug)]
pub(super) struct Cluster {
    folder: PathBuf,
    /// Folder of the socket that the server listens on.
    pub(super) socket_dir: PathBuf,
    owner: Owner,
    binaries: Binaries,
    max_connections: u32,
}

/// The right to serve the database in a data folder. The kernel takes it back when the process
/// ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Creates the data folder if it does not exist, and takes the right to serve it.
    pub(super) fn acquire(data_dir: &Path) -> Result<Self, PostgresError> {
        if !data_dir.exists() {
            let mut builder = fs::DirBuilder::new();
            // Root's folder lets the database's user through to its own.
            let mode = if nix::unistd::Uid::effective().is_root() {
                0o711
            } else {
                0o700
            };
            builder.recursive(true).mode(mode);
            builder.create(data_dir).map_err(at(data_dir))?;
        }
        let path = data_dir.join("postgres.lock");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                return Err(PostgresError::InUse {
                    data_dir: data_dir.to_owned(),
                    pid: holder.trim().parse().ok(),
                });
            }
            Err(fs::TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        // For people and for the message above, so a full disk may prevent it; the lock itself is
        // the kernel's.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

impl Cluster {
    /// Finds everything a server needs, and creates the database if there is none.
    pub(super) async fn prepare(options: &Options) -> Result<Self, PostgresError> {
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
            // Some are for doctor, keys and people with psql.
            max_connections: options.connections.saturating_add(20).max(50),
        };
        cluster.remove_drafts(&data_dir);
        if cluster.folder.exists() {
            cluster.check_version()?;
        } else {
            cluster.create(&data_dir).await?;
        }
        Ok(cluster)
    }

    /// Folder of the server's log.
    pub(super) fn log_dir(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// What a server said at its end: on standard error, or in its log if it got that far.
    pub(super) fn explain(&self, output: String) -> String {
        if !output.contains("redirecting log output") {
            return self.explain_lines(output);
        }
        let entries = fs::read_dir(self.log_dir()).into_iter().flatten().flatten();
        let written = |entry: &fs::DirEntry| entry.metadata().and_then(|meta| meta.modified()).ok();
        let newest = entries.max_by_key(written);
        let text = newest.and_then(|entry| fs::read(entry.path()).ok());
        let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned();
        let is_about_server = |line: &&str| !REFUSED_CLIENTS.iter().any(|it| line.contains(it));
        let lines: Vec<&str> = text.lines().filter(is_about_server).collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        self.explain_lines(last.iter().map(|line| format!("{line}\n")).collect())
    }

    fn explain_lines(&self, lines: String) -> String {
        let mut text = explain(lines);
        if is_disk_full(&text) {
            let folder = self.folder.display();
            text += &format!("The disk of {folder} is full: free some space.\n");
        }
        text
    }

    /// Removes the socket's folder, if nothing else is in it: it may be in `/tmp`.
    pub(super) fn remove_socket_dir(&self) {
        let _ = fs::remove_dir(&self.socket_dir);
    }

    /// Stops the server of a process that was killed, if it still runs.
    ///
    /// Whoever listens on the socket in our private folder and is named in the database's own
    /// process id file is the one; the id alone may by now be that of an innocent.
    pub(super) async fn stop_orphan(&self) -> Result<(), PostgresError> {
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
            "the database server of an assistd that was killed still runs (process {pid}); stopping it"
        );
        for signal in [Signal::SIGINT, Signal::SIGQUIT] {
            let begun = Instant::now();
            // Fails only if the process is gone.
            let _ = kill(pid, signal);
            while begun.elapsed() < STOP_LIMIT {
                if !lives(pid) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// The process that the database's own id file names.
    fn recorded_pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.folder.join("postmaster.pid")).ok()?;
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        (pid > 1).then(|| Pid::from_raw(pid))
    }

    /// Starts the server. It is not ready yet.
    pub(super) fn spawn_server(&self) -> Result<(Child, Output), PostgresError> {
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
        let stderr = child.stderr.take().expect("it was asked for above");
        Ok((child, Output::read(stderr)))
    }

    /// Creates the database beside its place and moves it there, so that an interruption leaves
    /// nothing half done.
    async fn create(&self, data_dir: &Path) -> Result<(), PostgresError> {
        tracing::info!("creating a database in {}", self.folder.display());
        // A killed process's initdb may still be writing to an earlier draft.
        let draft = data_dir.join(format!("{DRAFT}{:016x}", rand::random::<u64>()));
        make_private(&draft, &self.owner)?;
        let (mut command, _folder) = self.command("initdb", &draft)?;
        command
            .args(["--username", NAME, "--auth=trust", "--encoding=UTF8"])
            .args(["--data-checksums", "--no-instructions"]);
        if self.binaries.version >= 17 {
            command.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]);
        } else {
            command.arg("--locale=C");
        }
        // A draft that nobody waits for is of no use.
        command.kill_on_drop(true);
        for setting in TUNING {
            command.arg("--set").arg(setting);
        }
        let buffers = shared_buffers(crate::memory());
        command
            .arg("--set")
            .arg(format!("shared_buffers={buffers}MB"));
        let output = command.output().await.map_err(at(&self.binaries.dir))?;
        if !output.status.success() {
            // What cannot be removed now is removed by the next start.
            let _ = fs::remove_dir_all(&draft);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(PostgresError::Init {
                path: self.folder.clone(),
                output: match is_disk_full(&text) {
                    true => text + "Free some space; a new database needs 60 MB.\n",
                    false => explain(text),
                },
            });
        }
        fs::rename(&draft, &self.folder).map_err(at(&self.folder))?;
        File::open(data_dir)
            .and_then(|folder| folder.sync_all())
            .map_err(at(data_dir))
    }

    /// Removes what interrupted creations left behind.
    fn remove_drafts(&self, data_dir: &Path) {
        for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(DRAFT)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!("{} cannot be removed: {error}", entry.path().display());
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

    /// A program that works on `folder`, run by the owner, with none of our environment: that has
    /// secrets in it. It has a process group of its own, so a terminal's Ctrl-C does not reach it.
    ///
    /// The file that comes with the command must live until the program has been started.
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
        // Changing the user drops all supplementary groups, too.
        command
            .uid(self.owner.uid.as_raw())
            .gid(self.owner.gid.as_raw());
        if self.owner.can_enter(folder) {
            command.current_dir(folder).arg("-D").arg(folder);
            return Ok((command, None));
        }
        // The folder is below one that is closed to its owner, as root's home is. The owner may
        // still work in it if it is put there, and its working directory then is a name for it.
        let opened = File::open(folder).map_err(at(folder))?;
        command
            .current_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()))
            .args(["-D", "/proc/self/cwd"]);
        Ok((command, Some(opened)))
    }
}

/// Start of the names of folders in which databases are created.
const DRAFT: &str = "postgres.draft-";

/// The absolute path of the data folder, without symbolic links.
pub(super) fn canonical(data_dir: &Path) -> Result<PathBuf, PostgresError> {
    data_dir.canonicalize().map_err(at(data_dir))
}

/// The database's folder in a data folder.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres")
}

/// The folder of the server's socket: in the data folder, or in `/tmp` if that has too long a
/// path for a socket or cannot be entered by the owner.
pub(super) fn socket_dir(data_dir: &Path, owner: &Owner) -> PathBuf {
    let near = data_dir.join("run");
    if near.as_os_str().len() <= LONGEST_SOCKET_DIR && owner.can_enter(data_dir) {
        return near;
    }
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let digest: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    PathBuf::from(format!("/tmp/assistd-{}-{digest}", owner.uid))
}

/// Makes sure that there is a folder `path` that only `owner` (and root) can enter.
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
    // It may have been there before, made by anybody if it is in /tmp.
    let found = fs::symlink_metadata(path).map_err(at(path))?;
    if !found.is_dir() || found.uid() != owner.uid.as_raw() {
        return Err(PostgresError::NotOurs {
            path: path.to_owned(),
            uid: found.uid(),
        });
    }
    if found.mode() & 0o777 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(at(path))?;
    }
    Ok(())
}

/// Whether a process runs. One that has ended and that its parent has not waited for does not.
fn lives(pid: Pid) -> bool {
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

/// Adds what to do about failures that users meet.
fn explain(mut output: String) -> String {
    if output.contains("could not look up effective user ID") {
        output += "The user of this process is not in the system's list of users: add it to \
                   /etc/passwd, or start assistd as another one.\n";
    }
    output
}

/// Whether the database says that its disk is full.
fn is_disk_full(output: &str) -> bool {
    output.contains("No space left on device") || output.contains("Disk quota exceeded")
}

/// The last lines that a server wrote to standard error, from where they go to its log file once
/// it is up.
pub(super) struct Output(JoinHandle<VecDeque<String>>);

impl Output {
    fn read(stderr: ChildStderr) -> Self {
        Self(tokio::spawn(async move {
            let mut last = VecDeque::new();
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::debug!("postgres: {line}");
                if last.len() == 20 {
                    last.pop_front();
                }
                last.push_back(line);
            }
            last
        }))
    }

    /// All of it, once the server has ended.
    pub(super) async fn collect(self) -> String {
        // A child of the server could keep it open.
        let lines = tokio::time::timeout(Duration::from_secs(1), self.0).await;
        let lines = lines.ok().and_then(Result::ok).unwrap_or_default();
        lines.into_iter().map(|line| line + "\n").collect()
    }
}

/// Says which path an I/O error is about.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> PostgresError + use<'_> {
    |source| PostgresError::File {
        path: path.to_owned(),
        source,
    }
}
