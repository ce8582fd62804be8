"""Each test violates one of the rules, which must be detected."""

import pytest

from contract import Contract
from stream_rules import EventParser, StreamRules

CONTRACT = Contract()
RUN = {"id": "run_1", "usage": None}
STEP = {
    "id": "step_1",
    "step_details": {"type": "message_creation", "message_creation": {"message_id": "msg_1"}},
    "usage": None,
}
MESSAGE = {"id": "msg_1", "content": []}


def text(value, index=0, **more):
    return {"id": "msg_1", "delta": {"content": [{"index": index, "type": "text", "text": {"value": value} | more}]}}


def good_stream():
    final = {"type": "text", "text": {"value": "Hello", "annotations": []}}
    return [
        ("thread.run.created", RUN),
        ("thread.run.queued", RUN),
        ("thread.run.in_progress", RUN),
        ("thread.run.step.created", STEP),
        ("thread.run.step.in_progress", STEP),
        ("thread.message.created", MESSAGE),
        ("thread.message.in_progress", MESSAGE),
        ("thread.message.delta", text("Hel", annotations=[])),
        ("thread.message.delta", text("lo")),
        ("thread.message.completed", MESSAGE | {"content": [final]}),
        ("thread.run.step.completed", STEP),
        ("thread.run.completed", RUN),
        ("done", "[DONE]"),
    ]


def violations(events):
    rules = StreamRules("createRun")
    for name, data in events:
        rules.event(name, data)
    rules.finish(cut_off=False)
    return rules.violations


def position(name):
    return [event for event, _ in good_stream()].index(name)


def test_a_good_stream_has_no_violations():
    assert violations(good_stream()) == []


@pytest.mark.parametrize("missing", [name for name, _ in good_stream() if not name.endswith("in_progress")])
def test_a_missing_event_is_noticed(missing):
    events = good_stream()
    del events[position(missing)]
    assert violations(events)


def test_a_delta_before_its_message_is_noticed():
    events = good_stream()
    events.insert(position("thread.message.created"), events.pop(position("thread.message.delta")))
    assert "a message delta without its message" in violations(events)


def test_a_skipped_index_is_noticed():
    events = good_stream()
    events[position("thread.message.delta")] = ("thread.message.delta", text("Hel", index=1, annotations=[]))
    assert violations(events)


def test_a_text_that_is_not_the_sum_of_its_pieces_is_noticed():
    events = good_stream()
    events[position("thread.message.delta")] = ("thread.message.delta", text("Hal", annotations=[]))
    assert any(what.startswith("text:") for what in violations(events))


def test_an_event_after_the_end_is_noticed():
    assert "thread.run.queued after thread.run.completed" in violations(
        good_stream()[:-1] + [("thread.run.queued", RUN), ("done", "[DONE]")]
    )


def test_only_a_run_that_is_read_again_goes_on_after_requires_action():
    rules = {name: StreamRules(name) for name in ("createRun", "streamRun")}
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}", "output": None}}
    pending = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    step = STEP | {"step_details": {"type": "tool_calls", "tool_calls": []}}
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [pending]}}
    events = good_stream()[:3] + [
        ("thread.run.step.created", step),
        ("thread.run.step.in_progress", step),
        ("thread.run.step.delta", {"id": "step_1", "delta": {"step_details": {"type": "tool_calls", "tool_calls": [call]}}}),
        ("thread.run.requires_action", RUN | {"required_action": action}),
        ("thread.run.step.completed", STEP | {"step_details": {"type": "tool_calls", "tool_calls": [pending]}}),
        ("thread.run.queued", RUN),
        ("thread.run.in_progress", RUN),
        ("thread.run.completed", RUN),
        ("done", "[DONE]"),
    ]
    for rule in rules.values():
        for name, data in events:
            rule.event(name, data)
        rule.finish(cut_off=False)
    assert rules["streamRun"].violations == []
    assert rules["createRun"].violations


