"""The order and content rules of a run's event stream, as the accumulators of the SDKs need them.

`StreamRules` is fed the parsed events of one response in order and collects what is wrong.
"""

import json

RUN_ENDS = {
    "thread.run.completed",
    "thread.run.requires_action",
    "thread.run.incomplete",
    "thread.run.failed",
    "thread.run.cancelled",
    "thread.run.expired",
}
STEP_ENDS = {
    "thread.run.step.completed",
    "thread.run.step.failed",
    "thread.run.step.cancelled",
    "thread.run.step.expired",
}
MESSAGE_ENDS = {"thread.message.completed", "thread.message.incomplete"}

# The first event of a stream by operation.
OPENINGS = {
    "createThreadAndRun": [
        "thread.created",
        "thread.run.created",
        "thread.run.queued",
        "thread.run.in_progress",
    ],
    "createRun": ["thread.run.created", "thread.run.queued", "thread.run.in_progress"],
    "submitToolOutputs": [
        "thread.run.step.completed",
        "thread.run.queued",
        "thread.run.in_progress",
    ],
}


class OpenStep:
    def __init__(self, created, resumed):
        self.created = created
        self.resumed = resumed
        self.calls = []


class OpenMessage:
    def __init__(self, created):
        self.created = created
        self.parts = []


