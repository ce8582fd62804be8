//! A session from its fork to its first cell: confines a copy of the zygote, then runs the kernel.
//!
//! A session consists of two processes. The *init* is the first process of its process namespace:
//! it reaps children, and when it ends the kernel kills all others. Its child runs Python.

#![expect(unsafe_code, reason = "forking is unsafe where there may be threads")]

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::open;
use nix::libc;
use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::sys::prctl;
use nix::sys::signal::SigHandler;
use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::signal::signal;
use nix::sys::signal::sigprocmask;
use nix::sys::stat::Mode;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::wait;
use nix::unistd::ForkResult;
use nix::unistd::Gid;
use nix::unistd::Pid;
use nix::unistd::Uid;
use nix::unistd::fork;
use nix::unistd::getpid;
use sandbox_protocol::Tier;

use crate::confine::ConfineError;
use crate::confine::Context;
use crate::confine::filesystem;
use crate::confine::landlock;
use crate::confine::limits;
use crate::confine::namespaces;
use crate::confine::syscalls;
use crate::descriptors;
use crate::interpreter::Interpreter;
use crate::zygote::messages::SessionReport;
use crate::zygote::messages::ZygoteSetup;

/// The descriptor number of the kernel's socket.
const KERNEL_SOCKET: libc::c_int = 3;

const NOT_CONFINED: libc::c_int = 3;

/// What every session is made from.
pub(super) struct SessionTemplate {
    pub(super) setup: ZygoteSetup,
    /// The virtual environment, as a session sees it.
    pub(super) venv: PathBuf,
    /// Whether sessions get user ids of their own.
    pub(super) privileged: bool,
    /// `/proc` as it was before the root changed.
    pub(super) proc: OwnedFd,
    /// Address space of the zygote in bytes.
    pub(super) address_space: u64,
    pub(super) filters: syscalls::Filters,
    pub(super) interpreter: Interpreter,
}

/// The session's ends of its connections with the supervisor.
pub(super) struct SessionEnds {
    kernel: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    report: OwnedFd,
}

impl From<[OwnedFd; 4]> for SessionEnds {
    fn from([kernel, stdout, stderr, report]: [OwnedFd; 4]) -> Self {
        Self {
            kernel,
            stdout,
            stderr,
            report,
        }
    }
}

/// The result of confining a session.
struct Confinement {
    workspace: OwnedFd,
    landlock: i32,
    has_process_list: bool,
    user: Option<u32>,
}

/// Turns this process, just forked from the zygote, into a session.
pub(super) fn run(template: &SessionTemplate, number: u32, ends: SessionEnds) -> ! {
    let outcome = confine(template, number).and_then(|confined| Ok((confined, fork_python()?)));
    match outcome {
        Ok((_, ForkResult::Child)) => run_python(template, ends),
        Ok((confinement, ForkResult::Parent { child })) => {
            // kill(-1) may only be used where it cannot reach processes of other sessions.
            let kills_all = template.setup.tier != Tier::Namespaces
                && (confinement.user.is_some()
                    || confinement.landlock >= landlock::ABI_WITH_SCOPES);
            match report_confinement(&ends.report, confinement, child)
                .and_then(|()| limits::apply_to_open_files(&template.setup.limits))
                .and_then(|()| syscalls::install(&template.filters))
            {
                Ok(()) => reap_children(child, kills_all),
                Err(error) => report_failure(&ends.report, error),
            }
        }
        Err(error) => report_failure(&ends.report, error),
    }
}

