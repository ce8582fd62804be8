"""Starts the server and the validating proxy, runs the suites, prints failures and one line of counts.

The server is $ASSISTD_BIN, by default the debug build. Two servers run, each with its own embedded
Postgres in a temporary folder: the usual one, and one with runs that expire after seconds and without code_interpreter.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
ROOT = HERE.parents[1]


def built_server():
    """The debug build in Cargo's target folder."""
    folder = subprocess.run([str(ROOT / "scripts" / "target_folder")], check=True, capture_output=True, text=True)
    return str(Path(folder.stdout.strip()) / "debug" / "assistd")


SERVER = os.environ.get("ASSISTD_BIN") or built_server()
START_SECONDS = 60
STOP_SECONDS = 30
# Webhook receivers listen on the loopback address. The origin is that of the page in browser/.
ADMIN_KEY = "sk-test-admin-of-the-suites"
USUAL = {
    "ASSISTD_WEBHOOK_ALLOW_PRIVATE": "true",
    "ASSISTD_CORS_ORIGINS": "http://app.example",
    "ASSISTD_ADMIN_KEY": ADMIN_KEY,
}
# The second server also requires the beta header, and runs no code.
SHORT_LIVED = {"ASSISTD_RUN_EXPIRY": "4s", "ASSISTD_REQUIRE_BETA_HEADER": "true", "ASSISTD_SANDBOX": "off"}

# Versions that run only some files: the last one that has vector stores under `beta` only.
ONLY = {"1.65.5": ["test_vector_stores.py", "test_file_search.py"]}

# The counts at the end of a runner's output: pytest's last line, and the summary of node's test runner.
COUNTS = {
    "passed": [r"(\d+) passed", r"^# pass (\d+)"],
    "failed": [r"(\d+) failed", r"(\d+) errors?\b", r"^# fail (\d+)", r"^# cancelled (\d+)"],
    "skipped": [r"(\d+) skipped", r"^# skipped (\d+)"],
}


class Suite:
    """A folder of tests, the command that runs them, and their API key."""

    def __init__(self, name, folder, command, environment=None):
        self.name = name
        self.folder = HERE / folder
        self.command = command
        self.environment = environment or {}
        self.key = f"sk-test-{name}"


def all_suites():
    pytest = str(CACHE / "proxy" / "bin" / "pytest")
    suites = [Suite("rules", "proxy", [pytest, "-q"]), Suite("wire", "wire", [pytest])]
    suites.append(Suite("examples", "examples", [pytest]))
    fuzzer = str(CACHE / "fuzz" / "bin" / "python")
    suites.append(Suite("fuzz", "fuzz", [fuzzer, "fuzz.py"]))
    for venv in sorted(CACHE.glob("openai-*")):
        version = venv.name.removeprefix("openai-")
        command = [str(venv / "bin" / "pytest"), *ONLY.get(version, [])]
        suites.append(Suite(f"openai-python-{version}", "python", command))
    for package in sorted(CACHE.glob("node-openai-*")):
        version = package.name.removeprefix("node-openai-")
        files = sorted(str(path) for path in (HERE / "node").glob("*.test.mjs"))
        command = ["node", "--test", "--test-reporter=tap", *files]
        suites.append(Suite(f"openai-node-{version}", "node", command, {"SDK_PACKAGE": str(package)}))
    command = ["node", "--test", "--test-reporter=tap", "browser.test.mjs"]
    suites.append(Suite("browser", "browser", command, {"SDK_PACKAGE": str(CACHE / "browser")}))
    files = sorted(path.name for path in (HERE / "console").glob("*.test.mjs"))
    command = ["node", "--test", "--test-reporter=tap", "--test-concurrency=1", *files]
    suites.append(Suite("console", "console", command, {"SDK_PACKAGE": str(CACHE / "console")}))
    return suites


class Processes:
    """Started processes, which are stopped in reverse order."""

    def __init__(self, work):
        self._work = work
        self._started = []

    def start(self, name, command, environment=None):
        log = (self._work / f"{name}.log").open("wb")
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self._started.append(process)
        return process

    def stop(self, process):
        """Stops a process; returns its exit code."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def stop_all(self):
        for process in reversed(self._started):
            self.stop(process)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, process, log, ready):
    """Waits until `ready()` is true; exits if the process has died or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{what} did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.05)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def start_server(processes, work, data, name, keys, special):
    port = free_port()
    settings = special | {
        "ASSISTD_LISTEN": f"127.0.0.1:{port}",
        "ASSISTD_DATA_DIR": str(data / name),
        "ASSISTD_API_KEYS": keys,
        "ASSISTD_SCRIPT": str(HERE / "script.yaml"),
        "ASSISTD_UPSTREAM_RETRIES": "2",
        "ASSISTD_POLL_AFTER_MS": "50",
    }
    # The caller's settings for databases and upstreams must not reach the server.
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "DATABASE_URL"))
    }
    process = processes.start(f"server-{name}", [SERVER, "serve"], inherited | settings)
    url = f"http://127.0.0.1:{port}"
    wait_for("the server", process, work / f"server-{name}.log", lambda: answers(f"{url}/readyz"))
    return url


