"""The sandbox's attack list, run in the composed worker: each file of sandbox/tests/attacks goes as a
cell through a run of the API. That the attacks succeed where nothing confines them is shown by the
worker's own tests."""

import json
import secrets
import time
from pathlib import Path

from stack import containers, inside, run

ATTACKS = Path(__file__).parents[2] / "sandbox/tests/attacks"
# Attacks that only the stronger tier prevents, where a session has its own root.
NAMESPACES_ONLY = {"view"}

# The attacks' targets in the worker's container: processes of the worker's user with a key in their
# environment. Their ids must differ from those of a session's own processes.
SIBLING = "import os, time\nwhile os.getpid() < 100:\n    if os.fork(): os._exit(0)\ntime.sleep(3600)"


def processes_with(container, marker):
    listing = "import glob\nfor path in glob.glob('/proc/[0-9]*/environ'):\n  try: print(path.split('/')[2]) if b'%s' in open(path, 'rb').read() else None\n  except OSError: pass"
    return inside(container, "/opt/venv/bin/python3", "-c", listing % marker).split()


def prepare(worker, marker):
    """Starts the attacks' targets beside the worker; returns two process ids."""
    inside(worker, "/bin/sh", "-c",
           f"echo {marker} > /run/assistd-sandbox/secret.txt; mkdir -p /run/assistd-sandbox/work")
    for _ in range(2):
        run("docker", "exec", "--detach", "--env", f"OPENAI_API_KEY={marker}", worker,
            "/opt/venv/bin/python3", "-c", SIBLING)
    until = time.monotonic() + 20
    while len(found := processes_with(worker, marker)) != 2 or min(map(int, found)) < 100:
        assert time.monotonic() < until, found
        time.sleep(0.5)
    return found


def cell(client, assistant, thread, code):
    """The output of a cell that a run on this thread executes."""
    client.beta.threads.messages.create(thread.id, role="user", content=f"```python\n{code}\n```")
    done = client.beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    assert done.status == "completed", done
    steps = client.beta.threads.runs.steps.list(done.id, thread_id=thread.id)
    (step,) = [step for step in steps if step.type == "tool_calls"]
    return "".join(output.logs for call in step.step_details.tool_calls
                   for output in call.code_interpreter.outputs if output.type == "logs")


def assault(client, assistant):
    """Runs all attacks and fails if one succeeds. Prints the tier and the number of attacks."""
    workers = containers("sandbox")
    tiers = {inside(worker, "assistd-sandbox", "ping").split()[1] for worker in workers}
    (tier,) = tiers
    marker = "kestrel-" + secrets.token_hex(16)
    siblings = {worker: prepare(worker, marker) for worker in workers}
    thread = client.beta.threads.create()
    targets = workers
    if tier == "Container":
        # A session has its container's hostname, and a worker serves this thread only.
        name = cell(client, assistant, thread, "import socket; print(socket.gethostname())").strip()
        targets = [worker for worker in workers if worker.startswith(name)]
        assert targets, name

    tried = 0
    prelude = (ATTACKS / "prelude.py").read_text()
    for file in sorted(ATTACKS.glob("*.py")):
        if file.stem == "prelude" or (tier != "Namespaces" and file.stem in NAMESPACES_ONLY):
            continue
        if tier == "Namespaces":
            thread = client.beta.threads.create()
        # The session's worker is unknown, so the process ids of all workers are tried.
        for worker in targets:
            scenery = {
                "folder": "/run/assistd-sandbox",
                "socket": f"/run/assistd-sandbox/{worker[:12]}.sock",
                "worker": int(siblings[worker][0]),
                "sibling": int(siblings[worker][1]),
                "unique": "attack-" + secrets.token_hex(4),
                "python": "/opt/venv/bin/python3",
                "inside": True,
            }
            attacks = file.read_text()
            logs = cell(client, assistant, thread, f"STAGE = {scenery!r}\n{prelude}{attacks}\nreport()\n")
            assert marker not in logs, "a secret got out"
            outcomes = [json.loads(line[2:]) for line in logs.splitlines() if line.startswith("@@")]
            wanted = sum(line.startswith("@attack(") for line in attacks.splitlines())
            assert len(outcomes) == wanted, f"{file.stem}: {len(outcomes)} of {wanted} attacks: {logs}"
            gained = [outcome for outcome in outcomes if outcome[2]]
            assert not gained, f"{file.stem} gained {gained}"
            tried += len(outcomes)
            traces = inside(worker, "/bin/sh", "-c", "ls / /tmp /mnt /mnt/data /dev /dev/shm /run/assistd-sandbox",
                            check=False)
            assert scenery["unique"] not in traces, traces
    for worker in workers:
        assert processes_with(worker, marker) == siblings[worker], "a process beside the worker was harmed"
        inside(worker, "/bin/sh", "-c", "rm -rf /run/assistd-sandbox/secret.txt /run/assistd-sandbox/work")
        for sibling in siblings[worker]:
            inside(worker, "/bin/sh", "-c", f"kill {sibling}")
    return tier, tried