/// Applies every layer of confinement except the syscall filter, which would refuse the remaining
/// steps. The order of the steps matters.
fn confine(template: &SessionTemplate, number: u32) -> Result<Confinement, ConfineError> {
    reset_signals().context("resetting signals")?;
    // Fails only if this process already leads a POSIX session.
    let _ = nix::unistd::setsid();
    let tier = template.setup.tier;
    let limits = &template.setup.limits;
    let user = template
        .privileged
        .then_some(template.setup.first_id + number);
    let (uid, gid) = match user {
        Some(id) => (id, id),
        None => (Uid::effective().as_raw(), Gid::effective().as_raw()),
    };
    limits::raise_oom_score(&template.proc).or_else(unless_required(tier))?;

    let (workspace, has_process_list) = if tier == Tier::Namespaces {
        unshare(CloneFlags::CLONE_NEWNS).context("creating a mount namespace")?;
        filesystem::mount_own(limits, uid, gid)?
    } else {
        prctl::set_child_subreaper(true).context("becoming a child subreaper")?;
        (filesystem::open_workspace()?, true)
    };
    if let Some(id) = user {
        if tier != Tier::Namespaces {
            nix::unistd::fchown(&workspace, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))
                .context("changing the owner of /mnt/data")?;
        }
        // Another user may not empty the bounding set. Creating the user namespace restores all
        // capabilities; `drop_capabilities` removes them again.
        namespaces::empty_bounding_set()?;
        namespaces::become_user(id, id)?;
    }
    if tier == Tier::Namespaces {
        namespaces::enclose_session(&template.proc, (uid, gid))?;
    }
    if tier != Tier::Namespaces {
        // In the namespaces tier the zygote's process namespace does this. It comes after the
        // change of the user, which resets the parent-death signal.
        prctl::set_pdeathsig(Signal::SIGKILL).context("setting the parent-death signal")?;
    }
    // The name is only shown in process lists.
    let _ = prctl::set_name(c"sandbox-init");
    // Cells may read the /proc entries of the Python process, but not those of the init.
    prctl::set_dumpable(false).context("making the init undumpable")?;
    nix::unistd::chdir(filesystem::DATA).context("entering /mnt/data")?;
    limits::apply(limits, template.address_space)?;
    let landlock = match tier {
        Tier::Namespaces => {
            landlock::apply(&[Path::new("/")], filesystem::WRITABLE, filesystem::DEVICES)
                // Landlock is one layer of several in this tier. `check` reports it as missing.
                .unwrap_or(0)
        }
        Tier::Container | Tier::Unsafe => landlock::apply(
            &readable_paths(template),
            filesystem::WRITABLE,
            filesystem::DEVICES,
        )
        .or_else(|error| unless_required(tier)(error).map(|()| 0))?,
    };
    namespaces::drop_capabilities()?;
    Ok(Confinement {
        workspace,
        landlock,
        has_process_list,
        user,
    })
}

/// Paths that a session may read in a tier where it sees the worker's own root.
fn readable_paths(template: &SessionTemplate) -> Vec<&Path> {
    let system = filesystem::READABLE
        .iter()
        .chain(filesystem::READABLE_FILES);
    system
        .map(Path::new)
        .chain([template.venv.as_path(), template.setup.base.as_path()])
        .collect()
}

/// Ignores an error in the unsafe tier.
fn unless_required(tier: Tier) -> impl Fn(ConfineError) -> Result<(), ConfineError> {
    move |error| match tier {
        Tier::Unsafe => Ok(()),
        Tier::Namespaces | Tier::Container => Err(error),
    }
}

/// Restores the signal mask and the dispositions that were inherited from the zygote or the worker.
fn reset_signals() -> Result<(), Errno> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    for number in [Signal::SIGCHLD, Signal::SIGINT] {
        // SAFETY: SIG_DFL installs no handler.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    Ok(())
}

fn fork_python() -> Result<ForkResult, ConfineError> {
    // SAFETY: the zygote had one thread when it forked this process, which has started none.
    unsafe { fork() }.context("forking")
}