def start_proxy(processes, work, usual, short_lived, is_whole):
    port = free_port()
    command = [sys.executable, str(HERE / "proxy" / "proxy.py"), "--port", str(port)]
    command += ["--route", f"={usual}", "--route", f"/short-lived={short_lived}"]
    command += ["--report", str(work / "contract.txt")] + ["--all-operations"] * is_whole
    process = processes.start("proxy", command)
    url = f"http://127.0.0.1:{port}"
    wait_for("the proxy", process, work / "proxy.log", lambda: answers(f"{url}/healthz"))
    return process, url


def run_suite(suite, work, data, server_url, proxy_url, arguments):
    """Runs one suite; returns its counts."""
    environment = os.environ | suite.environment | {
        "SDK_SERVER_URL": server_url,
        "SDK_BASE_URL": f"{proxy_url}/v1",
        "SDK_SHORT_LIVED_URL": f"{proxy_url}/short-lived/v1",
        "SDK_API_KEY": suite.key,
        "SDK_ADMIN_KEY": ADMIN_KEY,
        # For `assistd` commands beside the server.
        "SDK_SERVER": SERVER,
        "SDK_DATA_DIR": str(data / "usual"),
        "SDK_PROJECT": suite.name,
        "SDK_OTHER_API_KEY": "sk-test-stranger",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = work / f"{suite.name}.log"
    started = time.monotonic()
    with log.open("wb") as output:
        code = subprocess.run(
            [*suite.command, *arguments], cwd=suite.folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        ).returncode
    text = log.read_text(errors="replace")
    counts = {kind: sum(_last_number(pattern, text) for pattern in COUNTS[kind]) for kind in COUNTS}
    if code and not counts["failed"]:
        counts["failed"] = 1
    seconds = time.monotonic() - started
    summary = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    print(f"{suite.name}: {summary} in {seconds:.0f} s", flush=True)
    if code:
        print(text[-12000:], flush=True)
    return counts


def _last_number(pattern, text):
    numbers = re.findall(pattern, text, re.MULTILINE)
    return int(numbers[-1]) if numbers else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [suite.name for suite in all_suites()]
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"one of {', '.join(names)}; all by default")
    parser.add_argument("--jobs", type=int, default=3, help="concurrent suites")
    parser.add_argument("--keep", type=Path, help="keep logs and the report in this folder")
    parser.add_argument("--args", default="", help="further arguments for the test runners, such as '-k cancel'")
    options = parser.parse_args()
    unknown = set(options.suites) - set(names)
    if unknown:
        parser.error(f"there is no suite {', '.join(unknown)}")
    if not os.access(SERVER, os.X_OK):
        parser.error(f"there is no server at {SERVER}; build it or set ASSISTD_BIN")
    suites = [suite for suite in all_suites() if not options.suites or suite.name in options.suites]

    temporary = Path(tempfile.mkdtemp(prefix="assistd-sdk-", dir="/tmp"))
    try:
        results = run_all(suites, options, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    passed, failed, skipped = (sum(counts[kind] for counts in results) for kind in COUNTS)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(bool(failed))


def run_all(suites, options, temporary):
    """Runs the suites against two servers; returns the counts of each suite and of the contract."""
    # Only a whole run reaches every operation.
    is_whole = not options.suites and not options.args
    work, data = options.keep or temporary / "logs", temporary / "data"
    work.mkdir(parents=True, exist_ok=True)
    # Every suite has its own project, so that none sees the others' objects.
    keys = ",".join(f"{suite.name}:{suite.key}" for suite in suites) + ",stranger:sk-test-stranger"
    processes = Processes(work)
    try:
        usual = start_server(processes, work, data, "usual", keys, USUAL)
        short_lived = start_server(processes, work, data, "short-lived", keys, SHORT_LIVED)
        proxy, proxy_url = start_proxy(processes, work, usual, short_lived, is_whole)
        arguments = options.args.split()
        with ThreadPoolExecutor(options.jobs) as pool:
            results = list(pool.map(lambda suite: run_suite(suite, work, data, usual, proxy_url, arguments), suites))
        is_contract_kept = processes.stop(proxy) == 0
    finally:
        processes.stop_all()
    print((work / "contract.txt").read_text(), end="")
    return [*results, {"passed": is_contract_kept, "failed": not is_contract_kept, "skipped": 0}]


if __name__ == "__main__":
    main()