class StreamRules:
    """Checks one stream and collects `violations`."""

    def __init__(self, operation_id):
        self.operation_id = operation_id
        self.violations = []
        self.names = []
        self.step = None
        self.message = None
        self.seen_ids = set()
        self.usage = []
        self.end = None
        self.failed = False
        self.done = False

    def event(self, name, data):
        self._check_position(name)
        self.names.append(name)
        if name == "done":
            self.done = True
        elif name == "error":
            self.failed = True
        elif name == "thread.run.step.delta":
            self._step_delta(data)
        elif name == "thread.message.delta":
            self._message_delta(data)
        elif name.startswith("thread.run.step."):
            self._step(name, data)
        elif name.startswith("thread.message."):
            self._message(name, data)
        elif name in RUN_ENDS:
            self._run_end(name, data)

    def finish(self, cut_off):
        """Ends the stream; `cut_off` if the client hung up."""
        if cut_off:
            return
        for due, name in zip(OPENINGS.get(self.operation_id, []), self.names):
            if name != due:
                # A queued run may be cancelled, expire or fail.
                if name not in RUN_ENDS | {"thread.run.cancelling", "error"}:
                    self._broken(f"the stream begins with {name} where {due} was due")
                break
        if not self.done:
            self._broken("the stream ended without `done`")

    def _broken(self, what):
        self.violations.append(what)

    def _check_position(self, name):
        if self.operation_id == "streamRun" and self.end == "thread.run.requires_action":
            # A replayed stream continues where the caller submitted the outputs.
            self.end = None if name != "done" else self.end
        if self.done:
            self._broken(f"{name} after done")
        elif (self.end or self.failed) and name != "done":
            self._broken(f"{name} after {self.end or 'error'}")
        elif name == "done" and not (self.end or self.failed):
            self._broken("done without an event that ends or suspends the run")

    # steps

    def _step(self, name, step):
        if name == "thread.run.step.created":
            if self.step or self.message:
                self._broken("a step begins while another step or a message is open")
            self._new_id(step["id"])
            self.step = OpenStep(step, resumed=False)
        elif name == "thread.run.step.in_progress":
            if not self.step or step != self.step.created:
                self._broken("step in_progress differs from step created")
        elif name in STEP_ENDS:
            self._step_end(step)

    def _step_end(self, step):
        if self.step is None and self.operation_id == "submitToolOutputs" and len(self.names) == 1:
            self.seen_ids.add(step["id"])
        elif self.step is None or self.step.created["id"] != step["id"]:
            self._broken(f"step {step['id']} ends without having begun in this response")
        else:
            if self.message:
                self._broken("a step ends before its message")
            self._compare_calls(step)
        self.usage.append(step["usage"])
        self.step = None

    def _compare_calls(self, step):
        final = step["step_details"].get("tool_calls", [])
        streamed = self.step.calls
        if len(final) != len(streamed):
            self._broken(f"{len(streamed)} tool calls were streamed, the step ends with {len(final)}")
            return
        for call, pieces in zip(final, streamed):
            if call["id"] != pieces["id"]:
                self._broken("a tool call's final id is not the streamed one")
            if call["type"] == "function":
                self._same("arguments", call["function"]["arguments"], pieces["arguments"])
            if call["type"] == "code_interpreter":
                self._same("code", call["code_interpreter"]["input"], pieces["input"])
                self._same("outputs", call["code_interpreter"]["outputs"], pieces["outputs"])

    def _step_delta(self, event):
        if not self.step or self.step.created["id"] != event["id"]:
            self._broken("a step delta without its step")
            return
        for delta in event["delta"]["step_details"]["tool_calls"]:
            self._tool_call_delta(delta)

    def _tool_call_delta(self, delta):
        calls = self.step.calls
        body = delta[delta["type"]]
        if "id" in delta:
            if delta["index"] != len(calls):
                self._broken(f"tool call index {delta['index']} begins, {len(calls)} was due")
            self._new_id(delta["id"])
            calls.append({"id": delta["id"], "name": body.get("name"), "arguments": "", "input": "", "outputs": []})
        elif delta["index"] >= len(calls):
            self._broken(f"a piece of tool call {delta['index']}, which has not begun")
            return
        elif delta["index"] != len(calls) - 1 and not body.get("outputs"):
            self._broken(f"a piece of tool call {delta['index']} while {len(calls) - 1} is open")
        call = calls[delta["index"]]
        call["arguments"] += body.get("arguments", "")
        if call["outputs"] and body.get("input"):
            self._broken("code goes on after its first output")
        call["input"] += body.get("input", "")
        for output in body.get("outputs", []):
            self._output_delta(call["outputs"], output)

    def _output_delta(self, outputs, delta):
        output = {key: value for key, value in delta.items() if key != "index"}
        if delta["index"] == len(outputs):
            outputs.append(output)
        elif delta["index"] != len(outputs) - 1 or outputs[-1]["type"] != "logs" or delta["type"] != "logs":
            self._broken(f"output index {delta['index']} ({delta['type']}), {len(outputs)} was due")
        else:
            outputs[-1]["logs"] += delta["logs"]

    # messages

    def _message(self, name, message):
        if name == "thread.message.created":
            if self.message:
                self._broken("a message begins while another is open")
            if not self.step or self._message_of_step() != message["id"]:
                self._broken("a message begins without its step")
            self._new_id(message["id"])
            self.message = OpenMessage(message)
        elif name == "thread.message.in_progress":
            if not self.message or message != self.message.created:
                self._broken("message in_progress differs from message created")
        elif name in MESSAGE_ENDS:
            self._message_end(name, message)

    def _message_of_step(self):
        return self.step.created["step_details"].get("message_creation", {}).get("message_id")

    def _message_end(self, name, message):
        if not self.message or self.message.created["id"] != message["id"]:
            self._broken(f"message {message['id']} ends without having begun in this response")
            return
        streamed = self.message.parts
        if name == "thread.message.completed" and not streamed:
            self._broken("a message is completed without a delta")
        if len(streamed) != len(message["content"]):
            self._broken(f"{len(streamed)} parts were streamed, the message ends with {len(message['content'])}")
        for part, final in zip(streamed, message["content"]):
            if part["type"] != final["type"]:
                self._broken("a part's final type is not the streamed one")
            elif part["type"] == "text":
                self._same("text", final["text"]["value"], part["text"])
                self._same("number of annotations", len(final["text"]["annotations"]), part["annotations"])
            elif part["type"] == "refusal":
                self._same("refusal", final["refusal"], part["text"])
        self.message = None

    def _message_delta(self, event):
        if not self.message or self.message.created["id"] != event["id"]:
            self._broken("a message delta without its message")
            return
        parts = self.message.parts
        for delta in event["delta"]["content"]:
            first = delta["index"] == len(parts)
            if first:
                parts.append({"type": delta["type"], "text": "", "annotations": 0})
            elif delta["index"] != len(parts) - 1:
                self._broken(f"a piece of part {delta['index']} while {len(parts) - 1} is open")
                continue
            self._part_delta(parts[-1], delta, first)

    def _part_delta(self, part, delta, first):
        if part["type"] != delta["type"]:
            self._broken("a part changes its type")
        elif delta["type"] == "text":
            text = delta["text"]
            if first and "annotations" not in text:
                self._broken("the first piece of a text has no annotations")
            part["text"] += text.get("value", "")
            for annotation in text.get("annotations", []):
                if annotation["index"] != part["annotations"]:
                    self._broken(f"annotation index {annotation['index']}, {part['annotations']} was due")
                part["annotations"] += 1
        elif delta["type"] == "refusal":
            part["text"] += delta["refusal"]

    # the run

    def _run_end(self, name, run):
        self.end = name
        if name == "thread.run.requires_action":
            self._compare_pending(run)
            return
        if self.step or self.message:
            self._broken(f"{name} while a step or message is open")
        # Earlier steps may be in other responses, and an interrupted step has no usage.
        whole = self.operation_id in ("createRun", "createThreadAndRun") and all(self.usage)
        if run["usage"] and whole:
            for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
                self._same(f"usage.{key}", run["usage"][key], sum(step[key] for step in self.usage))

    def _compare_pending(self, run):
        if not self.step:
            self._broken("requires_action without an open step")
            return
        pending = run["required_action"]["submit_tool_outputs"]["tool_calls"]
        streamed = [(c["id"], c["name"], c["arguments"]) for c in self.step.calls if c["name"]]
        wanted = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in pending]
        self._same("pending calls", wanted, streamed)

    def _new_id(self, identifier):
        if identifier in self.seen_ids:
            self._broken(f"{identifier} begins twice")
        self.seen_ids.add(identifier)

    def _same(self, what, final, streamed):
        if final != streamed:
            self._broken(f"{what}: the end says {final!r}, the pieces say {streamed!r}"[:400])


class EventParser:
    """Splits a byte stream into events and checks their framing."""

    def __init__(self, numbered):
        self._numbered = numbered
        self._rest = b""

    def feed(self, chunk):
        """Yields (name, data, problem) for every complete event; comments are skipped."""
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        for block in blocks:
            if not block.startswith(b":"):
                yield self._event(block)

    def leftover(self):
        return self._rest

    def _event(self, block):
        try:
            lines = block.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            return None, None, "not UTF-8"
        if self._numbered and lines[0].startswith("id: ") and lines[0][4:].isdigit():
            lines = lines[1:]
        if len(lines) != 2 or not lines[0].startswith("event: ") or not lines[1].startswith("data: "):
            return None, None, f"not `event: NAME`, `data: VALUE`: {block[:120]!r}"
        name, text = lines[0][7:], lines[1][6:]
        if name == "done":
            return name, text, None
        try:
            data = json.loads(text)
        except ValueError:
            return name, None, "data is not JSON"
        compact = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        return name, data, None if compact == text else "data is not compact JSON"
