//! The zygote: a process with one thread and a warm interpreter, which never runs anybody's
//! code. It forks the sessions.
//!
//! It is this program again, started with an empty environment and no arguments, so that neither
//! its memory nor its sessions' hold anything of the worker's. It talks with the worker over a
//! socket that it finds as its standard input, and ends when that closes.

#![expect(unsafe_code, reason = "forking is unsafe where there may be threads")]

pub mod session_process;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
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
use serde::Deserialize;
use serde::Serialize;

use crate::confine::Failure;
use crate::confine::Trying;
use crate::confine::filesystem;
use crate::confine::limits::Limits;
use crate::confine::namespaces;
use crate::confine::syscalls;
use crate::descriptors;
use crate::interpreter::Interpreter;
use crate::interpreter::PythonError;

/// The name that the zygote is started under, in place of any argument.
pub const NAME: &str = "assistd-zygote";

/// Sessions give way to whatever else the machine does.
const NICENESS: i32 = 5;

/// Heaps that a process's threads share.
const HEAPS: i32 = 2;

/// What the worker tells its zygote first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// How sessions are to be confined.
    pub tier: Tier,
    /// The virtual environment.
    pub venv: PathBuf,
    /// The installation of Python that the virtual environment belongs to.
    pub base: PathBuf,
    /// Limits of each session.
    pub limits: Limits,
    /// User and group id of the first session, where the worker may choose.
    pub first_id: u32,
}

/// What the worker asks of its zygote. Comes with four descriptors: of the session's ends of the
/// kernel's socket, of standard output, of standard error, and of the socket that tells of its
/// birth.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fork {
    /// Distinguishes this session's user from those of others.
    pub number: u32,
}

/// What a zygote tells its worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum News {
    /// It is warm and waits to fork.
    Ready {
        /// Version of Python.
        python: String,
    },
    /// It could not get ready, and ends.
    Failed {
        /// Why.
        message: String,
    },
    /// Python does not start, and the zygote ends.
    NoPython {
        /// Why.
        message: String,
    },
    /// A session was forked.
    Forked {
        /// As it was asked for.
        number: u32,
    },
    /// It was not.
    NotForked {
        /// As it was asked for.
        number: u32,
        /// Why.
        message: String,
    },
}

/// Runs the zygote until its worker is gone.
pub fn run() -> ExitCode {
    // For whoever looks at the machine's processes.
    let _ = nix::sys::prctl::set_name(c"assistd-zygote");
    let Ok(control) = take_control_socket() else {
        return ExitCode::FAILURE;
    };
    match serve(&control) {
        Ok(code) => code,
        Err(stop) => {
            let news = match stop {
                Stop::Failure(failure) => News::Failed {
                    message: failure.to_string(),
                },
                Stop::Python(error) => News::NoPython {
                    message: error.to_string(),
                },
            };
            // If the worker is gone as well there is nobody left to tell.
            let _ = descriptors::send(&control, &news, &[]);
            ExitCode::FAILURE
        }
    }
}

/// Moves the socket away from standard input, where user code would look first.
fn take_control_socket() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let nothing = open(
        "/dev/null",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    nix::unistd::dup2_stdin(nothing)?;
    Ok(control)
}

