//! The system calls that a session may make.
//!
//! An allow list, after Docker's default without what a notebook has no use for: identity
//! changes, namespaces, mounts, devices, tracing, keys, message queues, asynchronous I/O
//! interfaces and every other address family than Unix sockets. What is not listed fails with
//! EPERM.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpArgLen::Qword;
use seccompiler::SeccompCmpOp;
use seccompiler::SeccompCondition;
use seccompiler::SeccompFilter;
use seccompiler::SeccompRule;
use seccompiler::TargetArch;

use super::Failure;
use super::Trying;

/// Which sockets a session may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// Unix sockets: a network namespace of its own keeps them within the session.
    Unix,
    /// Connected pairs only: a path or an abstract name might be somebody else's.
    Pairs,
}

/// The compiled filters, in the order in which they have to be installed.
pub struct Filters(Vec<BpfProgram>);

/// Compiles the filters. That takes a millisecond, so it is done once, before any fork.
pub fn compile(sockets: Sockets) -> Result<Filters, Failure> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).trying("choosing a syscall table")?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(ALLOWED_ON_ARCH)
        .map(|&call| (call, Vec::new()))
        .collect();
    rules.extend(conditional(sockets).trying("writing syscall rules")?);
    let allow_list = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        arch,
    );
    // Programs do without these only when they do not exist: libc falls back to clone, and files
    // in memory, which no limit would count, become files in a folder that has one. Of two
    // filters that refuse with an error the one installed last names it, so this one comes last;
    // the first has to let it be installed, and it lets no other be.
    let absent = SeccompFilter::new(
        [libc::SYS_clone3, libc::SYS_memfd_create, libc::SYS_seccomp]
            .map(|call| (call, Vec::new()))
            .into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        arch,
    );
    [allow_list, absent]
        .into_iter()
        .map(|filter| {
            filter
                .and_then(BpfProgram::try_from)
                .trying("compiling syscall rules")
        })
        .collect::<Result<_, _>>()
        .map(Filters)
}

/// Installs the filters for this thread and what it starts. Takes no_new_privs.
pub fn install(filters: &Filters) -> Result<(), Failure> {
    filters
        .0
        .iter()
        .try_for_each(|filter| seccompiler::apply_filter(filter))
        .trying("installing the syscall filter")
}