fn report_confinement(
    report: &OwnedFd,
    confinement: Confinement,
    python: Pid,
) -> Result<(), ConfineError> {
    let init = descriptors::open_process(getpid().as_raw()).context("opening the init")?;
    let python =
        descriptors::open_process(python.as_raw()).context("opening the Python process")?;
    let message = SessionReport::Confined {
        landlock: confinement.landlock,
        has_process_list: confinement.has_process_list,
        user: confinement.user,
    };
    let descriptors = [&init, &python, &confinement.workspace].map(AsRawFd::as_raw_fd);
    descriptors::send(report, &message, &descriptors).context("reporting to the supervisor")
}

fn report_failure(report: &OwnedFd, error: ConfineError) -> ! {
    let message = error.to_string();
    // Sending fails only if the supervisor is gone.
    let _ = descriptors::send(report, &SessionReport::Failed { message }, &[]);
    exit(NOT_CONFINED)
}

/// The init's loop: reaps children until Python ends, then ends itself. The kernel kills the rest
/// of its process namespace; without one, `kills_all` makes the init kill every process it can
/// signal.
fn reap_children(python: Pid, kills_all: bool) -> ! {
    // SAFETY: nothing below uses a descriptor, and no owner of one is dropped.
    let _ = unsafe { descriptors::close_from(0) };
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) if pid == python => {
                break;
            }
            Err(Errno::ECHILD) => break,
            _ => {}
        }
    }
    while kills_all && kill(Pid::from_raw(-1), Signal::SIGKILL).is_ok() && wait().is_ok() {}
    exit(0)
}

/// Arranges the standard descriptors, installs the syscall filter, and serves cells.
fn run_python(template: &SessionTemplate, ends: SessionEnds) -> ! {
    let prepared = arrange_descriptors(ends)
        .and_then(|()| prctl::set_dumpable(true).context("making the process dumpable"))
        .and_then(|()| limits::apply_to_open_files(&template.setup.limits))
        .and_then(|()| syscalls::install(&template.filters));
    // The name is only shown in process lists.
    let _ = prctl::set_name(c"sandbox-python");
    if let Err(error) = prepared {
        // The supervisor reads this pipe when the kernel does not become ready.
        eprintln!("{error}");
        exit(NOT_CONFINED)
    }
    // SAFETY: `arrange_descriptors` has put the socket there, and nothing closes it.
    let socket = unsafe { BorrowedFd::borrow_raw(KERNEL_SOCKET) };
    match template.interpreter.serve(socket) {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("{error}");
            exit(1)
        }
    }
}

/// Makes descriptors 0 to 3 `/dev/null`, the two output pipes and the kernel's socket, and closes
/// all others.
fn arrange_descriptors(ends: SessionEnds) -> Result<(), ConfineError> {
    let null = open("/dev/null", OFlag::O_RDWR, Mode::empty()).context("opening /dev/null")?;
    let wanted = [&null, &ends.stdout, &ends.stderr, &ends.kernel];
    // Duplicates above the target numbers, so that no dup2 below overwrites a source.
    let duplicates = wanted
        .map(|fd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(KERNEL_SOCKET + 1)));
    for (target, fd) in duplicates.into_iter().enumerate() {
        let fd = fd.context("arranging descriptors")?;
        // SAFETY: both are plain numbers; the previous owner of the target is not used again.
        Errno::result(unsafe { libc::dup2(fd, target as libc::c_int) })
            .context("arranging descriptors")?;
    }
    std::mem::forget((null, ends));
    // Programs that a cell starts must not inherit the kernel's socket.
    // SAFETY: the call changes a flag of a descriptor.
    unsafe { libc::fcntl(KERNEL_SOCKET, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: the owners of these descriptors were forgotten, or belong to the template, of which
    // only the interpreter and the filters are used again.
    unsafe { descriptors::close_from(KERNEL_SOCKET as u32 + 1) }.context("closing descriptors")
}

/// Ends this process without running exit handlers, which belong to the template.
fn exit(code: libc::c_int) -> ! {
    // SAFETY: the call does not return.
    unsafe { libc::_exit(code) }
}
