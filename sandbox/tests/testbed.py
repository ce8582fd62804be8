"""The place where a worker is attacked.

Runs in network and mount namespaces of its own, so that nothing an attack does can leave them, and
puts up what a session must not reach: listeners, sockets, a file that all may read, a process with
a key in its environment. It starts the workers as well, and the controls: the attacks themselves,
run beside the worker instead of inside it, where they must succeed.

    unshare … python3 testbed.py FOLDER UID BINARY

UID is whom workers and controls run as. Questions come as one JSON line per connection to
FOLDER/stage.sock and get one line in answer. When standard input ends, so does the stage with all
it started.
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

# What a secret looks like, so that an attacker can search for one without knowing it. The marker
# itself never stands in one piece in an attack's code.
MARKER = "kestrel-"
SECRETS = {place: MARKER + secrets.token_hex(16) for place in ("environment", "file", "listener")}

# What no worker needs, but an operator's machine has.
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
    """How a child becomes whom workers run as."""
    if UID == os.getuid():
        return {}
    return {"user": UID, "group": UID, "extra_groups": []}


def bring_up_loopback():
    """Brings `lo` up, and gives it the address where clouds keep a machine's credentials."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        address = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, bytes([169, 254, 169, 254]))
        up = struct.pack("16sh14x", b"lo", 1)
        fcntl.ioctl(control, 0x8914, up)  # SIOCSIFFLAGS, IFF_UP
        fcntl.ioctl(control, 0x8916, address)  # SIOCSIFADDR


def keep_reachable(paths):
    """Lets the worker's identity reach `paths` through folders that it may not enter.

    Each such folder is covered, in this mount namespace alone, by an empty one in which only the
    given paths are put back.
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


def make_a_workspace():
    """The folder that a worker's container has for its session, in this mount namespace alone."""
    if os.path.isdir("/mnt/data"):
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "workspace", "/mnt"], check=True)
    os.mkdir("/mnt/data")
    if UID != os.getuid():
        os.chown("/mnt/data", UID, UID)


def move_into_a_home():
    """Lets a project be somebody's, in this mount namespace alone: many a checkout lies there."""
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


def put_up_stand_ins():
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


class Questions(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            question = json.loads(self.rfile.readline())
            reply = getattr(self, question.pop("do"))(**question)
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
        said = child.stdout.readline().decode().strip()
        alarm.cancel()
        if said != "ready":
            child.kill()
            child.wait()
            with open(log, errors="replace") as errors:
                return {"failed": f"it said {said!r}, ended with {child.returncode}: {errors.read()}"}
        return {"pid": child.pid, "log": log}

    def wait(self, pid, seconds):
        """How a worker ended: its exit status, or minus the signal."""
        return {"status": started[pid].wait(seconds)}

    def control(self, code, seconds):
        """Runs an attack outside of any sandbox, with what an unconfined process has."""
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
make_a_workspace()
move_into_a_home()
put_up_stand_ins()
# An ordinary user's stage has its capabilities from its own user namespace; workers get none.
ctypes.CDLL(None).prctl(47, 4, 0, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
sibling = subprocess.Popen(
    [sys.executable, "-I", "-c", "import time; time.sleep(36000)"],
    env=ENVIRONMENT,
    stdin=subprocess.DEVNULL,
    **as_identity(),
)
server = Server(f"{FOLDER}/stage.sock", Questions)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
for child in [sibling, *started.values()]:
    if child.poll() is None:
        child.send_signal(signal.SIGKILL)
        child.wait()
shutil.rmtree(FOLDER, ignore_errors=True)
