"""Error responses. Clients match on these texts, so they are compared exactly."""

import re

import openai
import pytest

from conftest import KEY, WEATHER
from dual import got

NO_THREAD = "thread_" + "0" * 24
NO_ASSISTANT = "asst_" + "0" * 24
NO_RUN = "run_" + "0" * 24
NO_MESSAGE = "msg_" + "0" * 24
NO_STEP = "step_" + "0" * 24
NO_FILE = "file-" + "0" * 22


async def refusal(call, expected):
    """The error body of a call that must fail with the given class."""
    with pytest.raises(expected) as raised:
        await got(call())
    assert type(raised.value) is expected
    assert re.fullmatch("req_[0-9a-f]{32}", raised.value.request_id)
    return raised.value.body


@pytest.fixture
async def thread(client):
    return await got(client.beta.threads.create(messages=[{"role": "user", "content": "Hi"}]))


@pytest.fixture
async def assistant(client):
    return await got(client.beta.assistants.create(model="scripted/echo"))


async def test_a_missing_thread(client):
    body = await refusal(lambda: client.beta.threads.retrieve(NO_THREAD), openai.NotFoundError)
    assert body == {
        "message": f"No thread found with id '{NO_THREAD}'.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


async def test_a_missing_assistant(client):
    body = await refusal(lambda: client.beta.assistants.retrieve(NO_ASSISTANT), openai.NotFoundError)
    assert body["message"] == f"No assistant found with id '{NO_ASSISTANT}'."


async def test_a_run_of_a_missing_assistant(client, thread):
    body = await refusal(
        lambda: client.beta.threads.runs.create(thread_id=thread.id, assistant_id=NO_ASSISTANT), openai.NotFoundError
    )
    assert body["message"] == f"No assistant found with id '{NO_ASSISTANT}'."


async def test_a_missing_run(client, thread):
    body = await refusal(
        lambda: client.beta.threads.runs.retrieve(NO_RUN, thread_id=thread.id), openai.NotFoundError
    )
    assert body["message"] == f"No run found with id '{NO_RUN}'."


async def test_a_missing_message(client, thread):
    body = await refusal(
        lambda: client.beta.threads.messages.retrieve(NO_MESSAGE, thread_id=thread.id), openai.NotFoundError
    )
    assert body["message"] == f"No message found with id '{NO_MESSAGE}'."


async def test_a_missing_step(client, thread, assistant):
    run = await got(client.beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id))
    body = await refusal(
        lambda: client.beta.threads.runs.steps.retrieve(NO_STEP, thread_id=thread.id, run_id=run.id),
        openai.NotFoundError,
    )
    assert body["message"] == f"No run step found with id '{NO_STEP}'."


async def test_a_missing_file(client):
    body = await refusal(lambda: client.files.retrieve(NO_FILE), openai.NotFoundError)
    assert (body["message"], body["param"]) == (f"No such File object: {NO_FILE}", "id")


async def test_an_id_of_the_wrong_kind(client):
    body = await refusal(lambda: client.beta.threads.retrieve("1234"), openai.BadRequestError)
    assert body["message"] == "Invalid 'thread_id': '1234'. Expected an ID that begins with 'thread'."


async def test_a_wrong_key_is_masked(connect):
    client = connect(api_key="sk-wrong-key-0123456789-abcdefgh")
    body = await refusal(lambda: client.beta.threads.create(), openai.AuthenticationError)
    assert body["code"] == "invalid_api_key"
    assert re.match(r"Incorrect API key provided: sk-wrong\*+efgh\. ", body["message"])


async def test_a_key_of_another_project_sees_nothing(client, connect, thread):
    import os

    stranger = connect(api_key=os.environ["SDK_OTHER_API_KEY"])
    body = await refusal(lambda: stranger.beta.threads.retrieve(thread.id), openai.NotFoundError)
    assert body["message"] == f"No thread found with id '{thread.id}'."


async def test_a_thread_with_an_active_run_takes_no_message(client, scene):
    at = await scene("slow")
    run = await got(client.beta.threads.runs.create(**at.both))
    body = await refusal(
        lambda: client.beta.threads.messages.create(at.thread_id, role="user", content="more"), openai.BadRequestError
    )
    assert body["message"] == f"Can't add messages to {at.thread_id} while a run {run.id} is active."
    await got(client.beta.threads.runs.cancel(run.id, thread_id=at.thread_id))


async def test_a_thread_with_an_active_run_takes_no_second_run(client, scene):
    at = await scene("slow")
    run = await got(client.beta.threads.runs.create(**at.both))
    body = await refusal(lambda: client.beta.threads.runs.create(**at.both), openai.BadRequestError)
    assert body["message"] == f"Thread {at.thread_id} already has an active run {run.id}."
    await got(client.beta.threads.runs.cancel(run.id, thread_id=at.thread_id))