/// Rules on arguments. Those in one rule must all hold; of several rules one must.
fn conditional(
    sockets: Sockets,
) -> Result<Vec<(i64, Vec<SeccompRule>)>, seccompiler::BackendError> {
    let is =
        |argument, value| SeccompCondition::new(argument, Dword, SeccompCmpOp::Eq, value as u64);
    let is_not = |argument, value| SeccompCondition::new(argument, Dword, SeccompCmpOp::Ne, value);
    let without = |argument, bits: i32| {
        SeccompCondition::new(
            argument,
            Qword,
            SeccompCmpOp::MaskedEq(bits as u32 as u64),
            0,
        )
    };
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    let socket_filters = [
        libc::SO_ATTACH_FILTER,
        libc::SO_ATTACH_BPF,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        libc::SO_ATTACH_REUSEPORT_EBPF,
    ];
    let any_of = |conditions: Vec<_>| {
        let rules = conditions
            .into_iter()
            .map(|condition| SeccompRule::new(vec![condition]));
        rules.collect::<Result<Vec<_>, _>>()
    };
    let mut rules = vec![
        (
            // Memory that is shared and has no file outlives its mapping in part, where no limit
            // counts it: private, or a file's.
            libc::SYS_mmap,
            any_of(vec![
                without(3, libc::MAP_SHARED)?,
                without(3, libc::MAP_ANONYMOUS)?,
            ])?,
        ),
        (
            // The limit on core files keeps them from programs of the host only as it is.
            libc::SYS_prlimit64,
            any_of(vec![
                is_not(1, libc::RLIMIT_CORE.into())?,
                SeccompCondition::new(2, Qword, SeccompCmpOp::Eq, 0)?,
            ])?,
        ),
        (
            libc::SYS_setrlimit,
            any_of(vec![is_not(0, libc::RLIMIT_CORE.into())?])?,
        ),
        (
            // Nobody needs to bring programs of their own into the kernel.
            libc::SYS_setsockopt,
            vec![SeccompRule::new(
                socket_filters
                    .map(|option| is_not(2, option as u64))
                    .into_iter()
                    .collect::<Result<_, _>>()?,
            )?],
        ),
        (
            libc::SYS_clone,
            vec![SeccompRule::new(vec![without(0, namespaces)?])?],
        ),
        (
            // Neither puts characters into a terminal's input.
            libc::SYS_ioctl,
            vec![SeccompRule::new(vec![
                is_not(1, libc::TIOCSTI)?,
                is_not(1, libc::TIOCLINUX)?,
            ])?],
        ),
    ];
    match sockets {
        Sockets::Unix => {
            let unix = || SeccompRule::new(vec![is(0, libc::AF_UNIX)?]);
            rules.push((libc::SYS_socket, vec![unix()?]));
            rules.push((libc::SYS_socketpair, vec![unix()?]));
            for call in [
                libc::SYS_bind,
                libc::SYS_connect,
                libc::SYS_listen,
                libc::SYS_accept4,
            ] {
                rules.push((call, Vec::new()));
            }
            #[cfg(target_arch = "x86_64")]
            rules.push((libc::SYS_accept, Vec::new()));
        }
        Sockets::Pairs => {
            // Datagrams may be sent to any path, also from one half of a pair: no such pairs.
            let kind = |kind: i32| {
                let of_kind =
                    SeccompCondition::new(1, Dword, SeccompCmpOp::MaskedEq(0xf), kind as u64)?;
                SeccompRule::new(vec![is(0, libc::AF_UNIX)?, of_kind])
            };
            rules.push((
                libc::SYS_socketpair,
                vec![kind(libc::SOCK_STREAM)?, kind(libc::SOCK_SEQPACKET)?],
            ));
        }
    }
    Ok(rules)
}

/// Allowed whatever the arguments.
const ALLOWED: &[i64] = &[
    // Files by descriptor.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_copy_file_range,
    // Files by name.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_umask,
    libc::SYS_utimensat,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    // Waiting for events.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_membarrier,
    // Processes and threads; clone has a rule on its flags.
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getpgid,
    libc::SYS_setpgid,
    libc::SYS_getsid,
    libc::SYS_setsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_capget,
    libc::SYS_prctl,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getpriority,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getcpu,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    // For the second filter, which takes it away again.
    libc::SYS_seccomp,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sigaltstack,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_delete,
    // Sockets that one has; making them has rules of its own.
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
];

/// What only this architecture has: the older forms of calls above.
#[cfg(target_arch = "x86_64")]
const ALLOWED_ON_ARCH: &[i64] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_unlink,
    libc::SYS_chmod,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_getdents,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_signalfd,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_getpgrp,
    libc::SYS_arch_prctl,
    libc::SYS_alarm,
    libc::SYS_pause,
    libc::SYS_time,
];

/// What only this architecture has.
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_ON_ARCH: &[i64] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_for_both_kinds_of_sockets() {
        for sockets in [Sockets::Unix, Sockets::Pairs] {
            let filters = compile(sockets).expect("the table is constant");
            assert_eq!(filters.0.len(), 2);
        }
    }

    #[test]
    fn nothing_that_leaves_the_sandbox_is_allowed() {
        let refused = [
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_ptrace,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_clone3,
            libc::SYS_memfd_create,
            libc::SYS_setuid,
        ];
        for call in refused {
            assert!(
                !ALLOWED.contains(&call) && !ALLOWED_ON_ARCH.contains(&call),
                "{call}"
            );
        }
    }
}
