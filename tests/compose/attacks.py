"""The sandbox's attack list, run in the composed worker: each file of sandbox/tests/attacks goes as a
cell through a run of the API. That the attacks succeed where nothing confines them is shown by the
worker's own tests."""

import json
import secrets
import time
from pathlib import Path

from stack import containers, inside, run

ATTACKS = Path(__file__).parents[2] / "sandbox/tests/attacks"
# What needs a root of the session's own, and so the stronger tier.
NAMESPACES_ONLY = {"view"}

# What the attacks look for, in the worker's container: processes with a key in their environment, of
# the worker's user. Their numbers must be none that a session's own processes may have.
SIBLING = "import os, time\nwhile os.getpid() < 100:\n    if os.fork(): os._exit(0)\ntime.sleep(3600)"


def processes_with(container, marker):
    listing = "import glob\nfor path in glob.glob('/proc/[0-9]*/environ'):\n  try: print(path.split('/')[2]) if b'%s' in open(path, 'rb').read() else None\n  except OSError: pass"
    return inside(container, "/opt/venv/bin/python3", "-c", listing % marker).split()


def assault(client, assistant):
    """Runs all attacks; fails if one gains something. Tells how many there were."""
    workers = containers("sandbox")
    marker = "kestrel-" + secrets.token_hex(16)
    siblings = {}
    for worker in workers:
        inside(worker, "/bin/sh", "-c", f"echo {marker} > /run/assistd-sandbox/secret.txt; mkdir -p /run/assistd-sandbox/work")
        for number in range(2):
            run("docker", "exec", "--detach", "--env", f"OPENAI_API_KEY={marker}", worker,
                "/opt/venv/bin/python3", "-c", SIBLING)
        time.sleep(1)
        siblings[worker] = processes_with(worker, marker)
        assert len(siblings[worker]) == 2, siblings

    tried = 0
    prelude = (ATTACKS / "prelude.py").read_text()
    about = json.loads(inside(workers[0], "assistd-sandbox", "ping").splitlines()[0].split()[1].lower().join('""'))
    for file in sorted(ATTACKS.glob("*.py")):
        if file.stem == "prelude" or (about != "namespaces" and file.stem in NAMESPACES_ONLY):
            continue
        # Whichever worker gets it: the numbers of all are tried.
        for worker in workers:
            scenery = {
                "folder": "/run/assistd-sandbox",
                "socket": f"/run/assistd-sandbox/{worker[:12]}.sock",
                "worker": int(siblings[worker][0]),
                "sibling": int(siblings[worker][1]),
                "unique": "attack-" + secrets.token_hex(4),
                "python": "/opt/venv/bin/python3",
                "inside": True,
            }
            code = f"STAGE = {scenery!r}\n{prelude}{file.read_text()}\nreport()\n"
            thread = client.beta.threads.create(messages=[{"role": "user", "content": f"```python\n{code}\n```"}])
            finished = client.beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
            assert finished.status == "completed", finished
            (step,) = [step for step in client.beta.threads.runs.steps.list(finished.id, thread_id=thread.id)
                       if step.type == "tool_calls"]
            logs = "".join(output.logs for call in step.step_details.tool_calls
                           for output in call.code_interpreter.outputs if output.type == "logs")
            assert marker not in logs, "a secret got out"
            outcomes = [json.loads(line[2:]) for line in logs.splitlines() if line.startswith("@@")]
            wanted = file.read_text().count("\n@attack(") + file.read_text().startswith("@attack(")
            assert len(outcomes) == wanted, f"{file.stem}: {len(outcomes)} of {wanted} attacks: {logs}"
            gained = [outcome for outcome in outcomes if outcome[2]]
            assert not gained, f"{file.stem} gained {gained}"
            tried += len(outcomes)
            client.beta.threads.delete(thread.id)
            traces = inside(worker, "/bin/sh", "-c", "ls /tmp /mnt /mnt/data /dev/shm /run/assistd-sandbox")
            assert scenery["unique"] not in traces, traces
    for worker in workers:
        assert processes_with(worker, marker) == siblings[worker], "a process beside the worker was harmed"
        inside(worker, "/bin/sh", "-c", "rm -r /run/assistd-sandbox/secret.txt /run/assistd-sandbox/work", check=False)
    return about, tried
