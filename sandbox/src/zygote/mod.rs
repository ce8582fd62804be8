//! The zygote: a process with one thread and a loaded Python interpreter, from which sessions are
//! forked. It never runs the code of a cell.
//!
//! The zygote is this program again, started with an empty environment and no arguments, so that
//! neither its memory nor that of its sessions holds anything of the worker. Its standard input is
//! the control socket of the supervisor; the zygote ends when that socket closes.

#![expect(unsafe_code, reason = "forking is unsafe where there may be threads")]

pub mod messages;
mod session_process;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::fcntl::OFlag;
use nix::fcntl::open;
use nix::fcntl::openat;
use nix::libc;
use nix::sched::CloneFlags;
use nix::sched::setns;
use nix::sched::unshare;
use nix::sys::signal::SigHandler;
use nix::sys::signal::Signal;
use nix::sys::signal::signal;
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use nix::unistd::fork;
use sandbox_protocol::Tier;

use crate::confine::ConfineError;
use crate::confine::Context;
use crate::confine::filesystem;
use crate::confine::namespaces;
use crate::confine::syscalls;
use crate::descriptors;
use crate::interpreter::Interpreter;
use crate::interpreter::PythonError;
use messages::ForkRequest;
use messages::ZygoteMessage;
use messages::ZygoteSetup;
use session_process::SessionTemplate;

/// The program name (`argv[0]`) that makes this program a zygote.
pub const NAME: &str = "assistd-zygote";

/// Scheduling priority (nice value) of all sessions: other programs of the machine come first.
const NICENESS: i32 = 5;

/// Number of malloc arenas per process. By default each thread reserves address space for an arena
/// of its own, which would use up the RLIMIT_AS of a session.
const MALLOC_ARENAS: i32 = 2;

/// Field numbers of `/proc/self/stat`, counted from 0 (proc(5) counts from 1).
const STAT_NUM_THREADS: usize = 19;
const STAT_VSIZE: usize = 22;

/// Runs the zygote until its supervisor is gone.
pub fn run() -> ExitCode {
    // The name is only shown in process lists.
    let _ = nix::sys::prctl::set_name(c"assistd-zygote");
    let Ok(control) = take_control_socket() else {
        return ExitCode::FAILURE;
    };
    match serve(&control) {
        Ok(code) => code,
        Err(error) => {
            let message = match error {
                ZygoteError::Confine(error) => ZygoteMessage::Failed {
                    message: error.to_string(),
                },
                ZygoteError::Python(error) => ZygoteMessage::PythonFailed {
                    message: error.to_string(),
                },
            };
            // Sending fails only if the supervisor is gone, and then nobody needs the message.
            let _ = descriptors::send(&control, &message, &[]);
            ExitCode::FAILURE
        }
    }
}

/// Moves the control socket away from standard input, which sessions inherit.
fn take_control_socket() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let null = open(
        "/dev/null",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    nix::unistd::dup2_stdin(null)?;
    Ok(control)
}

/// Why a zygote could not start.
enum ZygoteError {
    Confine(ConfineError),
    Python(PythonError),
}

impl From<ConfineError> for ZygoteError {
    fn from(error: ConfineError) -> Self {
        Self::Confine(error)
    }
}