/// Why a zygote does not get ready.
enum Stop {
    Failure(Failure),
    Python(PythonError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn serve(control: &OwnedFd) -> Result<ExitCode, Stop> {
    die_with_parent()?;
    let Ok((setup, _)) = descriptors::receive::<Setup>(control) else {
        return Ok(ExitCode::SUCCESS);
    };
    let proc = open(
        "/proc",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .trying("opening /proc")?;
    // SAFETY: it changes a number of this process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    // Every thread would otherwise reserve address space for a heap of its own, of which a session
    // has not much.
    // SAFETY: it changes a parameter of the allocator.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
    let privileged = namespaces::may_become_others();
    let mut venv = setup.venv.clone();
    if setup.tier == Tier::Namespaces {
        namespaces::enclose_zygote(&proc, privileged)?;
        if let Some(code) = become_first_process()? {
            return Ok(code);
        }
        filesystem::enter_own_root(&setup.venv, &setup.base)?;
        venv = PathBuf::from(filesystem::VENV);
    }
    let interpreter = Interpreter::start(&venv.join("bin/python3")).map_err(Stop::Python)?;
    let sockets = match setup.tier {
        Tier::Namespaces => syscalls::Sockets::Unix,
        Tier::Container | Tier::Unsafe => syscalls::Sockets::Pairs,
    };
    let zygote = Zygote {
        filters: syscalls::compile(sockets)?,
        own_pid_namespace: openat(
            &proc,
            "self/ns/pid",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .trying("opening the process namespace")?,
        address_space: address_space(&proc)?,
        proc,
        privileged,
        venv,
        setup,
        interpreter,
    };
    zygote.check_single_thread()?;
    // SAFETY: no handler is run. Children are not waited for; the kernel need not keep them.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.trying("ignoring children's ends")?;
    let ready = News::Ready {
        python: Interpreter::version(),
    };
    descriptors::send(control, &ready, &[]).trying("telling that the zygote is ready")?;
    // Any error means that the worker is gone.
    while let Ok((Fork { number }, ends)) = descriptors::receive::<Fork>(control) {
        let news = match zygote.fork(number, ends) {
            Ok(()) => News::Forked { number },
            Err(failure) => News::NotForked {
                number,
                message: failure.to_string(),
            },
        };
        if descriptors::send(control, &news, &[]).is_err() {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What sessions are made from.
pub struct Zygote {
    /// How they are to be made.
    pub setup: Setup,
    /// Where Python is, as a session sees it.
    pub venv: PathBuf,
    /// Whether sessions get users of their own.
    pub privileged: bool,
    /// `/proc` as it was before the root changed.
    pub proc: OwnedFd,
    /// Address space of this process in bytes.
    pub address_space: u64,
    /// The compiled filters of system calls.
    pub filters: syscalls::Filters,
    /// The warm interpreter.
    pub interpreter: Interpreter,
    own_pid_namespace: OwnedFd,
}

impl Zygote {
    /// Forks a session. What becomes of it, the session tells itself.
    fn fork(&self, number: u32, ends: Vec<OwnedFd>) -> Result<(), Failure> {
        let ends = <[OwnedFd; 4]>::try_from(ends)
            .map_err(|ends| Failure::new("forking", format!("{} descriptors", ends.len())))?;
        self.check_single_thread()?;
        self.interpreter.before_fork();
        let forked = self.fork_into_namespace();
        if let Ok(ForkResult::Child) = forked {
            session_process::be_session(self, number, ends.into());
        }
        self.interpreter.after_fork_in_parent();
        forked.map(drop)
    }

    /// Forks, into a new process namespace where sessions have one.
    fn fork_into_namespace(&self) -> Result<ForkResult, Failure> {
        let own = self.setup.tier == Tier::Namespaces;
        if own {
            unshare(CloneFlags::CLONE_NEWPID).trying("making a process namespace")?;
        }
        // SAFETY: this process has one thread, which was checked.
        let forked = unsafe { fork() }.trying("forking");
        if own && !matches!(forked, Ok(ForkResult::Child)) {
            setns(&self.own_pid_namespace, CloneFlags::CLONE_NEWPID)
                .trying("returning to the zygote's process namespace")?;
        }
        forked
    }

    /// A fork copies one thread; whatever another holds at that moment is lost.
    fn check_single_thread(&self) -> Result<(), Failure> {
        let threads = read_stat(&self.proc, 19)?;
        if threads == 1 {
            return Ok(());
        }
        Err(Failure::new(
            "forking",
            format!("the zygote has {threads} threads: a package starts some when it is imported"),
        ))
    }
}

/// Makes the kernel end this process when the one that started it ends.
fn die_with_parent() -> Result<(), Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).trying("arranging to end with the worker")
}

/// Forks the first process of the new process namespace, and goes on as that. The process that
/// was stays behind to pass on the end of either; for it there is an exit code.
fn become_first_process() -> Result<Option<ExitCode>, Failure> {
    // Taking a namespace has undone what was arranged before.
    die_with_parent()?;
    // SAFETY: this process has one thread: nothing has started any by now.
    match unsafe { fork() }.trying("forking")? {
        ForkResult::Child => die_with_parent().map(|()| None),
        ForkResult::Parent { child } => {
            // The control socket is the child's now; holding it open would hide the child's end.
            // SAFETY: nothing below uses a descriptor.
            let _ = unsafe { descriptors::close_from(0) };
            let _ = waitpid(child, None);
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(0) }
        }
    }
}

fn address_space(proc: &OwnedFd) -> Result<u64, Failure> {
    read_stat(proc, 22)
}

/// A number from /proc/self/stat, counted from 0.
fn read_stat(proc: &OwnedFd, field: usize) -> Result<u64, Failure> {
    let file = openat(
        proc,
        "self/stat",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .trying("opening /proc/self/stat")?;
    let text = io::read_to_string(fs::File::from(file)).trying("reading /proc/self/stat")?;
    // The second field, the program's name, may hold spaces; it ends in the last parenthesis.
    text.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(field - 2))
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| Failure::new("reading /proc/self/stat", "it reads unlike any known"))
}

/// What a session may read, in a tier in which it sees the worker's own root.
pub fn readable(zygote: &Zygote) -> Vec<&Path> {
    let everywhere = filesystem::READABLE
        .iter()
        .chain(filesystem::READABLE_FILES);
    everywhere
        .map(Path::new)
        .chain([zygote.venv.as_path(), zygote.setup.base.as_path()])
        .collect()
}
