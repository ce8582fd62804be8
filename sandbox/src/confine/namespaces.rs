//! Namespaces, user ids and capabilities of a session.

use std::io::Write;
use std::os::fd::AsFd;

use caps::CapSet;
use caps::Capability;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::sys::stat::Mode;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::setgroups;
use nix::unistd::sethostname;
use nix::unistd::setresgid;
use nix::unistd::setresuid;

use super::ConfineError;
use super::Context;

/// User and group id of a session, as seen from inside.
pub const INNER_ID: u32 = 1000;

/// Whether this process has the capabilities to create namespaces and to change user ids, as root
/// has.
pub fn is_privileged() -> bool {
    [
        Capability::CAP_SYS_ADMIN,
        Capability::CAP_SETUID,
        Capability::CAP_SETGID,
        Capability::CAP_CHOWN,
        Capability::CAP_KILL,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_SYS_PTRACE,
    ]
    .into_iter()
    .all(|capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false))
}

/// Moves the zygote into namespaces of its own; its children get a process namespace. Without
/// privileges this takes a user namespace, in which the zygote keeps its id.
pub fn enclose_zygote(proc: impl AsFd, privileged: bool) -> Result<(), ConfineError> {
    if !privileged {
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        unshare(CloneFlags::CLONE_NEWUSER).context("creating a user namespace")?;
        map_ids(&proc, (uid, uid), (gid, gid))?;
    }
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC,
    )
    .context("creating mount, process, network and IPC namespaces")
}

/// Moves a session into its remaining namespaces; it already has those for mounts and processes.
/// `outer` is the session's user and group id outside.
pub fn enclose_session(proc: impl AsFd, outer: (u32, u32)) -> Result<(), ConfineError> {
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .context("creating user, network, IPC, UTS and cgroup namespaces")?;
    map_ids(proc, (INNER_ID, outer.0), (INNER_ID, outer.1))?;
    sethostname("sandbox").context("setting the host name")
}

/// Changes the user and group id permanently.
pub fn become_user(uid: u32, gid: u32) -> Result<(), ConfineError> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).context("clearing the supplementary groups")?;
    setresgid(gid, gid, gid).context("changing the group id")?;
    setresuid(uid, uid, uid).context("changing the user id")?;
    // The change made this process undumpable, and its /proc entries root's.
    nix::sys::prctl::set_dumpable(true).context("making the process dumpable")
}

/// Empties the capability bounding set if this process may. If it may not, no_new_privs keeps
/// programs from gaining capabilities.
pub fn empty_bounding_set() -> Result<(), ConfineError> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        caps::clear(None, CapSet::Bounding).context("emptying the capability bounding set")?;
    }
    Ok(())
}

/// Drops all capabilities permanently.
pub fn drop_capabilities() -> Result<(), ConfineError> {
    empty_bounding_set()?;
    for set in [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
    ] {
        caps::clear(None, set).context("dropping capabilities")?;
    }
    nix::sys::prctl::set_no_new_privs().context("setting no_new_privs")
}

/// Maps one user and one group id, each given as (inside, outside).
fn map_ids(proc: impl AsFd, user: (u32, u32), group: (u32, u32)) -> Result<(), ConfineError> {
    write(&proc, "self/setgroups", "deny")?;
    write(&proc, "self/uid_map", &format!("{} {} 1", user.0, user.1))?;
    write(&proc, "self/gid_map", &format!("{} {} 1", group.0, group.1))
}

fn write(proc: impl AsFd, name: &str, text: &str) -> Result<(), ConfineError> {
    let file = openat(
        proc,
        name,
        OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .context(&format!("opening /proc/{name}"))?;
    std::fs::File::from(file)
        .write_all(text.as_bytes())
        .context(&format!("writing /proc/{name}"))
}
