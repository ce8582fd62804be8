//! The first moments of a session: from a copy of the zygote to a confined process.
//!
//! Two processes come of it: the *init*, the first of its process namespace, which only buries
//! the dead and whose end ends all others; and the one that runs Python.

#![expect(unsafe_code, reason = "forking is unsafe where there may be threads")]

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;

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
use serde::Deserialize;
use serde::Serialize;

use crate::confine::Failure;
use crate::confine::Trying;
use crate::confine::filesystem;
use crate::confine::landlock;
use crate::confine::limits;
use crate::confine::namespaces;
use crate::confine::syscalls;
use crate::descriptors;
use crate::zygote;
use crate::zygote::Zygote;

/// Where the kernel finds its socket.
const KERNEL_SOCKET: libc::c_int = 3;

/// The exit code of a session that could not be confined.
const NOT_CONFINED: libc::c_int = 3;

/// The session's ends of what connects it with the supervisor.
pub struct Ends {
    kernel: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    report: OwnedFd,
}

impl From<[OwnedFd; 4]> for Ends {
    fn from([kernel, stdout, stderr, report]: [OwnedFd; 4]) -> Self {
        Self {
            kernel,
            stdout,
            stderr,
            report,
        }
    }
}

/// What a session tells the supervisor of its birth, before it runs anything.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Birth {
    /// It lives. Comes with three descriptors: of its init, of Python, and of `/mnt/data`.
    Born {
        /// The Landlock version that holds, or 0.
        landlock: i32,
        /// Whether it has a process list of its own.
        processes: bool,
        /// User and group outside, if they are not the worker's.
        user: Option<u32>,
    },
    /// It could not be confined, and ends.
    Failed {
        /// Why.
        message: String,
    },
}

/// What holds by the time Python is forked.
struct Confined {
    workspace: OwnedFd,
    landlock: i32,
    processes: bool,
    user: Option<u32>,
}

/// Turns this process, just forked from the zygote, into a session.
pub fn be_session(zygote: &Zygote, number: u32, ends: Ends) -> ! {
    let outcome = confine(zygote, number).and_then(|confined| Ok((confined, fork_python()?)));
    match outcome {
        Ok((_, ForkResult::Child)) => run_python(zygote, ends),
        Ok((confined, ForkResult::Parent { child })) => {
            let clears_up = zygote.setup.tier != Tier::Namespaces
                && (confined.user.is_some() || confined.landlock >= landlock::ABI_WITH_SCOPES);
            match tell_of_birth(&ends.report, confined, child)
                .and_then(|()| limits::apply_to_open_files(&zygote.setup.limits))
                .and_then(|()| syscalls::install(&zygote.filters))
            {
                Ok(()) => bury_the_dead(child, clears_up),
                Err(failure) => fail(&ends.report, failure),
            }
        }
        Err(failure) => fail(&ends.report, failure),
    }
}

/// Everything that confines a session, but for the syscall filter, which would refuse what is
/// still to be done.
fn confine(zygote: &Zygote, number: u32) -> Result<Confined, Failure> {
    reset_signals().trying("resetting signals")?;
    // Fails only for a process that leads a session of the terminal's kind already.
    let _ = nix::unistd::setsid();
    let tier = zygote.setup.tier;
    let limits = &zygote.setup.limits;
    let user = zygote.privileged.then_some(zygote.setup.first_id + number);
    let (uid, gid) = match user {
        Some(id) => (id, id),
        None => (Uid::effective().as_raw(), Gid::effective().as_raw()),
    };
    limits::volunteer_for_out_of_memory(&zygote.proc).or_else(unless_required(tier))?;

    let (workspace, processes) = if tier == Tier::Namespaces {
        unshare(CloneFlags::CLONE_NEWNS).trying("making a mount namespace")?;
        filesystem::mount_own(limits, uid, gid)?
    } else {
        prctl::set_child_subreaper(true).trying("adopting orphans")?;
        (filesystem::open_workspace()?, true)
    };
    if let Some(id) = user {
        if tier != Tier::Namespaces {
            nix::unistd::fchown(&workspace, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))
                .trying("giving /mnt/data to the session")?;
        }
        // As another user it may not. A user namespace gives all of them back, and there they are
        // given up again.
        namespaces::empty_bounding_set()?;
        namespaces::become_user(id, id)?;
    }
    if tier == Tier::Namespaces {
        namespaces::enclose_session(&zygote.proc, (uid, gid))?;
    }
    if tier != Tier::Namespaces {
        // Elsewhere the process namespace sees to it. Changing the user would have undone it.
        prctl::set_pdeathsig(Signal::SIGKILL).trying("arranging to end with the zygote")?;
    }
    // For whoever looks at the machine's processes.
    let _ = prctl::set_name(c"sandbox-init");
    // Python is to see its own entries in the process list; the init's are nobody's business.
    prctl::set_dumpable(false).trying("hiding the init")?;
    nix::unistd::chdir(filesystem::DATA).trying("entering /mnt/data")?;
    limits::apply(limits, zygote.address_space)?;
    let landlock = match tier {
        Tier::Namespaces => {
            landlock::apply(&[Path::new("/")], filesystem::WRITABLE, filesystem::DEVICES)
                // One layer of several here; the worker reports that it is missing.
                .unwrap_or(0)
        }
        Tier::Container | Tier::Unsafe => landlock::apply(
            &zygote::readable(zygote),
            filesystem::WRITABLE,
            filesystem::DEVICES,
        )
        .or_else(|failure| unless_required(tier)(failure).map(|()| 0))?,
    };
    namespaces::drop_capabilities()?;
    Ok(Confined {
        workspace,
        landlock,
        processes,
        user,
    })
}

