"""Compares a stream with its expected transcript.

A transcript (golden/*.yaml) lists the events in order. An event names the fields that differ from the base
object of its kind (golden/objects.yaml). Before the comparison ids become `run_1`, `msg_2`, … by order of
appearance (`file-1` for files), times become `T`, counts of tokens `N`, scores `S`, and the pieces of one text, one argument or the
logs of one call are joined into one event. Names, values and the order of keys are then compared exactly.
"""

import json
import re
from pathlib import Path

import yaml

GOLDEN = Path(__file__).parent / "golden"
# Long enough to exclude names of fields such as `run_id`.
ID = re.compile(r"\b(?:(asst_|thread_|run_|step_|msg_|file-)[A-Za-z0-9]{12,}|(call_)[A-Za-z0-9-]+)")
ANY = "ANY"
# The fields that deltas of a tool call append to, by the call's type.
PIECES = {"function": "arguments", "code_interpreter": "input"}


def expected(name):
    """The expanded events of a transcript."""
    bases = yaml.safe_load((GOLDEN / "objects.yaml").read_text())
    transcript = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())
    return [_expand(event, bases, transcript.get("run", {})) for event in transcript["events"]]


def _expand(event, bases, of_run):
    ((name, fields),) = event.items()
    if name == "done":
        return name, fields
    kind = next(kind for kind in bases["kinds"] if re.fullmatch(bases["kinds"][kind], name))
    return name, bases[kind] | (of_run if kind == "run" else {}) | (fields or {})


def normal(events):
    """The events of a stream in the form of a transcript."""
    return _join([(name, _redact(data)) for name, data in _with_short_ids(events)])


def _with_short_ids(events):
    names = {}
    counts = {}

    def short(match):
        kind = match[1] or match[2]
        if match[0] not in names:
            counts[kind] = counts.get(kind, 0) + 1
            names[match[0]] = f"{kind}{counts[kind]}"
        return names[match[0]]

    return [(name, json.loads(ID.sub(short, json.dumps(data)))) for name, data in events]


def _redact(value, key=""):
    if isinstance(value, dict):
        return {name: _redact(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_redact(inner) for inner in value]
    if key.endswith("_at") and isinstance(value, int):
        return "T"
    if key.endswith("_tokens") and isinstance(value, int) and not key.startswith("max_"):
        return "N"
    if key == "score":
        return "S"
    return value


def _join(events):
    joined = []
    for name, data in events:
        piece = _piece(name, data)
        before = joined[-1][1] if joined and joined[-1][0] == name else None
        if piece and before and _goes_on(before, data):
            _append(before, piece)
        elif before and _logs(name, before, data):
            _logs(name, before)["logs"] += _logs(name, data)["logs"]
        else:
            joined.append((name, data))
    return joined


def _logs(name, *deltas):
    """The logs of the last delta, if all of these only append to the same logs of a call."""
    found = []
    for data in deltas:
        outputs = name == "thread.run.step.delta" and _part(data).get("code_interpreter", {}).get("outputs")
        if not outputs or len(outputs) != 1 or outputs[0].get("type") != "logs":
            return None
        found.append((_place(data), outputs[0]["index"], outputs[0]))
    return found[-1][2] if len({entry[:2] for entry in found}) == 1 else None


def _piece(name, data):
    """The text that a delta appends, if it does nothing else."""
    if name == "thread.message.delta":
        text = _part(data).get("text", {})
        return text.get("value") if list(text) == ["value"] else None
    if name == "thread.run.step.delta":
        call = _part(data)
        for body, field in PIECES.items():
            if list(call.get(body, {})) == [field]:
                return call[body][field]
    return None


def _goes_on(before, data):
    # The first event of a tool call is not merged: it has the id and no arguments. Neither is a reference.
    part = _part(before)
    alone = "id" in part or part.get("text", {}).get("annotations") or "outputs" in part.get("code_interpreter", {})
    return _place(before) == _place(data) and not alone


def _place(data):
    return data["id"], _part(data)["index"]


def _part(data):
    return (data["delta"].get("content") or data["delta"]["step_details"]["tool_calls"])[0]


def _append(before, piece):
    if "content" in before["delta"]:
        _part(before)["text"]["value"] += piece
    else:
        call = _part(before)
        call[call["type"]][PIECES[call["type"]]] += piece


def differences(actual, wanted):
    """Readable differences between two lists of events."""
    found = []
    if [name for name, _ in actual] != [name for name, _ in wanted]:
        found.append(f"events: {[name for name, _ in actual]}")
        found.append(f"wanted: {[name for name, _ in wanted]}")
        return found
    for position, ((name, got), (_, want)) in enumerate(zip(actual, wanted)):
        if isinstance(got, dict):
            got = {key: ANY if isinstance(want, dict) and want.get(key) == ANY else value for key, value in got.items()}
        if json.dumps(got) != json.dumps(want):
            found.append(f"event {position} {name}\n   is     {json.dumps(got)}\n   wanted {json.dumps(want)}")
    return found
