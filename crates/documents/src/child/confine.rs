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

/// A user and a group that nothing belongs to and that no distribution gives away. Not `nobody`: the
/// embedded database is run by that.
const NO_OWNER: u32 = 65533;

/// Open files: the three that it has, and a few to spare.
const MAX_OPEN_FILES: u64 = 16;

/// Limits this process for good. Where it is root, it becomes a user who owns nothing.
pub(super) fn confine(limits: &Limits) -> Result<(), Errno> {
    limit(Resource::RLIMIT_AS, limits.memory_bytes, 0)?;
    // At the soft limit SIGXCPU tells the parent why the child died; SIGKILL would not.
    limit(Resource::RLIMIT_CPU, limits.cpu_seconds, 1)?;
    limit(Resource::RLIMIT_FSIZE, 0, 0)?;
    limit(Resource::RLIMIT_CORE, 0, 0)?;
    limit(Resource::RLIMIT_NOFILE, MAX_OPEN_FILES, 0)?;
    if geteuid().is_root() {
        setgroups(&[])?;
        setgid(Gid::from_raw(NO_OWNER))?;
        setuid(Uid::from_raw(NO_OWNER))?;
    }
    prctl::set_no_new_privs()
}

/// Sets a limit, or leaves a lower one that holds already.
fn limit(resource: Resource, soft: u64, hard_is_above_by: u64) -> Result<(), Errno> {
    let (_, ceiling) = getrlimit(resource)?;
    let hard = ceiling.min(soft.saturating_add(hard_is_above_by));
    setrlimit(resource, soft.min(hard), hard)
}
