"""Behaviour that no SDK shows: the server's extensions, and malformed requests."""

import base64
import re

import pytest

from raw_http import BASE_URL, KEY, SHORT_LIVED_URL, begin, events_of, send

ROOT = BASE_URL.removesuffix("/v1")


@pytest.fixture
def http(request):
    def send_here(method, path, body=None, **options):
        return send(method, path, body, test=request.node.name, **options)

    return send_here


@pytest.fixture
def run(http):
    """A completed run and the bytes of its stream."""
    assistant_id = http("POST", "/assistants", {"model": "scripted/greeter"}).json["id"]
    thread_id = http("POST", "/threads", {"messages": [{"role": "user", "content": "Hi"}]}).json["id"]
    stream = http("POST", f"/threads/{thread_id}/runs", {"assistant_id": assistant_id, "stream": True}).body
    run_id = events_of(stream)[0][0][1]["id"]
    return f"/threads/{thread_id}/runs/{run_id}/stream", stream


def test_a_finished_run_can_be_read_again_as_a_stream(http, run):
    path, original = run
    again = http("GET", path)
    events, numbers = events_of(again.body)
    assert _without_joins(events) == _without_joins(events_of(original)[0])
    assert all(earlier < later for earlier, later in zip(numbers[:-1], numbers[1:-1]))


def test_a_stream_goes_on_after_the_last_event_seen(http, run):
    path, _ = run
    events, numbers = events_of(http("GET", path).body)
    rest, rest_numbers = events_of(http("GET", path, headers={"Last-Event-ID": str(numbers[4])}).body)
    assert (rest, rest_numbers) == (events[5:], numbers[5:])


def test_a_resumed_run_is_read_again_as_one_stream(http):
    tool = {"type": "function", "function": {"name": "get_weather"}}
    assistant_id = http("POST", "/assistants", {"model": "scripted/weather", "tools": [tool]}).json["id"]
    messages = [{"role": "user", "content": "weather in Oslo"}]
    thread_id = http("POST", "/threads", {"messages": messages}).json["id"]
    stream = http("POST", f"/threads/{thread_id}/runs", {"assistant_id": assistant_id, "stream": True})
    first, _ = events_of(stream.body)
    run = first[-2][1]
    call = run["required_action"]["submit_tool_outputs"]["tool_calls"][0]
    path = f"/threads/{thread_id}/runs/{run['id']}"
    outputs = {"tool_outputs": [{"tool_call_id": call["id"], "output": "cold"}], "stream": True}
    second, _ = events_of(http("POST", f"{path}/submit_tool_outputs", outputs).body)
    whole, _ = events_of(http("GET", f"{path}/stream").body)
    assert [name for name, _ in whole if "delta" not in name] == [
        name for name, _ in first[:-1] + second if "delta" not in name
    ]


def test_several_readers_follow_a_running_run(http, request):
    assistant_id = http("POST", "/assistants", {"model": "scripted/slow"}).json["id"]
    thread_id = http("POST", "/threads", {"messages": [{"role": "user", "content": "Hi"}]}).json["id"]
    run_id = http("POST", f"/threads/{thread_id}/runs", {"assistant_id": assistant_id}).json["id"]
    path = f"/threads/{thread_id}/runs/{run_id}"
    readers = [begin("GET", f"{path}/stream", test=request.node.name) for _ in range(3)]
    firsts = [response.read1() for response, _ in readers]
    http("POST", f"{path}/cancel")
    whole = [events_of(first + response.read())[0] for first, (response, _) in zip(firsts, readers)]
    assert whole[0][-2][0] == "thread.run.cancelled"
    assert [_without_joins(events) for events in whole[1:]] == [_without_joins(whole[0])] * 2


def _without_joins(events):
    """Events with the deltas of one text joined, as their boundaries are not specified."""
    kept, said = [], ""
    for name, data in events:
        if name == "thread.message.delta":
            said += data["delta"]["content"][0]["text"]["value"]
        else:
            kept.append((name, data))
    return kept, said


