"""The assistd process and its children: disturbances, monitoring and shutdown."""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from .client import REQUEST_LIMIT, Client, Unacknowledged

# Seconds for an orderly stop of the server, and of processes that it has left behind.
STOP_LIMIT = 60
REMAINS_LIMIT = 10
START_ATTEMPTS = 5
IDLE_IN_TRANSACTION = """select count(*) from pg_stat_activity
    where state like 'idle in transaction%' and state_change < now() - interval '2 s'"""
ACTIVE_RUNS = """select count(*) from runs
    where status in ('queued', 'in_progress', 'cancelling')"""
# Must be zero after the load. The database also has runs that no caller knows.
LEFT_BEHIND = {
    "runs that are queued, in progress or cancelling": ACTIVE_RUNS,
    "leases on runs": "select count(*) from runs where lease_owner is not null",
    "open steps of ended runs": """select count(*) from run_steps s join runs r on r.id = s.run_id
        where s.ended_at is null and r.ended_at is not null""",
    "open messages of ended runs": """select count(*) from messages m join runs r on r.id = m.run_id
        where m.status = 'in_progress' and r.ended_at is not null""",
    "files that are not indexed": """select count(*) from vector_store_files
        where status = 'in_progress'""",
    "sessions idle in transaction": IDLE_IN_TRANSACTION,
}


class SoakFailed(Exception):
    """The soak cannot continue."""


class Server:
    """assistd with its own database, in a folder that belongs to the soak."""

    def __init__(self, program, folder):
        self.program, self.data, self.log = program.resolve(), folder / "data", folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        prefixes = ("ASSISTD_", "OPENAI_", "OTEL_", "AWS_", "PG", "DATABASE_URL")
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(prefixes) or name == "ASSISTD_POSTGRES_BIN"}
        self.environment = kept | {
            "ASSISTD_DATA_DIR": str(self.data),
            "ASSISTD_LISTEN": f"127.0.0.1:{self.port}",
            "ASSISTD_SCRIPT": str(Path(__file__).with_name("script.yaml")),
            "ASSISTD_EMBEDDING_MODEL": "scripted/embeddings",
            "ASSISTD_LOG": "warn",
            "ASSISTD_LOG_FORMAT": "json",
        }
        self.process = None

    def start(self):
        # Its own session keeps Ctrl-C from it, as the soak stops it in order.
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [self.program], env=self.environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)

    def stop(self):
        """Stops the server. Returns the command lines of the processes that it left behind."""
        if self.process is None:
            return []
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        remains = self.processes()
        self._end(remains, signal.SIGINT)
        deadline = time.monotonic() + REMAINS_LIMIT
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self._end(left, signal.SIGKILL)
        return list(remains.values())

    def _end(self, processes, number):
        for id in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(id, number)

    def processes(self):
        """The processes whose command line or working directory names the data folder."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
                if str(self.data) in command + os.readlink(folder / "cwd"):
                    found[int(folder.name)] = command[:200]
        return found

    def postmaster(self):
        """The process id of PostgreSQL, or None while there is none."""
        try:
            return int((self.data / "postgres/postmaster.pid").read_text().splitlines()[0])
        except (OSError, ValueError, IndexError):
            return None

    def memory(self):
        """The resident set of the server's own process in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    async def count(self, statement):
        """The number that an SQL statement returns, by the server's own psql command."""
        child = await asyncio.create_subprocess_exec(
            self.program, "postgres", "psql", "-XAtqc", statement, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, error = await child.communicate()
        if child.returncode != 0:
            raise SoakFailed(f"psql failed: {error.decode(errors='replace').strip()[-300:]}")
        return int(out)

    async def ready(self, journal):
        """Waits until a thread can be created; returns how many seconds that took."""
        begun, client = time.monotonic(), Client(self.port, journal)
        while time.monotonic() < begun + REQUEST_LIMIT and self.process.poll() is None:
            with contextlib.suppress(Unacknowledged):
                await client.post("/threads", {})
                client.close()
                return time.monotonic() - begun
            await asyncio.sleep(0.05)
        status, log = self.process.poll(), self.log.read_text(errors="replace")[-400:]
        raise SoakFailed(f"the server creates no thread; exit status {status}; log: {log}")


async def restart_postgres(server, journal):
    """Stops PostgreSQL in order, as an operator might. The server must start it again."""
    before = server.postmaster()
    if before is None:
        raise SoakFailed("there is no postmaster to stop")
    os.kill(before, signal.SIGINT)
    # Requests may succeed until it has stopped.
    while Path(f"/proc/{before}").exists():
        await asyncio.sleep(0.02)
    seconds = await server.ready(journal)
    if server.postmaster() in (before, None):
        raise SoakFailed("the server did not start PostgreSQL again")
    journal.notes.append(f"PostgreSQL was stopped: first write {seconds:.1f} s after its end")


async def kill_server(server, journal):
    """Ends the server without a warning and starts it again at once. A start that fails is
    reported and retried, as by a service manager, so that the soak continues."""
    server.process.kill()
    server.process.wait()
    killed = time.monotonic()
    for attempts_left in reversed(range(START_ATTEMPTS)):
        server.start()
        try:
            await server.ready(journal)
            break
        except SoakFailed as error:
            journal.failed_starts.append(str(error))
            if attempts_left == 0 or server.process.poll() is None:
                raise
    seconds = time.monotonic() - killed
    journal.notes.append(f"the server was killed: first write {seconds:.1f} s later")


async def disturb(server, journal, seconds):
    """Restarts PostgreSQL after one third of the load, and kills the server after two thirds."""
    begun = time.monotonic()
    for share, disturbance in ((1 / 3, restart_postgres), (2 / 3, kill_server)):
        await asyncio.sleep(begun + seconds * share - time.monotonic())
        print(f"soak: {disturbance.__name__}", flush=True)
        journal.disturbances.append(time.monotonic())
        await disturbance(server, journal)


async def watch(server, journal):
    """Samples memory each second and idle transactions every ten seconds."""
    for tick in itertools.count(1):
        await asyncio.sleep(1)
        in_recovery = journal.is_recovery(time.monotonic())
        if server.process.poll() is not None and not in_recovery:
            raise SoakFailed(f"the server ended by itself: status {server.process.returncode}")
        # A process that was just killed has no memory.
        with contextlib.suppress(OSError, TypeError):
            journal.memory.append((time.monotonic(), server.memory()))
        if tick % 10 == 0 and not in_recovery:
            requests, memory = journal.counts["requests"], journal.memory[-1][1]
            print(f"soak: {tick} s, {requests} requests, {memory:.0f} MiB", flush=True)
            idle = await server.count(IDLE_IN_TRANSACTION)
            journal.idle_in_transaction = max(journal.idle_in_transaction, idle)