async def test_a_finished_run_cannot_be_cancelled(client, scene):
    at = await scene("echo")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    body = await refusal(
        lambda: client.beta.threads.runs.cancel(run.id, thread_id=at.thread_id), openai.BadRequestError
    )
    assert body["message"] == "Cannot cancel run with status 'completed'."


async def test_a_run_in_progress_cannot_be_modified(client, scene):
    import asyncio

    at = await scene("slow")
    run = await got(client.beta.threads.runs.create(**at.both))
    while (await got(client.beta.threads.runs.retrieve(run.id, thread_id=at.thread_id))).status == "queued":
        await asyncio.sleep(0.05)
    body = await refusal(
        lambda: client.beta.threads.runs.update(run.id, thread_id=at.thread_id, metadata={}), openai.BadRequestError
    )
    assert body["message"] == "Cannot update run with status 'in_progress'."
    await got(client.beta.threads.runs.cancel(run.id, thread_id=at.thread_id))


# Validation errors: the parameters of a new assistant or run, and the expected message, param and code.
INVALID_ASSISTANTS = [
    (
        {"model": "scripted/echo", "name": "x" * 257},
        "Invalid 'name': string too long. Expected a string with maximum length 256, but got a string with length 257 instead.",
        "name",
        "string_above_max_length",
    ),
    (
        {"model": "scripted/echo", "extra_body": {"colour": "blue"}},
        "Unknown parameter: 'colour'.",
        "colour",
        "unknown_parameter",
    ),
    (
        {"model": "scripted/echo", "metadata": {"modified": True}},
        "Invalid type for 'metadata.modified': expected a string, but got a boolean instead.",
        "metadata.modified",
        "invalid_type",
    ),
    (
        {"model": "scripted/echo", "metadata": {f"k{i}": "v" for i in range(17)}},
        "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object with 17 properties instead.",
        "metadata",
        "object_above_max_properties",
    ),
]


@pytest.mark.parametrize(("parameters", "message", "param", "code"), INVALID_ASSISTANTS, ids=lambda v: "")
async def test_invalid_parameters_of_an_assistant(client, parameters, message, param, code):
    body = await refusal(lambda: client.beta.assistants.create(**parameters), openai.BadRequestError)
    assert (body["message"], body["param"], body["code"]) == (message, param, code)
    assert body["type"] == "invalid_request_error"


async def test_long_metadata_is_refused(client):
    for metadata in ({"k" * 65: "v"}, {"k": "v" * 513}):
        body = await refusal(lambda: client.beta.threads.create(metadata=metadata), openai.BadRequestError)
        assert body["code"] in ("property_name_above_max_length", "string_above_max_length")


async def test_a_missing_parameter(client):
    body = await refusal(lambda: client.post("/assistants", cast_to=object, body={}), openai.BadRequestError)
    assert (body["message"], body["param"], body["code"]) == (
        "Missing required parameter: 'model'.",
        "model",
        "missing_required_parameter",
    )


async def test_a_limit_above_the_maximum(client):
    body = await refusal(lambda: client.beta.assistants.list(limit=101), openai.BadRequestError)
    assert (body["message"], body["code"]) == (
        "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead.",
        "integer_above_max_value",
    )


async def test_a_budget_below_the_minimum(client, thread, assistant):
    body = await refusal(
        lambda: client.beta.threads.runs.create(
            thread_id=thread.id, assistant_id=assistant.id, max_prompt_tokens=10
        ),
        openai.BadRequestError,
    )
    assert (body["param"], body["code"]) == ("max_prompt_tokens", "integer_below_min_value")
    assert body["message"].endswith("Expected a value >= 256, but got 10 instead.")


async def test_an_unknown_purpose_of_a_file(client):
    body = await refusal(
        lambda: client.files.create(file=("a.txt", b"x"), purpose="world_domination"), openai.BadRequestError
    )
    assert (body["message"], body["param"]) == (
        "'world_domination' is not one of ['fine-tune', 'assistants', 'batch', 'user_data', 'vision', 'evals'] - 'purpose'",
        "purpose",
    )


async def test_an_unknown_route(client):
    body = await refusal(lambda: client.post("/foo", cast_to=object, body={}), openai.NotFoundError)
    assert body["message"] == "Invalid URL (POST /v1/foo)"


async def test_headers_name_the_request_and_the_version(client):
    raw = await got(client.beta.threads.with_raw_response.create())
    assert re.fullmatch("req_[0-9a-f]{32}", raw.headers["x-request-id"])
    assert raw.headers["openai-version"] == "2020-10-01"
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert KEY not in str(raw.headers)


async def test_a_tool_of_an_unknown_type_is_refused(client):
    body = await refusal(
        lambda: client.beta.assistants.create(model="scripted/echo", tools=[WEATHER, {"type": "teleporter"}]),
        openai.BadRequestError,
    )
    assert body["param"].startswith("tools[1]")
