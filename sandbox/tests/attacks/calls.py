# System calls that no cell needs. Their arguments are invalid, so that a call that reaches the kernel
# fails without harm. Only EPERM and ENOSYS mean that the filter has refused it.
X86, ARM = 0, 1
COLUMN = {"x86_64": X86, "aarch64": ARM}[platform.machine()]
BAD = 1  # an unmapped address
NEWUSER, NEWNS, NEWPID, NEWNET, FS = 0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x200


def reaches(*rows):
    """The calls that reach the kernel."""
    reached = []
    for name, numbers, *arguments in rows:
        number = numbers[COLUMN]
        if number is None:
            continue
        result, error = call(number, *arguments)
        if result >= 0 or error not in (errno.EPERM, errno.ENOSYS):
            reached.append((name, error))
    return reached


@attack(control="root")
def mounting():
    return reaches(
        ("mount", (165, 40), BAD, BAD, BAD, 0, 0), ("umount2", (166, 39), BAD, 0),
        ("pivot_root", (155, 41), BAD, BAD), ("chroot", (161, 51), BAD),
        ("fsopen", (430, 430), BAD, 0), ("fsconfig", (431, 431), -1, 99, 0, 0, 0),
        ("fsmount", (432, 432), -1, 0, 0), ("fspick", (433, 433), -1, BAD, 0),
        ("open_tree", (428, 428), -1, BAD, 1), ("move_mount", (429, 429), -1, BAD, -1, BAD, 0),
        ("mount_setattr", (442, 442), -1, BAD, 0, BAD, 32))


@attack()
def namespaces():
    return reaches(
        ("unshare a user namespace", (272, 97), NEWUSER | 0x1),
        ("setns", (308, 268), -1, 0),
        # An invalid combination of flags, so that the kernel forks nothing.
        ("clone a user namespace", (56, 220), NEWUSER | FS, 0, 0, 0, 0))


@attack()
def other_namespaces():
    return [(name, error) for name, flag in
            (("mount", NEWNS), ("pid", NEWPID), ("network", NEWNET), ("ipc", 0x08000000), ("uts", 0x04000000),
             ("cgroup", 0x02000000), ("time", 0x80))
            for result, error in [call((272, 97)[COLUMN], flag | 0x1)]
            if result >= 0 or error not in (errno.EPERM, errno.ENOSYS)]


@attack()
def clone3():
    # Anything but ENOSYS breaks threads; without a filter, the kernel rejects the empty arguments.
    return [error for _, error in [call(435, 0, 0)] if error != errno.ENOSYS]


@attack()
def namespaces_by_a_program():
    return subprocess.run(["unshare", "-Ur", "true"], capture_output=True, timeout=60).returncode == 0


@attack()
def keys():
    return reaches(("add_key", (248, 217), BAD, BAD, BAD, 0, 0), ("request_key", (249, 218), BAD, BAD, BAD, 0),
                   ("keyctl", (250, 219), 0, -3, 0))


@attack()
def shared_memory_and_queues():
    return reaches(
        ("shmget", (29, 194), 0, 0, 0o1600), ("shmat", (30, 196), -1, 0, 0),
        ("semget", (64, 190), 0, 0, 0o1600), ("msgctl", (71, 187), -1, 2, 0),
        ("mq_open", (240, 180), BAD, 0, 0, 0))


@attack()
def rings_faults_and_counters():
    return reaches(
        ("io_uring_setup", (425, 425), 1, BAD), ("io_uring_register", (427, 427), -1, 0, 0, 0),
        ("userfaultfd", (323, 282), 0xFFFF), ("perf_event_open", (298, 241), BAD, 0, -1, -1, 0),
        ("bpf", (321, 280), 99, BAD, 0), ("memfd_secret", (447, 447), 0xFFFF),
        ("io_setup", (206, 0), 1, BAD), ("fanotify_init", (300, 262), 0xFFFF, 0))


@attack(control="root")
def modules_and_boot():
    return reaches(
        ("init_module", (175, 105), BAD, 1, BAD), ("finit_module", (313, 273), -1, BAD, 0),
        ("delete_module", (176, 106), BAD, 0), ("kexec_load", (246, 104), 0, 0, 0, 0xFFFF),
        ("kexec_file_load", (320, 294), -1, -1, 0, 0, 0xFFFF), ("reboot", (169, 142), 0, 0, 0, 0),
        ("swapon", (167, 224), BAD, 0), ("swapoff", (168, 225), BAD), ("acct", (163, 89), BAD),
        ("quotactl", (179, 60), 0xFF00, BAD, 0, 0))


