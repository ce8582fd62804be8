//! What the child takes from itself before it sees the file.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::geteuid;
use nix::unistd::setgid;
use nix::unistd::setgroups;
use nix::unistd::setuid;

use super::Limits;

/// nobody and nogroup, on every distribution.
const NOBODY: u32 = 65534;

/// Open files: the three that it has, and a few to spare.
const MAX_OPEN_FILES: u64 = 16;

/// Limits this process for good. Where it is root, it becomes nobody.
pub(super) fn confine(limits: &Limits) -> Result<(), Errno> {
    limit(Resource::RLIMIT_AS, limits.memory_bytes, 0)?;
    // At the soft limit SIGXCPU tells the parent why the child died; SIGKILL would not.
    limit(Resource::RLIMIT_CPU, limits.cpu_seconds, 1)?;
    limit(Resource::RLIMIT_FSIZE, 0, 0)?;
    limit(Resource::RLIMIT_CORE, 0, 0)?;
    limit(Resource::RLIMIT_NOFILE, MAX_OPEN_FILES, 0)?;
    if geteuid().is_root() {
        setgroups(&[])?;
        setgid(Gid::from_raw(NOBODY))?;
        setuid(Uid::from_raw(NOBODY))?;
    }
    prctl::set_no_new_privs()
}

/// Sets a limit, or leaves a lower one that holds already.
fn limit(resource: Resource, soft: u64, hard_is_above_by: u64) -> Result<(), Errno> {
    let (_, ceiling) = getrlimit(resource)?;
    let hard = ceiling.min(soft.saturating_add(hard_is_above_by));
    setrlimit(resource, soft.min(hard), hard)
}