fn serve(control: &OwnedFd) -> Result<ExitCode, ZygoteError> {
    die_with_parent()?;
    let Ok((setup, _)) = descriptors::receive::<ZygoteSetup>(control) else {
        return Ok(ExitCode::SUCCESS);
    };
    let proc = open(
        "/proc",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .context("opening /proc")?;
    // SAFETY: the call takes three integers and changes the priority of this process only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    // SAFETY: the call takes two integers and sets a parameter of the allocator.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, MALLOC_ARENAS) };
    let privileged = namespaces::is_privileged();
    let mut venv = setup.venv.clone();
    if setup.tier == Tier::Namespaces {
        namespaces::enclose_zygote(&proc, privileged)?;
        if let Some(code) = become_first_process()? {
            return Ok(code);
        }
        filesystem::enter_own_root(&setup.venv, &setup.base)?;
        venv = PathBuf::from(filesystem::VENV);
    }
    let interpreter = Interpreter::start(&venv.join("bin/python3")).map_err(ZygoteError::Python)?;
    let zygote = Zygote::new(setup, venv, proc, privileged, interpreter)?;
    zygote.check_single_thread()?;
    // SAFETY: SIG_IGN installs no handler. The kernel then reaps the forked sessions by itself.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.context("ignoring SIGCHLD")?;
    let ready = ZygoteMessage::Ready {
        python: Interpreter::version(),
    };
    descriptors::send(control, &ready, &[]).context("reporting that the zygote is ready")?;
    // Any error means that the supervisor is gone.
    while let Ok((ForkRequest { number }, ends)) = descriptors::receive::<ForkRequest>(control) {
        let answer = match zygote.fork_session(number, ends) {
            Ok(()) => ZygoteMessage::Forked { number },
            Err(error) => ZygoteMessage::ForkFailed {
                number,
                message: error.to_string(),
            },
        };
        if descriptors::send(control, &answer, &[]).is_err() {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Zygote {
    template: SessionTemplate,
    own_pid_namespace: OwnedFd,
}

impl Zygote {
    fn new(
        setup: ZygoteSetup,
        venv: PathBuf,
        proc: OwnedFd,
        privileged: bool,
        interpreter: Interpreter,
    ) -> Result<Self, ConfineError> {
        let sockets = match setup.tier {
            Tier::Namespaces => syscalls::Sockets::Unix,
            Tier::Container | Tier::Unsafe => syscalls::Sockets::Pairs,
        };
        let filters = syscalls::compile(sockets)?;
        let own_pid_namespace = openat(
            &proc,
            "self/ns/pid",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .context("opening the process namespace")?;
        let address_space = read_stat(&proc, STAT_VSIZE)?;
        Ok(Self {
            template: SessionTemplate {
                setup,
                venv,
                privileged,
                proc,
                address_space,
                filters,
                interpreter,
            },
            own_pid_namespace,
        })
    }

    /// Forks a session. The session itself reports whether it could be confined.
    fn fork_session(&self, number: u32, ends: Vec<OwnedFd>) -> Result<(), ConfineError> {
        let ends = <[OwnedFd; 4]>::try_from(ends).map_err(|ends| {
            ConfineError::new("forking", format!("got {} descriptors, not 4", ends.len()))
        })?;
        self.check_single_thread()?;
        self.template.interpreter.before_fork();
        let forked = self.fork_into_namespace();
        if let Ok(ForkResult::Child) = forked {
            session_process::run(&self.template, number, ends.into());
        }
        self.template.interpreter.after_fork_in_parent();
        forked.map(drop)
    }

    /// Forks; in the namespaces tier the child gets a process namespace of its own.
    fn fork_into_namespace(&self) -> Result<ForkResult, ConfineError> {
        let own_namespace = self.template.setup.tier == Tier::Namespaces;
        if own_namespace {
            unshare(CloneFlags::CLONE_NEWPID).context("creating a process namespace")?;
        }
        // SAFETY: `check_single_thread` has found that this process has one thread.
        let forked = unsafe { fork() }.context("forking");
        if own_namespace && !matches!(forked, Ok(ForkResult::Child)) {
            setns(&self.own_pid_namespace, CloneFlags::CLONE_NEWPID)
                .context("returning to the zygote's process namespace")?;
        }
        forked
    }

    /// A fork copies only the calling thread: locks that another thread holds would stay locked.
    fn check_single_thread(&self) -> Result<(), ConfineError> {
        let threads = read_stat(&self.template.proc, STAT_NUM_THREADS)?;
        if threads == 1 {
            return Ok(());
        }
        Err(ConfineError::new(
            "forking",
            format!("the zygote has {threads} threads: a package starts some when it is imported"),
        ))
    }
}

/// Makes the kernel kill this process when its parent ends.
fn die_with_parent() -> Result<(), ConfineError> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("setting the parent-death signal")
}

/// Forks the first process of the new process namespace and continues in it. The original process
/// only waits for that child, so that the supervisor sees its end; it returns an exit code.
fn become_first_process() -> Result<Option<ExitCode>, ConfineError> {
    // Creating the user namespace has reset the parent-death signal.
    die_with_parent()?;
    // SAFETY: this process has started no thread so far.
    match unsafe { fork() }.context("forking")? {
        ForkResult::Child => die_with_parent().map(|()| None),
        ForkResult::Parent { child } => {
            // The child owns the control socket. A copy here would hide the child's end from the
            // supervisor.
            // SAFETY: nothing below uses a descriptor.
            let _ = unsafe { descriptors::close_from(0) };
            let _ = waitpid(child, None);
            // SAFETY: the call ends this process at once.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Reads a number from `/proc/self/stat`; `field` counts from 0.
fn read_stat(proc: &OwnedFd, field: usize) -> Result<u64, ConfineError> {
    let file = openat(
        proc,
        "self/stat",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .context("opening /proc/self/stat")?;
    let text = io::read_to_string(fs::File::from(file)).context("reading /proc/self/stat")?;
    // The second field, the program name, may contain spaces; it ends at the last parenthesis.
    text.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(field - 2))
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| ConfineError::new("reading /proc/self/stat", "unknown format"))
}