@attack(control="root")
def clock_name_and_log():
    return reaches(
        ("settimeofday", (164, 170), BAD, 0), ("clock_settime", (227, 112), 0, BAD),
        ("adjtimex", (159, 171), BAD), ("sethostname", (170, 161), BAD, 3), ("setdomainname", (171, 162), BAD, 3),
        ("syslog", (103, 116), 10, 0, 0))


@attack(control="none")
def ports():
    # Newer kernels may refuse these calls for every process.
    return reaches(("iopl", (172, None), 3), ("ioperm", (173, None), 0x80, 1, 0))


@attack()
def other_processes_memory():
    here = ctypes.create_string_buffer(64)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(here), 64)
    v = ctypes.addressof(vector)
    return reaches(
        ("process_vm_readv", (310, 270), os.getpid(), v, 1, v, 1, 0),
        ("process_vm_writev", (311, 271), os.getpid(), v, 1, v, 1, 0),
        ("ptrace", (101, 117), 16, 999999, 0, 0), ("kcmp", (312, 272), os.getpid(), os.getpid(), 0, 0, 0),
        ("pidfd_getfd", (438, 438), -1, 0, 0))


@attack(control="none")
def the_filter_cannot_be_undone():
    # Unsets PR_SET_NO_NEW_PRIVS and seccomp, then reads both.
    PR_GET_SECCOMP, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 21, 22, 38, 39
    libc.prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)
    libc.prctl(PR_SET_SECCOMP, 0, 0, 0, 0)
    held = (libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0))
    return TESTBED["inside"] and held != (1, 2) and held != (1, -1) and held


@attack()
def rewriting_the_process():
    # PR_SET_MM and personality gain nothing by themselves, but no cell needs them.
    gained = []
    if libc.prctl(35, 9, 0, 0, 0) == 0:
        gained.append("mm")
    before = libc.personality(0xFFFFFFFF)
    if libc.personality(0x0400000) != -1 and libc.personality(0xFFFFFFFF) == 0x0400000:
        libc.personality(before)
        gained.append("personality")
    return gained


@attack(control="root")
def another_user():
    def check(change):
        change()
        return True

    gains = []
    for name, change in (
        ("setuid", lambda: os.setuid(0)), ("setgid", lambda: os.setgid(0)), ("setgroups", lambda: os.setgroups([])),
        ("setresuid", lambda: os.setresuid(0, 0, 0)), ("seteuid", lambda: os.seteuid(0)),
    ):
        try:
            change()
        except OSError:
            continue
        gains.append(name)
    return gains


@attack(control="root")
def capabilities():
    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

    held = []
    sets = (ctypes.c_uint32 * 6)()
    header = Header(0x20080522, 0)
    call((125, 90)[COLUMN], ctypes.addressof(header), ctypes.addressof(sets))
    if sum(sets):
        held.append(("held", list(sets)))
    everything = (ctypes.c_uint32 * 6)(*[1 << 21] * 6)
    result, _ = call((126, 91)[COLUMN], ctypes.addressof(header), ctypes.addressof(everything))
    if result == 0:
        held.append("taken")
    return held


@attack(control="root")
def priorities():
    gained = []
    for name, attempt in (
        ("nice", lambda: os.nice(-5)),
        ("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
        ("idle of others", lambda: os.setpriority(os.PRIO_PROCESS, 1, 19)),
    ):
        if name == "idle of others" and not TESTBED["inside"]:
            continue
        try:
            attempt()
        except OSError:
            continue
        gained.append(name)
    if not TESTBED["inside"]:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if call((251, 30)[COLUMN], 1, 0, (1 << 13) | 4)[0] == 0:
        gained.append("disk, real time")
    return gained


@attack(control="none")
def lock_memory():
    # Not available on every machine, even for root.
    result, _ = call((151, 230)[COLUMN], 1)
    return result == 0


@attack(control="none")
def raise_own_limits():
    import resource

    raised = []
    for name in ("AS", "NPROC", "NOFILE", "FSIZE", "CORE", "MEMLOCK", "MSGQUEUE", "NICE", "RTPRIO", "STACK"):
        limit = getattr(resource, "RLIMIT_" + name)
        soft, hard = resource.getrlimit(limit)
        if hard == resource.RLIM_INFINITY:
            raised.append((name, "has none"))
            continue
        try:
            resource.setrlimit(limit, (hard + 1, hard + 1))
        except (OSError, ValueError):
            continue
        raised.append(name)
    return TESTBED["inside"] and raised


@attack()
def core_dumps():
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    return resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
