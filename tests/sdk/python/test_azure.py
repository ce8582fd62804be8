"""The Azure client classes: another header for the key, another path, a version in the query."""

import openai
import pytest

from conftest import BASE_URL, KEY
from dual import collect, each, got, opened

ROOT = BASE_URL.removesuffix("/v1")


@pytest.fixture
def azure(mode, labels):
    cls = openai.AzureOpenAI if mode == "sync" else openai.AsyncAzureOpenAI
    return cls(azure_endpoint=ROOT, api_key=KEY, api_version="2024-05-01-preview", default_headers=labels)


async def test_an_assistant_holds_a_conversation(azure):
    assistant = await got(azure.beta.assistants.create(model="scripted/echo"))
    thread = await got(azure.beta.threads.create(messages=[{"role": "user", "content": "Hi"}]))
    run = await got(azure.beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id))
    assert run.status == "completed"
    newest, _ = await collect(azure.beta.threads.messages.list(thread.id))
    assert newest.content[0].text.value == "You said: Hi"


async def test_a_run_is_streamed(azure):
    assistant = await got(azure.beta.assistants.create(model="scripted/greeter"))
    thread = await got(azure.beta.threads.create(messages=[{"role": "user", "content": "Hi"}]))
    manager = azure.beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id)
    async with opened(manager) as stream:
        assert "".join([piece async for piece in each(stream.text_deltas)]) == "Hello! How can I help?"


async def test_a_file_is_stored(azure):
    file = await got(azure.files.create(file=("a.txt", b"x"), purpose="assistants"))
    assert (await got(azure.files.content(file.id))).content == b"x"


async def test_a_deployment_in_the_path_names_the_model(azure):
    completion = await got(
        azure.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    )
    assert completion.choices[0].message.content.startswith("Hello! I am assistd's scripted model.")


async def test_the_newer_path_with_v1_is_served(mode, labels):
    cls = openai.OpenAI if mode == "sync" else openai.AsyncOpenAI
    client = cls(base_url=f"{ROOT}/openai/v1", api_key=KEY, default_headers=labels)
    thread = await got(client.beta.threads.create())
    assert (await got(client.beta.threads.retrieve(thread.id))).id == thread.id
