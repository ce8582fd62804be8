//! Limits on what one session's processes may use.
//!
//! Not counted by any of them: what the kernel keeps for a session's sockets, pipes and file locks.
//! Files in its folders count apart, by the size of the folder. For both, the memory limit of the
//! worker's container or machine is the backstop, and sessions are what it ends first.

use std::io::Write;
use std::os::fd::AsFd;

use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::resource::Resource;
use nix::sys::resource::setrlimit;
use nix::sys::stat::Mode;
use serde::Deserialize;
use serde::Serialize;

use super::Failure;
use super::Trying;

/// The limits that the kernel enforces.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Limits {
    /// Address space of one process in bytes, beyond what the warm interpreter takes.
    pub memory_bytes: u64,
    /// Processes and threads together.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Apparent size of a file in bytes.
    pub file_bytes: u64,
    /// Size of `/mnt/data` in bytes.
    pub data_bytes: u64,
    /// Files, folders and links in `/mnt/data`.
    pub data_inodes: u64,
    /// Size of `/tmp` in bytes.
    pub tmp_bytes: u64,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
}

/// Large enough for deep recursion; it is also every thread's stack, and counts as memory.
const STACK_BYTES: u64 = 8 << 20;

/// Too small for any core file. Unlike 0 it also keeps cores from a program that the host may have
/// told the kernel to start for them.
pub const NO_CORE_BYTES: u64 = 1;

/// How likely the kernel is to end a session before others when memory runs out.
const OUT_OF_MEMORY_SCORE: &str = "500";

/// Limits this process and what it starts, but for open files. `base` is the address space of the warm interpreter
/// in bytes.
pub fn apply(limits: &Limits, base: u64) -> Result<(), Failure> {
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
        setrlimit(resource, value, value).trying(&format!("setting {resource:?}"))?;
    }
    Ok(())
}

/// Limits how many files this process and what it starts may have open.
///
/// Apart from the other limits, because it also limits how many descriptors may be on their way
/// between processes of one user, and sessions of an ordinary user share theirs: one that parks
/// many would keep others from being born.
pub fn apply_to_open_files(limits: &Limits) -> Result<(), Failure> {
    setrlimit(
        Resource::RLIMIT_NOFILE,
        limits.open_files,
        limits.open_files,
    )
    .trying("setting RLIMIT_NOFILE")
}

/// Lets the kernel end this process rather than the worker when memory runs out.
pub fn volunteer_for_out_of_memory(proc: impl AsFd) -> Result<(), Failure> {
    let file = openat(
        proc,
        "self/oom_score_adj",
        OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .trying("opening /proc/self/oom_score_adj")?;
    std::fs::File::from(file)
        .write_all(OUT_OF_MEMORY_SCORE.as_bytes())
        .trying("writing /proc/self/oom_score_adj")
}
