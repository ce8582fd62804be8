//! Namespaces, and who a session is inside and outside of them.

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

use super::Failure;
use super::Trying;

/// The user that a session is, as itself sees it.
pub const INNER_ID: u32 = 1000;

/// Whether this process may make namespaces and take other users' ids, as root may.
pub fn may_become_others() -> bool {
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

/// Puts the zygote into namespaces of its own, a process namespace for its children among them.
/// Without privileges that takes a user namespace, in which the zygote keeps its own id.
pub fn enclose_zygote(proc: impl AsFd, privileged: bool) -> Result<(), Failure> {
    if !privileged {
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        unshare(CloneFlags::CLONE_NEWUSER).trying("making a user namespace")?;
        map_ids(&proc, (uid, uid), (gid, gid))?;
    }
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC,
    )
    .trying("making mount, process, network and IPC namespaces")
}

/// Gives a session namespaces of its own, but for mounts and processes, which it has by now.
/// `outer` is the id that the session has outside.
pub fn enclose_session(proc: impl AsFd, outer: (u32, u32)) -> Result<(), Failure> {
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .trying("making user, network, IPC, host name and cgroup namespaces")?;
    map_ids(proc, (INNER_ID, outer.0), (INNER_ID, outer.1))?;
    sethostname("sandbox").trying("setting the host name")
}

/// Takes another user's id for good.
pub fn become_user(uid: u32, gid: u32) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).trying("leaving all groups")?;
    setresgid(gid, gid, gid).trying("taking the session's group")?;
    setresuid(uid, uid, uid).trying("taking the session's user")?;
    // The change made /proc/self another user's.
    nix::sys::prctl::set_dumpable(true).trying("staying readable to oneself")
}

/// Gives up the capabilities that programs could gain, as far as this process may. Where it may
/// not, no_new_privs keeps programs from gaining any.
pub fn empty_bounding_set() -> Result<(), Failure> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        caps::clear(None, CapSet::Bounding).trying("emptying the capability bounding set")?;
    }
    Ok(())
}

/// Gives up every capability, for good.
pub fn drop_capabilities() -> Result<(), Failure> {
    empty_bounding_set()?;
    for set in [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
    ] {
        caps::clear(None, set).trying("dropping capabilities")?;
    }
    nix::sys::prctl::set_no_new_privs().trying("setting no_new_privs")
}

/// Maps one user and one group, each given as (inside, outside).
fn map_ids(proc: impl AsFd, user: (u32, u32), group: (u32, u32)) -> Result<(), Failure> {
    write(&proc, "self/setgroups", "deny")?;
    write(&proc, "self/uid_map", &format!("{} {} 1", user.0, user.1))?;
    write(&proc, "self/gid_map", &format!("{} {} 1", group.0, group.1))
}

fn write(proc: impl AsFd, name: &str, text: &str) -> Result<(), Failure> {
    let file = openat(
        proc,
        name,
        OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .trying(&format!("opening /proc/{name}"))?;
    std::fs::File::from(file)
        .write_all(text.as_bytes())
        .trying(&format!("writing /proc/{name}"))
}
