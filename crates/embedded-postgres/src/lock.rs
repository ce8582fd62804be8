//! The lock on a data folder: its holder alone runs the database there.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::error::PostgresError;
use crate::error::at;

/// How long to wait for the lock while its holder is alive. A process that this one has just forked
/// holds copies of all its locks until it executes its program.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The same if the holder is dead: its children may hold the lock until the system schedules them.
const DEAD_HOLDER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) async fn acquire(data_dir: &Path) -> Result<Self, PostgresError> {
        let started = Instant::now();
        loop {
            match Self::try_acquire(data_dir) {
                Err(PostgresError::InUse { pid, .. }) if started.elapsed() < timeout(pid) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn try_acquire(data_dir: &Path) -> Result<Self, PostgresError> {
        if !data_dir.exists() {
            let mut builder = fs::DirBuilder::new();
            // The database's user must be able to pass through a folder of root to its own.
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
        // The process id is for error messages only, so a full disk does not prevent the start.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn timeout(holder: Option<i32>) -> Duration {
    let is_dead = |pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH);
    match holder {
        Some(pid) if is_dead(pid) => DEAD_HOLDER_TIMEOUT,
        Some(_) | None => TIMEOUT,
    }
}
