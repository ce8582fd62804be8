"""Test environment of a worker.

Runs in network and mount namespaces of its own, which no attack can leave, and provides stand-ins for
what a session must not reach: listeners, sockets, a world-readable file, a process with a key in its
environment. It also starts the workers and the controls. A control is an attack that runs unconfined
beside the worker, where it must succeed.

    unshare … python3 testbed.py FOLDER UID BINARY

Workers and controls run as UID. Commands are single JSON lines on connections to FOLDER/testbed.sock;
each gets one line in answer. When standard input closes, the testbed ends with everything it started.
"""

import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading

FOLDER, UID, BINARY = sys.argv[1], int(sys.argv[2]), sys.argv[3]

# Secrets have a marker, so that an attack can search for them. The code of an attack never contains
# the marker in one piece.
MARKER = "kestrel-"
SECRETS = {place: MARKER + secrets.token_hex(16) for place in ("environment", "file", "listener")}

# Environment of workers and controls: variables of an operator that no worker needs.
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "OPENAI_API_KEY": SECRETS["environment"],
    "DATABASE_URL": f"postgres://assistd:{SECRETS['environment']}@localhost/assistd",
    "ASSISTD_SANDBOX_PYTHON": sys.executable,
}

hits = {}
hits_lock = threading.Lock()
started = {}


def as_identity():
    """Arguments of Popen that run a child as UID."""
    if UID == os.getuid():
        return {}
    return {"user": UID, "group": UID, "extra_groups": []}


