//! The system call filter (seccomp) of a session.
//!
//! An allow list, derived from Docker's default profile without the calls that a notebook does not
//! need: identity changes, namespaces, mounts, devices, tracing, keys, message queues, asynchronous
//! I/O interfaces, and all address families except Unix sockets. Any other call fails with EPERM.

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

use super::ConfineError;
use super::Context;

/// Which sockets a session may create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// Unix sockets; the session's network namespace isolates the abstract ones.
    Unix,
    /// Connected pairs only, because a path or an abstract name might belong to another process.
    Pairs,
}

/// Compiled filters, in the order of their installation.
pub struct Filters(Vec<BpfProgram>);

/// Compiles the filters. It takes about a millisecond, so the zygote does it once for all sessions.
pub fn compile(sockets: Sockets) -> Result<Filters, ConfineError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).context("choosing a syscall table")?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(ALLOWED_ON_ARCH)
        .map(|&call| (call, Vec::new()))
        .collect();
    rules.extend(argument_rules().context("building syscall rules")?);
    rules.extend(socket_rules(sockets).context("building syscall rules")?);
    let allow_list = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        arch,
    );
    // These calls must fail with ENOSYS: libc then falls back to clone, and programs use files in a
    // limited folder instead of memfds, which no limit counts. If two filters return an error, the
    // one installed last wins, so this filter is the second. The first therefore allows `seccomp`,
    // and this one refuses further filters.
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
                .context("compiling syscall rules")
        })
        .collect::<Result<_, _>>()
        .map(Filters)
}

/// Installs the filters for this thread and its children; also sets no_new_privs.
pub fn install(filters: &Filters) -> Result<(), ConfineError> {
    filters
        .0
        .iter()
        .try_for_each(|filter| seccompiler::apply_filter(filter))
        .context("installing the syscall filter")
}

/// Conditional rules by system call number. All conditions of a rule must hold; one of the rules of
/// a call must match.
type Rules = Vec<(i64, Vec<SeccompRule>)>;

fn argument_rules() -> Result<Rules, seccompiler::BackendError> {
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
    Ok(vec![
        (
            // Only private or file-backed: after a partial unmapping, no limit counts shared
            // anonymous memory.
            libc::SYS_mmap,
            any_of(vec![
                without(3, libc::MAP_SHARED)?,
                without(3, libc::MAP_ANONYMOUS)?,
            ])?,
        ),
        (
            // The core-file limit must stay as it is to disable a core-dump handler of the host.
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
            // Socket filters would load BPF programs into the kernel.
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
            // Both requests insert characters into a terminal's input.
            libc::SYS_ioctl,
            vec![SeccompRule::new(vec![
                is_not(1, libc::TIOCSTI)?,
                is_not(1, libc::TIOCLINUX)?,
            ])?],
        ),
    ])
}

fn socket_rules(sockets: Sockets) -> Result<Rules, seccompiler::BackendError> {
    let is =
        |argument, value| SeccompCondition::new(argument, Dword, SeccompCmpOp::Eq, value as u64);
    let mut rules = Vec::new();
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
            // No datagram pairs: half of such a pair can send to any socket path.
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

/// Calls that are allowed with any arguments.
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
    // Processes and threads; `argument_rules` restricts the flags of clone.
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
    // Needed to install the second filter, which then refuses it.
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
    // Existing sockets; `socket_rules` restricts the creation of sockets.
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

/// Older variants of the calls above that only this architecture has.
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

#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_ON_ARCH: &[i64] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_for_both_kinds_of_sockets() {
        for sockets in [Sockets::Unix, Sockets::Pairs] {
            let filters = compile(sockets).expect("the rules are constant");
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