def code_stream(deltas, outputs):
    """A stream with one code_interpreter call, with these deltas and final outputs."""
    step = STEP | {"step_details": {"type": "tool_calls", "tool_calls": []}}
    final = {"id": "call_1", "type": "code_interpreter", "code_interpreter": {"input": "1+1", "outputs": outputs}}
    begin = {"index": 0, "id": "call_1", "type": "code_interpreter", "code_interpreter": {"input": "1", "outputs": []}}
    more = [{"index": 0, "type": "code_interpreter", "code_interpreter": delta} for delta in deltas]
    pieces = [{"id": "step_1", "delta": {"step_details": {"type": "tool_calls", "tool_calls": [call]}}} for call in [begin, *more]]
    return good_stream()[:3] + [
        ("thread.run.step.created", step),
        ("thread.run.step.in_progress", step),
        *[("thread.run.step.delta", piece) for piece in pieces],
        ("thread.run.step.completed", STEP | {"step_details": {"type": "tool_calls", "tool_calls": [final]}}),
        ("thread.run.completed", RUN),
        ("done", "[DONE]"),
    ]


def logs(index, text):
    return {"outputs": [{"index": index, "type": "logs", "logs": text}]}


PICTURE = {"type": "image", "image": {"file_id": "file-1"}}


@pytest.mark.parametrize(
    "deltas, good",
    [
        ([{"input": "+1"}, logs(0, "2"), logs(0, "\n"), {"outputs": [{"index": 1} | PICTURE]}], True),
        ([{"input": "+1"}, logs(0, "2"), {"outputs": [{"index": 1} | PICTURE]}], False),
        ([{"input": "+1"}, logs(0, "2\n"), {"outputs": [{"index": 0} | PICTURE]}], False),
        ([{"input": "+1"}, logs(1, "2\n"), {"outputs": [{"index": 2} | PICTURE]}], False),
        ([logs(0, "2\n"), {"input": "+1"}, {"outputs": [{"index": 1} | PICTURE]}], False),
        ([logs(0, "2\n"), {"outputs": [{"index": 1} | PICTURE]}], False),
    ],
)
def test_the_pieces_of_a_code_call_make_up_its_end(deltas, good):
    rules = StreamRules("createRun")
    for name, data in code_stream(deltas, [{"type": "logs", "logs": "2\n"}, PICTURE]):
        rules.event(name, data)
    assert (rules.violations == []) == good, rules.violations


def test_a_stream_that_was_cut_by_its_reader_is_no_violation():
    rules = StreamRules("createRun")
    for name, data in good_stream()[:8]:
        rules.event(name, data)
    rules.finish(cut_off=True)
    assert rules.violations == []


@pytest.mark.parametrize(
    "block",
    [
        b"data: {}\nevent: x",
        b"event: x\ndata:{}",
        b"event: x\nid: 1\ndata: {}",
        b"event: x\ndata: {\ndata: }",
        b"event: x\ndata: {\"a\": 1}",
        b"event: x\ndata: \xff",
    ],
)
def test_a_malformed_event_is_noticed(block):
    ((_, _, problem),) = EventParser(numbered=False).feed(block + b"\n\n")
    assert problem


def test_an_event_may_arrive_in_any_cut():
    parser, seen = EventParser(numbered=False), []
    for byte in b": ping\n\nevent: done\ndata: [DONE]\n\n":
        seen += parser.feed(bytes([byte]))
    assert seen == [("done", "[DONE]", None)]


def test_an_unknown_field_of_a_body_is_noticed():
    operation = CONTRACT.operation("GET", "/openai/threads/thread_a")
    body = {"id": "thread_a", "object": "thread", "created_at": 1, "metadata": {}, "tool_resources": {}}
    assert CONTRACT.body_violations(operation, 200, "application/json", body) == []
    assert CONTRACT.body_violations(operation, 200, "application/json", body | {"x": 1})
    assert CONTRACT.body_violations(operation, 404, "application/json", body)