def test_threads_are_listed_and_found_by_metadata(http):
    made = [
        http("POST", "/threads", {"metadata": {"user": user, "suite": "listing"}}).json["id"]
        for user in ("ada", "grace", "ada")
    ]
    listed = http("GET", "/threads?limit=100").json
    assert [thread["id"] for thread in listed["data"]][:3] == made[::-1]
    adas = http("GET", "/threads?metadata[user]=ada&metadata[suite]=listing&limit=2&order=desc").json
    assert [thread["id"] for thread in adas["data"]] == [made[2], made[0]]
    after = http("GET", f"/threads?metadata%5Buser%5D=ada&limit=1&after={made[2]}").json
    assert [thread["id"] for thread in after["data"]] == [made[0]]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/metrics"])
def test_the_operators_paths_answer_without_a_key(http, path):
    assert http("GET", path, base=ROOT, headers={"Authorization": ""}).status == 200


def test_the_published_document_describes_this_server(http):
    document = http("GET", "/openapi.json", base=ROOT).json
    assert document["openapi"] == "3.1.0" and "/v1/threads/{thread_id}/runs" in document["paths"]


def test_a_request_without_a_key_is_refused(http):
    answer = http("GET", "/assistants", headers={"Authorization": ""})
    assert answer.status == 401
    assert answer.json["error"]["message"].startswith("You didn't provide an API key.")


def test_the_beta_header_is_asked_for_where_the_server_requires_it(http):
    refused = http("GET", "/assistants", base=SHORT_LIVED_URL)
    assert (refused.status, refused.json["error"]["code"]) == (400, "invalid_beta")
    assert refused.json["error"]["message"] == (
        "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please try again by setting the "
        "header 'OpenAI-Beta: assistants=v2'."
    )
    header = {"OpenAI-Beta": "assistants=v2"}
    assert http("GET", "/assistants", base=SHORT_LIVED_URL, headers=header).status == 200
    assert http("GET", "/files", base=SHORT_LIVED_URL).status == 200


def test_a_key_may_come_as_the_password_of_basic_auth(http):
    basic = base64.b64encode(f":{KEY}".encode()).decode()
    assert http("GET", "/assistants", headers={"Authorization": f"Basic {basic}"}).status == 200


def test_a_thread_may_be_created_without_a_body(http):
    assert http("POST", "/threads").json["object"] == "thread"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model": "a" "b"}', b""])
def test_a_body_that_is_no_json_object_is_refused(http, body):
    answer = http("POST", "/assistants", raw=body)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("query", ["after=%00", "order=up", "limit=0", "limit=x", "metadata[a]=%00", "after=thread_%ff"])
def test_a_query_that_makes_no_sense_is_refused(http, query):
    answer = http("GET", f"/threads?{query}")
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


def test_a_method_that_a_path_does_not_have_is_refused_in_the_envelope(http):
    answer = http("PUT", "/assistants", {})
    assert answer.status in (404, 405)
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}


def test_every_answer_has_its_own_request_id(http):
    ids = {http("GET", "/assistants").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3 and all(re.fullmatch("req_[0-9a-f]{32}", i) for i in ids)


def test_a_file_is_downloaded_with_its_name(http):
    boundary = "x" * 20
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n'
        f"--{boundary}--\r\n"
    ).encode()
    headers = {"Content-Type": f'multipart/form-data; boundary="{boundary}"'}
    file_id = http("POST", "/files", raw=body, headers=headers).json["id"]
    content = http("GET", f"/files/{file_id}/content", headers={"Accept": "application/binary"})
    assert (content.body, content.headers["Content-Type"]) == (b"hello", "application/octet-stream")
    assert 'filename="a.txt"' in content.headers["Content-Disposition"]


def test_lists_take_include_in_every_spelling(http, run):
    path = run[0].removesuffix("/stream") + "/steps"
    value = "step_details.tool_calls%5B%2A%5D.file_search.results%5B%2A%5D.content"
    for name in ("include[]", "include%5B%5D", "include", "include[0]"):
        assert http("GET", f"{path}?{name}={value}").status == 200
