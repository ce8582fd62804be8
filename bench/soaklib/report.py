"""The report and the verdict of a soak."""

import collections
import datetime
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
from pathlib import Path

from .ledger import RECOVERY

# MiB per minute. At a few hundred requests a second this is well below a leak of 1 KiB a request,
# and above the drift of a warm allocator.
MEMORY_LIMIT = 8.0
# Seconds. The slope of a shorter stretch depends more on the allocator than on a leak.
SHORTEST_FIT = 60


def read_log(path, journal, monotonic_to_wall):
    """Counts the log's lines by message, without ids and numbers: first those outside recovery
    windows, then those within. Lines of the sandbox worker are not JSON."""
    counters = collections.Counter(), collections.Counter()
    for line in path.read_text(errors="replace").splitlines():
        if plain := re.match(r"(\S+Z)\s+(INFO|WARN|ERROR) (.*)", line):
            moment, level, text = plain.groups()
        elif line.startswith("{"):
            entry = json.loads(line)
            moment, level, text = entry["timestamp"], entry["level"], entry.get("message", "")
        else:
            moment, level, text = "1970-01-01T00:00:00Z", "ERROR", line
        if level == "INFO":
            continue
        moment = datetime.datetime.fromisoformat(moment).timestamp() - monotonic_to_wall
        text = re.sub(r"\b(run_|thread_|msg_|file-|vs_|step_|req_)\w{8,}", r"\1…", text)
        text = re.sub(r"\d+(\.\d+)?", "N", text)[:200]
        counters[journal.is_recovery(moment)][f"{level} {text}"] += 1
    return counters


def memory_slopes(journal, begun, ended):
    """Fits a line to the second half of each stretch between disturbances; caches and pools grow
    in the first half. Returns seconds, MiB per minute and the last MiB of each."""
    recoveries = ((moment, moment + RECOVERY) for moment in journal.disturbances)
    borders, slopes = [begun, *itertools.chain(*recoveries), ended], []
    for start, end in zip(borders[::2], borders[1::2]):
        samples = [sample for sample in journal.memory if (start + end) / 2 <= sample[0] <= end]
        if len(samples) > 1:
            slope = statistics.linear_regression(*zip(*samples)).slope * 60
            slopes.append((samples[-1][0] - samples[0][0], slope, samples[-1][1]))
    return slopes


def checks_of(world, errors_in_log, slopes, left, remains):
    """All checks: name, figure, and maximum."""
    journal, ledger = world.journal, world.ledger
    judged = [slope for seconds, slope, _ in slopes if seconds >= SHORTEST_FIT]
    return [
        ("acknowledged objects lost or different", len(ledger.differences), 0),
        ("runs that are stuck", len(journal.stuck), 0),
        ("runs and files that failed", len(journal.unsuccessful), 0),
        ("5xx, 4xx and lost connections outside recovery windows", journal.errors.total(), 0),
        ("ERROR lines of the log outside recovery windows", errors_in_log, 0),
        ("sessions idle in transaction during the load", journal.idle_in_transaction, 0),
        *((f"{name} after the load", count, 0) for name, count in left.items()),
        ("starts of the server that failed", len(journal.failed_starts), 0),
        ("processes left behind", len(remains), 0),
        *(("growth of the server's memory: MiB/min", round(slope, 1), MEMORY_LIMIT)
          for slope in judged),
    ]


def report(options, world, log, slopes, left, remains):
    """Returns the report and whether every check passed."""
    journal, ledger = world.journal, world.ledger
    errors_in_log = sum(n for text, n in log[0].items() if text.startswith("ERROR"))
    checks = checks_of(world, errors_in_log, slopes, left, remains)
    passed = all(figure <= limit for _, figure, limit in checks)
    read_back = ", ".join(f"{count} {name}" for name, count in ledger.read_back.items())
    abandoned = [(name, n) for name, n in sorted(journal.counts.items()) if "abandoned by" in name]
    command = (f"bench/soak --minutes {options.minutes:g} --callers {options.callers} "
               f"--abandon {options.abandon:g} --seed {options.seed}")
    lines = [
        "# Soak", "", machine(), "", f"`{command}`: **{'passed' if passed else 'FAILED'}**", "",
        *table(["check", "figure", "at most", ""],
               [(*row, "ok" if row[1] <= row[2] else "FAIL") for row in checks]),
        f"- read back: {read_back or 'nothing'}", *(f"- {note}" for note in journal.notes),
        f"- answers 429: {journal.counts['429 answers']}", "",
        *table(["operation", "completed", "abandoned", "interrupted", "p50 ms", "p99 ms"],
               operation_rows(journal)),
        "Latencies leave out operations that overlap a recovery window.", "",
        *table(["abandoned", "count"], abandoned),
        *table(["memory fitted over", "MiB/min", "MiB at the end", ""],
               [(f"{seconds:.0f} s", f"{slope:.1f}", f"{last:.0f}",
                 "" if seconds >= SHORTEST_FIT else "too short to be judged")
                for seconds, slope, last in slopes]),
    ]
    for title, counter in (("Errors outside recovery windows", journal.errors),
                           ("Errors within recovery windows", journal.errors_in_recovery),
                           ("Log outside recovery windows", log[0]),
                           ("Log within recovery windows", log[1])):
        if counter:
            rows = [(count, text) for text, count in counter.most_common(40)]
            lines += [f"## {title}", "", *table(["count", "text"], rows)]
    found = [*ledger.differences, *journal.stuck.values(), *journal.unsuccessful.values(),
             *journal.failed_starts, *(f"left behind: {command}" for command in remains)]
    if found:
        lines += ["## What failed", "", *(f"- {text[:600]}" for text in found[:50]), ""]
    return "\n".join(lines).rstrip() + "\n", passed


def operation_rows(journal):
    kinds = ("abandoned ", "interrupted ")
    for name in sorted(journal.operations):
        counts = [journal.counts[name], *(journal.counts[kind + name] for kind in kinds)]
        values = sorted(journal.latencies[name])
        yield name, *counts, *(
            f"{1000 * values[int(len(values) * share)]:.1f}" if values else "–"
            for share in (0.5, 0.99))


def machine():
    git = ["git", "-C", Path(__file__).parent, "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    now = datetime.datetime.now(datetime.UTC)
    return (f"{now:%Y-%m-%d %H:%M} UTC · commit {commit} · {os.cpu_count()} cores "
            f"({model[1] if model else 'unknown'}), {memory:.0f} GiB, Linux {platform.release()}")


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return [f"| {' | '.join(line)} |" for line in cells] + [""]
