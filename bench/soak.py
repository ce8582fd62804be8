"""A long mixed load that checks that nothing acknowledged is lost.

The soak starts assistd with its own database, the scripted model and the sandbox worker in a
temporary folder. Callers create, run, read and delete, and abandon some of their requests. After a
third of the time PostgreSQL is stopped, after two thirds the server is killed. A ledger holds what
was acknowledged. In the end all of it is read back and compared; the exit code is 0 if every check
holds. bench/README.md explains the checks.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from soaklib.caller import Caller, World
from soaklib.client import Client, Refused, Unacknowledged
from soaklib.compare import Comparison
from soaklib.ledger import Journal
from soaklib.report import memory_slopes, read_log, report
from soaklib.server import ACTIVE_RUNS, LEFT_BEHIND, Server, SoakFailed, disturb, watch

ROOT = Path(__file__).resolve().parent.parent
# Seconds after the load within which every run must be terminal or wait for its caller.
SETTLE_LIMIT = 60
# Concurrent connections for the comparison, and files that are searched for.
READERS = 32
SEARCHES = 200
INTERRUPTED = 130


async def apply_load(world, server):
    """Runs the callers for the whole time, with two disturbances."""
    seconds, journal = world.options.minutes * 60, world.journal
    callers = [Caller(number, world).work() for number in range(world.options.callers)]
    tasks = [asyncio.create_task(task) for task in (*callers, disturb(server, journal, seconds))]
    watcher = asyncio.create_task(watch(server, journal))
    try:
        ended, _ = await asyncio.wait([*tasks, watcher], timeout=seconds,
                                      return_when=asyncio.FIRST_EXCEPTION)
        for task in ended:
            task.result()
        world.stopping.set()
        await asyncio.gather(*tasks)
    finally:
        for task in (*tasks, watcher):
            task.cancel()
        await asyncio.gather(*tasks, watcher, return_exceptions=True)


async def read_back(world, server):
    """Compares everything with the ledger. Returns leftovers in the database."""
    ledger, deadline = world.ledger, time.monotonic() + SETTLE_LIMIT
    while await server.count(ACTIVE_RUNS) and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    keys = random.Random(world.options.seed).sample(
        ledger.searchable, min(SEARCHES, len(ledger.searchable)))
    work = [*((Comparison.thread, thread) for thread in ledger.threads),
            *((Comparison.accepts_message, thread) for thread in ledger.threads
              if thread.is_uncertain and thread.is_deleted is False),
            *((Comparison.file, file) for file in ledger.files),
            *((Comparison.search, key) for key in keys)]
    queue = iter(work)

    async def read():
        client = Client(world.port, world.journal)
        comparison = Comparison(world, client, is_final=True)
        for compare, subject in queue:
            try:
                await compare(comparison, subject)
            except (Unacknowledged, Refused) as error:
                ledger.expect(False, f"{subject} cannot be read back: {error}")
        client.close()

    await asyncio.gather(*(read() for _ in range(READERS)))
    return {name: await server.count(statement) for name, statement in LEFT_BEHIND.items()}


async def soak(world, server):
    """Returns when the load started and ended, and its leftovers in the database."""
    soaking = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, soaking.cancel)
    begun, left = time.monotonic(), {}
    try:
        server.start()
        # Errors before the server has started are not counted.
        await server.ready(Journal())
        await world.prepare()
        begun = time.monotonic()
        await apply_load(world, server)
        ended = time.monotonic()
        requests = world.journal.counts["requests"]
        world.journal.notes.append(f"the load: {requests} requests in {ended - begun:.0f} s")
        left = await read_back(world, server)
        world.journal.notes.append(f"reading back took {time.monotonic() - ended:.0f} s")
    except SoakFailed as error:
        ended = time.monotonic()
        world.ledger.expect(False, f"the soak ended early: {error}")
    return begun, ended, left


def parse_options():
    parser = argparse.ArgumentParser(
        prog="bench/soak", description="Prove under a long mixed load that nothing "
        "acknowledged is lost.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="duration of the load")
    parser.add_argument("--callers", type=int, default=64, help="concurrent callers")
    parser.add_argument("--abandon", type=float, default=0.05, help="share of requests to abandon")
    parser.add_argument("--seed", type=int, default=1, help="seed of all random choices")
    parser.add_argument("--assistd", type=Path, default=ROOT / "target/release/assistd",
                        help="server binary")
    parser.add_argument("--report", type=Path, default=ROOT / "bench/results/soak.md",
                        help="file for the report")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    return parser.parse_args()


def main():
    options = parse_options()
    if not options.assistd.is_file():
        sys.exit(f"soak: {options.assistd} does not exist; build it with `bench/soak`")
    folder = Path(tempfile.mkdtemp(prefix="assistd-soak-"))
    # As root, the server runs PostgreSQL as another user, who must be able to enter the folder.
    folder.chmod(0o755)
    server = Server(options.assistd, folder)
    world, remains = World(server.port, options), None
    try:
        begun, ended, left = asyncio.run(soak(world, server))
        remains = server.stop()
        log = read_log(server.log, world.journal, time.time() - time.monotonic())
        slopes = memory_slopes(world.journal, begun, ended)
        text, passed = report(options, world, log, slopes, left, remains)
        options.report.write_text(text)
        print(text)
        return 0 if passed else 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("soak: interrupted; stopping the server", file=sys.stderr)
        return INTERRUPTED
    finally:
        if remains is None:
            server.stop()
        if options.keep:
            print(f"soak: the server's folder is {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
