import glob
import time

WORKER, SIBLING = TESTBED["worker"], TESTBED["sibling"]


@attack()
def key_in_the_environment():
    environment = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
    raw, index = [], 0
    while environment and environment[index]:
        raw.append(environment[index])
        index += 1
    return secrets_in(b"\n".join(raw)) + secrets_in(repr(os.environ))


@attack()
def key_in_anothers_environment():
    found = []
    for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/task/*/environ"):
        try:
            if secrets_in(open(path, "rb").read()):
                found.append(path)
        except OSError:
            pass
    return found


@attack()
def key_in_own_environment_file():
    return secrets_in(open("/proc/self/environ", "rb").read())


def readable(address, length, through=[]):
    """Own memory; write() tests which pages are mapped."""
    if not through:
        through.extend(os.pipe())
    got = []
    libc.write.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t]
    for page in range(address & ~4095, address + length, 4096):
        if libc.write(through[1], page, 4096) == 4096:
            got.append(os.read(through[0], 4096))
    return b"".join(got)


@attack()
def key_in_own_memory():
    libc.getauxval.restype = ctypes.c_ulong
    libc.sbrk.restype = ctypes.c_ulong
    libc.sbrk.argtypes = [ctypes.c_long]
    regions = []
    try:
        for line in open("/proc/self/maps"):
            bounds, rights = line.split()[:2]
            if rights.startswith("rw"):
                low, high = (int(bound, 16) for bound in bounds.split("-"))
                regions.append((low, min(high - low, 64 << 20)))
    except OSError:
        # Without /proc: the initial stack, which held the environment, and the heap.
        top = libc.getauxval(31)  # AT_EXECFN
        regions.append((top - (256 << 10), 260 << 10))
        end = libc.sbrk(0)
        regions.append((end - (64 << 20), 64 << 20))
    assert regions
    return sum(secrets_in(readable(address, length)) for address, length in regions)


@attack()
def signal_the_testbed():
    if not TESTBED["inside"]:
        os.kill(SIBLING, signal.SIGCONT)
        return True
    reached = []
    for pid in (WORKER, SIBLING, 1):
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGHUP):
            try:
                os.kill(pid, number)
                if pid in (WORKER, SIBLING):
                    reached.append(pid)
            except OSError:
                pass
        if pid in (WORKER, SIBLING):
            try:
                os.killpg(pid, signal.SIGKILL)
                reached.append(("group", pid))
            except OSError:
                pass
    return reached


@attack()
def attach_to_another():
    number = {"x86_64": 101, "aarch64": 117}[platform.machine()]
    reached = []
    for pid in (SIBLING,) if not TESTBED["inside"] else (SIBLING, WORKER, 1, os.getppid()):
        result, _ = call(number, 0x4206, pid, 0, 0)  # PTRACE_SEIZE
        if result == 0:
            reached.append(pid)
            if not TESTBED["inside"]:
                os.kill(pid, signal.SIGCONT)
    return reached


@attack()
def read_anothers_memory():
    reached = []
    for pid in (SIBLING,) if not TESTBED["inside"] else (SIBLING, WORKER, 1, os.getppid()):
        for path in (f"/proc/{pid}/mem", f"/proc/{pid}/maps"):
            try:
                descriptor = os.open(path, os.O_RDONLY)
                if path.endswith("mem") or os.read(descriptor, 10):
                    reached.append(path)
                os.close(descriptor)
            except OSError:
                pass
    return reached


@attack(control="root")
def settings_of_the_kernel():
    opened = []
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches",
                 "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory",
                 "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs"):
        try:
            os.close(os.open(path, os.O_WRONLY))
        except OSError:
            continue
        opened.append(path)
    return opened


@attack(control="none")
def spare_itself_from_the_memory_killer():
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            before = int(file.read())
            file.seek(0)
            file.write("-1000")
    except OSError:
        return None
    return TESTBED["inside"] and int(open("/proc/self/oom_score_adj").read()) < before


@attack()
def descriptors_left_open():
    import stat

    foreign = []
    sockets = 0
    for descriptor in range(4096):
        try:
            status = os.fstat(descriptor)
        except OSError:
            continue
        kind = stat.S_IFMT(status.st_mode)
        if kind in (stat.S_IFDIR, stat.S_IFBLK):
            foreign.append((descriptor, "folder or device"))
        elif kind == stat.S_IFREG and status.st_nlink and descriptor > 2:
            foreign.append((descriptor, "file"))
        elif kind == stat.S_IFCHR and status.st_rdev not in (os.makedev(1, n) for n in (3, 5, 7, 8, 9)):
            foreign.append((descriptor, "terminal"))
        elif kind == stat.S_IFSOCK:
            with socket.socket(fileno=os.dup(descriptor)) as one:
                if one.family != socket.AF_UNIX:
                    foreign.append((descriptor, "network"))
                    continue
                peer = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                # Python's event loop has a socket pair of its own; the kernel's socket is the only other.
                if int.from_bytes(peer[:4], "little") != os.getpid():
                    sockets += 1
    if sockets > 1:
        foreign.append(("sockets", sockets))
    return foreign


@attack()
def anothers_folders_through_proc():
    return first_success(
        (pid, lambda: os.listdir(f"/proc/{pid}/{link}"))
        for pid in (("1", SIBLING, WORKER) if TESTBED["inside"] else (SIBLING,)) for link in ("cwd", "root", "fd")
    )
