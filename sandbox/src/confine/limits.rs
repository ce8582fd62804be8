//! Resource limits of a session's processes.
//!
//! They do not count kernel memory of sockets, pipes and file locks. Files in the writable folders
//! are limited by the size of the folder instead. For both, the memory limit of the container or
//! the machine is the backstop, and the kernel kills sessions first when it is reached.

use std::io::Write;
use std::os::fd::AsFd;

use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::resource::Resource;
use nix::sys::resource::setrlimit;
use nix::sys::stat::Mode;
use serde::Deserialize;
use serde::Serialize;

use super::ConfineError;
use super::Context;

/// Limits that the kernel enforces.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Limits {
    /// Address space of a process in bytes, in addition to that of the zygote.
    pub memory_bytes: u64,
    /// Maximum number of processes and threads together.
    pub processes: u64,
    /// Maximum number of open files per process.
    pub open_files: u64,
    /// Maximum apparent size of a file in bytes.
    pub file_bytes: u64,
    /// Size of `/mnt/data` in bytes.
    pub data_bytes: u64,
    /// Maximum number of files, folders and links in `/mnt/data`.
    pub data_inodes: u64,
    /// Size of `/tmp` in bytes.
    pub tmp_bytes: u64,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
}

/// Stack size: large enough for deep recursion. It is also the stack of every thread, which counts
/// toward the address space.
const STACK_BYTES: u64 = 8 << 20;

/// Too small for any core file. Unlike 0, it also disables a core-dump handler of the host
/// (`core_pattern` with a pipe).
pub const NO_CORE_BYTES: u64 = 1;

/// Added to the badness of a session: the kernel's OOM killer picks sessions first (0 to 1000).
const OUT_OF_MEMORY_SCORE: &str = "500";

/// Limits this process and its children, except for open files. `base` is the address space of the
/// zygote in bytes.
pub fn apply(limits: &Limits, base: u64) -> Result<(), ConfineError> {
    let table = [
        (
            Resource::RLIMIT_AS,
            base.saturating_add(limits.memory_bytes),
        ),
        (Resource::RLIMIT_NPROC, limits.processes),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_STACK, STACK_BYTES),
        (Resource::RLIMIT_CORE, NO_CORE_BYTES),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ];
    for (resource, value) in table {
        setrlimit(resource, value, value).context(&format!("setting {resource:?}"))?;
    }
    Ok(())
}

/// Limits the open files of this process and its children.
///
/// This limit comes last because it also bounds the descriptors in flight between processes of one
/// user, and the sessions of an unprivileged worker share a user: a session that keeps many in
/// flight would prevent others from starting.
pub fn apply_to_open_files(limits: &Limits) -> Result<(), ConfineError> {
    setrlimit(
        Resource::RLIMIT_NOFILE,
        limits.open_files,
        limits.open_files,
    )
    .context("setting RLIMIT_NOFILE")
}

/// Makes the kernel's OOM killer prefer this process to the worker.
pub fn raise_oom_score(proc: impl AsFd) -> Result<(), ConfineError> {
    let file = openat(
        proc,
        "self/oom_score_adj",
        OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .context("opening /proc/self/oom_score_adj")?;
    std::fs::File::from(file)
        .write_all(OUT_OF_MEMORY_SCORE.as_bytes())
        .context("writing /proc/self/oom_score_adj")
}