def bring_up_loopback():
    """Brings `lo` up, with the address of cloud metadata services."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        address = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, bytes([169, 254, 169, 254]))
        up = struct.pack("16sh14x", b"lo", 1)
        fcntl.ioctl(control, 0x8914, up)  # SIOCSIFFLAGS, IFF_UP
        fcntl.ioctl(control, 0x8916, address)  # SIOCSIFADDR


def keep_reachable(paths):
    """Makes `paths` reachable for UID through folders that it may not enter.

    In this mount namespace, an empty folder covers each such folder; only the given paths are mounted
    in it.
    """
    covers = {}
    for path in paths:
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            folder = "/" + "/".join(parts[:depth])
            if not os.stat(folder).st_mode & 0o001:
                covers.setdefault(folder, []).append(path)
                break
    for folder, below in covers.items():
        kept = [(path, os.open(path, os.O_PATH)) for path in dict.fromkeys(below)]
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "cover", folder], check=True)
        for path, descriptor in kept:
            source = f"/proc/{os.getpid()}/fd/{descriptor}"
            if os.path.isdir(source):
                os.makedirs(path)
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                open(path, "w").close()
            subprocess.run(["mount", "--rbind", source, path], check=True)
            os.close(descriptor)


def create_workspace():
    """Creates /mnt/data, as the container of a worker has it, in this mount namespace."""
    if os.path.isdir("/mnt/data"):
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "workspace", "/mnt"], check=True)
    os.mkdir("/mnt/data")
    if UID != os.getuid():
        os.chown("/mnt/data", UID, UID)


def mount_a_home():
    """Mounts the virtual environment in a home folder, in this mount namespace."""
    if not sys.prefix.startswith("/home/"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "homes", "/home"], check=True)
    home = "/home/somebody"
    os.makedirs(f"{home}/project/.venv")
    subprocess.run(["mount", "--bind", sys.prefix, f"{home}/project/.venv"], check=True)
    with open(f"{home}/secret.txt", "w") as file:
        file.write(SECRETS["file"])


def count(place):
    with hits_lock:
        hits[place] = hits.get(place, 0) + 1


def answer(place, listener):
    while True:
        connection, _ = listener.accept()
        count(place)
        with connection:
            connection.sendall(SECRETS["listener"].encode())


def answer_datagrams(place, listener):
    while True:
        _, sender = listener.recvfrom(2048)
        count(place)
        listener.sendto(SECRETS["listener"].encode(), sender)


def listen(place, family, kind, address):
    listener = socket.socket(family, kind)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(address)
    if kind == socket.SOCK_STREAM:
        listener.listen(64)
    work = answer if kind == socket.SOCK_STREAM else answer_datagrams
    threading.Thread(target=work, args=(place, listener), daemon=True).start()


def start_stand_ins():
    listen("metadata", socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80))
    listen("loopback", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 8080))
    listen("loopback6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", 8080))
    listen("datagram", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53))
    listen("abstract", socket.AF_UNIX, socket.SOCK_STREAM, "\0sandbox-stand-in")
    path = f"{FOLDER}/stand-in.sock"
    listen("path", socket.AF_UNIX, socket.SOCK_STREAM, path)
    os.chmod(path, 0o777)
    with open(f"{FOLDER}/secret.txt", "w") as file:
        file.write(SECRETS["file"])
    os.chmod(f"{FOLDER}/secret.txt", 0o644)


class Commands(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            command = json.loads(self.rfile.readline())
            reply = getattr(self, command.pop("do"))(**command)
        except Exception as error:
            reply = {"failed": f"{type(error).__name__}: {error}"}
        self.wfile.write(json.dumps(reply).encode() + b"\n")

    def about(self):
        return {"sibling": sibling.pid, "secrets": list(SECRETS.values()), "uid": UID}

    def hits(self):
        with hits_lock:
            return dict(hits)

    def start(self, name, listen, args, seconds):
        """Starts a worker and waits until it listens."""
        log = f"{FOLDER}/{name}.log"
        with open(log, "wb") as errors:
            child = subprocess.Popen(
                [BINARY, "serve", "--listen", listen, *args],
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                **as_identity(),
            )
        started[child.pid] = child
        alarm = threading.Timer(seconds, child.kill)
        alarm.start()
        line = child.stdout.readline().decode().strip()
        alarm.cancel()
        if line != "ready":
            child.kill()
            child.wait()
            with open(log, errors="replace") as errors:
                return {"failed": f"it printed {line!r}, ended with {child.returncode}: {errors.read()}"}
        return {"pid": child.pid, "log": log}

    def wait(self, pid, seconds):
        """Waits for a worker. Returns its exit status, or minus the signal number."""
        return {"status": started[pid].wait(seconds)}

    def control(self, code, seconds):
        """Runs an attack unconfined, with the environment and an open descriptor of the testbed."""
        folder = os.open(FOLDER, os.O_RDONLY)
        child = subprocess.run(
            [sys.executable, "-I", "-"],
            input=code.encode(),
            env=ENVIRONMENT,
            cwd=f"{FOLDER}/work",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            pass_fds=[folder],
            **as_identity(),
        )
        os.close(folder)
        return {"status": child.returncode, "text": child.stdout.decode(errors="replace")}


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


bring_up_loopback()
os.chmod(FOLDER, 0o755)
for below in ("run", "work"):
    os.mkdir(f"{FOLDER}/{below}")
    if UID != os.getuid():
        os.chown(f"{FOLDER}/{below}", UID, UID)
if UID != os.getuid():
    keep_reachable([BINARY, sys.prefix, sys.base_prefix, FOLDER])
create_workspace()
mount_a_home()
start_stand_ins()
# An ordinary user's testbed has capabilities in its own user namespace; workers must not inherit them.
ctypes.CDLL(None).prctl(47, 4, 0, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
sibling = subprocess.Popen(
    [sys.executable, "-I", "-c", "import time; time.sleep(36000)"],
    env=ENVIRONMENT,
    stdin=subprocess.DEVNULL,
    **as_identity(),
)
server = Server(f"{FOLDER}/testbed.sock", Commands)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
for child in [sibling, *started.values()]:
    if child.poll() is None:
        child.send_signal(signal.SIGKILL)
        child.wait()
shutil.rmtree(FOLDER, ignore_errors=True)