/// Forgives what only development may do without.
fn unless_required(tier: Tier) -> impl Fn(Failure) -> Result<(), Failure> {
    move |failure| match tier {
        Tier::Unsafe => Ok(()),
        Tier::Namespaces | Tier::Container => Err(failure),
    }
}

/// Undoes what the zygote or whatever started the worker has set.
fn reset_signals() -> Result<(), Errno> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    for number in [Signal::SIGCHLD, Signal::SIGINT] {
        // SAFETY: the default action runs no code of ours.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    Ok(())
}

fn fork_python() -> Result<ForkResult, Failure> {
    // SAFETY: this process is a fork of one with a single thread, and has started none.
    unsafe { fork() }.trying("forking")
}

/// Tells the supervisor that the session lives.
fn tell_of_birth(report: &OwnedFd, confined: Confined, python: Pid) -> Result<(), Failure> {
    let init = descriptors::open_process(getpid().as_raw()).trying("opening the init")?;
    let python = descriptors::open_process(python.as_raw()).trying("opening Python's process")?;
    let birth = Birth::Born {
        landlock: confined.landlock,
        processes: confined.processes,
        user: confined.user,
    };
    let held = [&init, &python, &confined.workspace].map(AsRawFd::as_raw_fd);
    descriptors::send(report, &birth, &held).trying("telling of the birth")
}

fn fail(report: &OwnedFd, failure: Failure) -> ! {
    let message = failure.to_string();
    // Without a supervisor there is nobody to tell.
    let _ = descriptors::send(report, &Birth::Failed { message }, &[]);
    exit(NOT_CONFINED)
}

/// Waits for Python to end, and ends. With the init its process namespace ends; where it has none,
/// and cannot reach any other's processes, `clears_up` makes it end them all itself.
fn bury_the_dead(python: Pid, clears_up: bool) -> ! {
    // SAFETY: nothing below uses a descriptor, and what owns one is never dropped.
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
    while clears_up && kill(Pid::from_raw(-1), Signal::SIGKILL).is_ok() && wait().is_ok() {}
    exit(0)
}

/// Puts the descriptors where programs look for them, takes the last layer of confinement, and
/// serves cells.
fn run_python(zygote: &Zygote, ends: Ends) -> ! {
    let done = arrange_descriptors(ends)
        .and_then(|()| prctl::set_dumpable(true).trying("staying readable to oneself"))
        .and_then(|()| limits::apply_to_open_files(&zygote.setup.limits))
        .and_then(|()| syscalls::install(&zygote.filters));
    // For whoever looks at the machine's processes.
    let _ = prctl::set_name(c"sandbox-python");
    if let Err(failure) = done {
        // The supervisor reads this descriptor, and nobody's code runs yet.
        eprintln!("{failure}");
        exit(NOT_CONFINED)
    }
    // SAFETY: the descriptor was put there just now and stays.
    let socket = unsafe { BorrowedFd::borrow_raw(KERNEL_SOCKET) };
    match zygote.interpreter.serve(socket) {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("{error}");
            exit(1)
        }
    }
}

/// Nothing, the two pipes and the kernel's socket; everything else is closed.
fn arrange_descriptors(ends: Ends) -> Result<(), Failure> {
    let nothing = open("/dev/null", OFlag::O_RDWR, Mode::empty()).trying("opening /dev/null")?;
    let wanted = [&nothing, &ends.stdout, &ends.stderr, &ends.kernel];
    // Out of the way of the places that are filled below.
    let aside = wanted
        .map(|fd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(KERNEL_SOCKET + 1)));
    for (place, fd) in aside.into_iter().enumerate() {
        let fd = fd.trying("arranging descriptors")?;
        // SAFETY: both are plain numbers; what had the place is not used again.
        Errno::result(unsafe { libc::dup2(fd, place as libc::c_int) })
            .trying("arranging descriptors")?;
    }
    std::mem::forget((nothing, ends));
    // The kernel's socket is not for the programs that a cell starts.
    // SAFETY: it changes a flag of a descriptor.
    unsafe { libc::fcntl(KERNEL_SOCKET, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: whatever owned these descriptors was forgotten, or belongs to the zygote's part of
    // this process, which is never used again but for the interpreter and the filters.
    unsafe { descriptors::close_from(KERNEL_SOCKET as u32 + 1) }.trying("closing descriptors")
}

/// Ends this process without running what the zygote wanted to run at its end.
fn exit(code: libc::c_int) -> ! {
    // SAFETY: nothing runs after it.
    unsafe { libc::_exit(code) }
}
