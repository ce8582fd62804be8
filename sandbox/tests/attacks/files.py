import stat

FOLDER = TESTBED["folder"]
NAME = TESTBED["unique"]


def read(path):
    with open(path, "rb") as file:
        return secrets_in(file.read(1 << 20))


@attack()
def file_that_all_may_read():
    return read(FOLDER + "/secret.txt")


@attack()
def the_same_by_other_ways():
    ways = [f"/proc/{pid}/{link}" for pid in ("self", "1", TESTBED["worker"], TESTBED["sibling"])
            for link in ("root", "cwd")]
    ways += ["/..", "/mnt/data/../..", "/proc/self/fd/0/../.."]
    return first_success((way, lambda: read(way + FOLDER + "/secret.txt")) for way in ways)


@attack()
def the_same_by_descriptors_left_open():
    def attempt(descriptor):
        for up in ("", "../" * 20 + FOLDER.strip("/") + "/"):
            try:
                opened = os.open(up + "secret.txt", os.O_RDONLY, dir_fd=descriptor)
            except OSError:
                continue
            found = secrets_in(os.read(opened, 100))
            os.close(opened)
            if found:
                return found

    return first_success((fd, lambda: attempt(fd)) for fd in range(1024))


@attack(control="root")
def the_same_by_file_handle():
    numbers = {"x86_64": (303, 304), "aarch64": (264, 265)}[platform.machine()]
    handle = ctypes.create_string_buffer(8 + 128)
    ctypes.memmove(handle, (128).to_bytes(4, "little"), 4)
    mount = ctypes.c_int()
    # Any folder works: the attack only tests whether handles can be opened.
    folder = ctypes.create_string_buffer(os.getcwd().encode())
    result, error = call(numbers[0], -100, ctypes.addressof(folder), ctypes.addressof(handle),
                         ctypes.addressof(mount), 0)
    if result < 0 and error != errno.EOPNOTSUPP:
        raise OSError(error, "name_to_handle_at")
    here = os.open(os.getcwd(), os.O_RDONLY)
    result, error = call(numbers[1], here, ctypes.addressof(handle), 0)
    os.close(here)
    return result >= 0 or error not in (errno.EPERM, errno.ENOSYS)


@attack(control="root")
def what_only_root_may_read():
    return first_success(
        (path, lambda: len(open(path, "rb").read(100)) > 0)
        for path in ("/etc/shadow", "/etc/gshadow", "/proc/1/environ")
    )


@attack()
def write_where_others_read():
    folders = [FOLDER + "/work", "/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/bin", "/lib", "/dev", "/mnt",
               "/opt", "/var", "/run", "/home", sys.prefix, sys.base_prefix, os.path.dirname(os.__file__),
               os.path.dirname(json.__file__), *(path for path in sys.path if path)]
    if not TESTBED["inside"]:
        folders = folders[:1]
    written = []
    for folder in folders:
        path = f"{folder}/{NAME}"
        try:
            with open(path, "w") as file:
                file.write("here")
        except OSError:
            continue
        written.append(path)
        if not TESTBED["inside"]:
            os.unlink(path)
    return written


@attack(control="root")
def make_a_device():
    made = []
    for folder in (FOLDER + "/work", "/mnt/data", "/tmp", "/dev/shm", "/dev"):
        path = f"{folder}/{NAME}-device"
        for kind, number in ((stat.S_IFBLK, os.makedev(254, 0)), (stat.S_IFCHR, os.makedev(1, 1))):
            try:
                os.mknod(path, 0o600 | kind, number)
            except OSError:
                continue
            made.append(path)
            os.unlink(path)
    return made


@attack(control="any")
def make_a_fifo_in_the_workspace():
    folder = "/mnt/data" if TESTBED["inside"] else FOLDER + "/work"
    os.mkfifo(f"{folder}/{NAME}-fifo")
    os.unlink(f"{folder}/{NAME}-fifo")
    return True


@attack(control="any")
def terminals():
    def controlling():
        os.close(os.open("/dev/tty", os.O_RDWR))
        return True

    def another():
        os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
        return True

    return first_success((("controlling", controlling), ("another", another)))


@attack(control="none")
def type_into_a_terminal():
    # TIOCSTI and TIOCLINUX on any descriptor. Any error but EPERM means that the driver was reached.
    number = {"x86_64": 16, "aarch64": 29}[platform.machine()]
    here = ctypes.create_string_buffer(b"x")
    reached = []
    for descriptor in (0, 1, 2):
        # The kernel uses 32 bits of the request number; a filter must compare no more.
        for request in (0x5412, 0x541C, 0x5412 | 1 << 32, 0x541C | 1 << 32):
            _, error = call(number, descriptor, request, ctypes.addressof(here))
            if error != errno.EPERM:
                reached.append((descriptor, hex(request), error))
    return reached


@attack(control="none")
def setuid_programs():
    done = subprocess.run(["su", "-c", "id -u"], capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    return TESTBED["inside"] and done.returncode == 0
