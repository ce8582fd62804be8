"""The bytes of whole streams, against the transcripts in golden/."""

import pytest

from raw_http import BASE_URL, SHORT_LIVED_URL, begin, events_of, send
from transcript import differences, expected, normal

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def post(request):
    def send_here(path, body, base=BASE_URL):
        beta = {"OpenAI-Beta": "assistants=v2"}
        answer = send("POST", path, body, base=base, test=request.node.name, headers=beta)
        assert answer.status == 200, answer.body
        return answer

    return send_here


def scene(post, model, message="Hi", tools=(), base=BASE_URL):
    assistant = {"model": f"scripted/{model}", "instructions": "Be kind.", "tools": list(tools)}
    assistant_id = post("/assistants", assistant, base).json["id"]
    thread_id = post("/threads", {"messages": [{"role": "user", "content": message}]}, base).json["id"]
    return assistant_id, thread_id


def assert_transcript(raw, name):
    events, _ = events_of(raw)
    found = differences(normal(events), expected(name))
    assert not found, "\n".join(found)
    return events


def test_a_thread_is_created_and_run(post):
    assistant_id, _ = scene(post, "greeter")
    thread = {"messages": [{"role": "user", "content": "Hi"}]}
    answer = post("/threads/runs", {"assistant_id": assistant_id, "thread": thread, "stream": True})
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert_transcript(answer.body, "create_thread_and_run")


def test_function_calls_and_their_outputs(post):
    assistant_id, thread_id = scene(post, "weather", "weather in Oslo and Rome", [WEATHER])
    path = f"/threads/{thread_id}/runs"
    first = post(path, {"assistant_id": assistant_id, "stream": True})
    events = assert_transcript(first.body, "function_calls")
    run = events[-2][1]
    calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    outputs = [{"tool_call_id": call["id"], "output": text} for call, text in zip(calls, ("cold", "warm"))]
    second = post(f"{path}/{run['id']}/submit_tool_outputs", {"tool_outputs": outputs, "stream": True})
    assert_transcript(second.body, "submit_tool_outputs")


def test_code_and_all_that_can_come_of_it(post):
    assistant_id, thread_id = scene(post, "coder", tools=[{"type": "code_interpreter"}])
    answer = post(f"/threads/{thread_id}/runs", {"assistant_id": assistant_id, "stream": True})
    assert_transcript(answer.body, "code_interpreter")


@pytest.mark.parametrize("include", ["", "?include[]=step_details.tool_calls[*].file_search.results[*].content"])
def test_a_search_and_what_is_cited_of_it(post, include):
    boundary = "x" * 20
    form = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="foods.txt"\r\n\r\nAna likes cake.\r\n'
        f"--{boundary}--\r\n"
    ).encode()
    kind = {"Content-Type": f'multipart/form-data; boundary="{boundary}"'}
    file_id = send("POST", "/files", raw=form, headers=kind).json["id"]
    assistant_id, _ = scene(post, "librarian", tools=[{"type": "file_search"}])
    # A file in the thread's store makes the run wait until it is indexed.
    attachments = [{"file_id": file_id, "tools": [{"type": "file_search"}]}]
    message = {"role": "user", "content": "Who likes cake?", "attachments": attachments}
    thread_id = post("/threads", {"messages": [message]}).json["id"]
    answer = post(f"/threads/{thread_id}/runs{include}", {"assistant_id": assistant_id, "stream": True})
    assert_transcript(answer.body, "file_search_with_include" if include else "file_search")


def test_a_run_is_cancelled(post, request):
    assistant_id, thread_id = scene(post, "slow")
    path = f"/threads/{thread_id}/runs"
    response, connection = begin("POST", path, {"assistant_id": assistant_id, "stream": True}, test=request.node.name)
    raw = b""
    while b"event: thread.message.delta\n" not in raw or not raw.endswith(b"\n\n"):
        raw += response.read1()
    run_id = next(data["id"] for name, data in events_of(raw)[0] if name == "thread.run.created")
    assert post(f"{path}/{run_id}/cancel", {}).json["status"] in ("cancelling", "cancelled")
    raw += response.read()
    connection.close()
    assert_transcript(raw, "cancelled")


def test_a_run_fails(post):
    assistant_id, thread_id = scene(post, "quitter")
    answer = post(f"/threads/{thread_id}/runs", {"assistant_id": assistant_id, "stream": True})
    assert_transcript(answer.body, "failed")


def test_a_run_is_incomplete(post):
    assistant_id, thread_id = scene(post, "long")
    body = {"assistant_id": assistant_id, "stream": True, "max_completion_tokens": 256}
    answer = post(f"/threads/{thread_id}/runs", body)
    assert_transcript(answer.body, "incomplete_max_completion_tokens")


def test_a_run_expires(post):
    assistant_id, thread_id = scene(post, "slow", base=SHORT_LIVED_URL)
    answer = post(f"/threads/{thread_id}/runs", {"assistant_id": assistant_id, "stream": True}, SHORT_LIVED_URL)
    assert_transcript(answer.body, "expired")
