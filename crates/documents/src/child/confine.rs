//! Confinement of the child process before it reads the file.

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

/// User and group id that owns no files and that no distribution assigns. Not `nobody`, which runs
/// the embedded database.
const NO_OWNER: u32 = 65533;

/// Maximum number of open files: the three standard streams, and a few for libraries.
const MAX_OPEN_FILES: u64 = 16;

/// Sets the limits of this process, drops root privileges, and sets no_new_privs.
pub(super) fn confine(limits: &Limits) -> Result<(), Errno> {
    limit(Resource::RLIMIT_AS, limits.memory_bytes, 0)?;
    // The soft limit comes first because its SIGXCPU identifies the cause, unlike the SIGKILL of
    // the hard limit.
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

/// Sets a limit unless a lower hard limit is already in force.
fn limit(resource: Resource, soft: u64, hard_is_above_by: u64) -> Result<(), Errno> {
    let (_, ceiling) = getrlimit(resource)?;
    let hard = ceiling.min(soft.saturating_add(hard_is_above_by));
    setrlimit(resource, soft.min(hard), hard)
}
