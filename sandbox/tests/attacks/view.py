# The view of a session with a root of its own. In the container tier, the container determines it.
import glob
import shutil
import stat

FOLDER = TESTBED["folder"]
NAME = TESTBED["unique"]


@attack()
def places_of_the_host():
    places = glob.glob("/home/*") + glob.glob("/root/*") + glob.glob("/root/.*")
    places += ["/sys/kernel", "/sys/fs/cgroup", "/sys/class", "/boot/", "/var/log", "/var/lib/dpkg"]
    places += ["/run/docker.sock", "/var/run/docker.sock", "/etc/ssh", "/etc/machine-id", "/etc/hostname"]
    # The path to the virtual environment must lead to nothing else.
    return [place for place in places
            if os.path.exists(place) and not (TESTBED["inside"] and TESTBED["python"].startswith(place + "/"))]


@attack()
def change_what_others_read():
    paths = [FOLDER + "/work", "/usr", "/etc", "/etc/passwd", "/dev/null", sys.prefix, os.__file__, sys.executable]
    if not TESTBED["inside"]:
        paths = paths[:1]
    changed = []
    for path in paths:
        for change in (lambda: os.chmod(path, stat.S_IMODE(os.stat(path).st_mode)),
                       lambda: os.utime(path),
                       lambda: os.setxattr(path, "user.attack", b"1")):
            try:
                change()
            except OSError:
                continue
            changed.append(path)
    return changed


@attack(control="any")
def devices_beyond_the_harmless():
    harmless = {"null", "zero", "full", "random", "urandom", "shm", "fd", "stdin", "stdout", "stderr"}
    return sorted(set(os.listdir("/dev")) - harmless)


@attack()
def run_a_program_from_writable_places():
    ran = []
    folders = ["/mnt/data", "/tmp", "/dev/shm"] if TESTBED["inside"] else [FOLDER + "/work"]
    for folder in folders:
        path = f"{folder}/{NAME}-true"
        shutil.copy("/bin/true", path)
        os.chmod(path, 0o755)
        try:
            if subprocess.run([path]).returncode == 0:
                ran.append(path)
        except OSError:
            pass
        os.unlink(path)
    return ran


@attack()
def mounts_that_honour_setuid_or_devices():
    places = ["/", "/usr", "/bin", "/etc", "/tmp", "/mnt/data", "/dev/shm", sys.prefix, sys.base_prefix]
    weak = []
    for place in places:
        if os.path.exists(place) and not os.statvfs(place).f_flag & os.ST_NOSUID:
            weak.append((place, "suid"))
    for place in ("/usr", "/tmp", "/mnt/data", "/dev/shm", sys.prefix):
        if os.path.exists(place) and not os.statvfs(place).f_flag & 4:  # ST_NODEV
            weak.append((place, "dev"))
    return weak


@attack()
def what_the_worker_was_started_with():
    found = []
    for place in glob.glob("/proc/[0-9]*/cmdline") + ["/proc/self/mountinfo", "/proc/self/cgroup"]:
        try:
            if FOLDER in open(place, errors="replace").read():
                found.append(place)
        except OSError:
            pass
    return found


@attack(control="none")
def the_cgroup_it_lives_in():
    lines = open("/proc/self/cgroup").read().split()
    return TESTBED["inside"] and [line for line in lines if line.rsplit(":", 1)[1] != "/"]


@attack()
def see_the_testbed():
    found = []
    for pid in (TESTBED["worker"], TESTBED["sibling"]):
        try:
            os.kill(pid, 0)
            found.append(pid)
        except PermissionError:
            found.append(pid)
        except OSError:
            pass
        if os.path.exists(f"/proc/{pid}"):
            found.append(pid)
        if call(434, pid, 0)[0] >= 0:
            found.append(pid)
    return found
