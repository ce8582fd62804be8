"""Clients and helpers. The environment names the server:

`SDK_BASE_URL` (with `/v1`), `SDK_API_KEY`, and `SDK_SHORT_LIVED_URL` for a server whose runs expire soon.
"""

import os
from types import SimpleNamespace

import openai
import pytest

from dual import got

KEY = os.environ["SDK_API_KEY"]
BASE_URL = os.environ["SDK_BASE_URL"]
SHORT_LIVED_URL = os.environ["SDK_SHORT_LIVED_URL"]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(params=["sync", "async"])
def mode(request):
    return request.param


@pytest.fixture
def labels(request):
    """Headers that name the test to the validating proxy."""
    return {"x-test": f"python {openai.__version__} {request.node.name}"}


@pytest.fixture
def connect(mode, labels):
    """Creates a client of the mode under test."""

    def make(**options):
        cls = openai.OpenAI if mode == "sync" else openai.AsyncOpenAI
        return cls(**{"base_url": BASE_URL, "api_key": KEY, "default_headers": labels} | options)

    return make


@pytest.fixture
def client(connect):
    return connect()


@pytest.fixture
def short_lived(connect):
    """A client of the server whose runs expire after seconds."""
    return connect(base_url=SHORT_LIVED_URL)


@pytest.fixture
def scene(client):
    """Creates an assistant with a scripted model, and a thread with one message."""

    async def make(model, message="Hi", client=client, **assistant):
        created = await got(client.beta.assistants.create(model=f"scripted/{model}", **assistant))
        thread = await got(client.beta.threads.create(messages=[{"role": "user", "content": message}]))
        return SimpleNamespace(assistant_id=created.id, thread_id=thread.id, both={"assistant_id": created.id, "thread_id": thread.id})

    return make


@pytest.fixture
def answer(client):
    """The text of a thread's newest message."""

    async def read(thread_id):
        page = await got(client.beta.threads.messages.list(thread_id, limit=1))
        return page.data[0].content[0].text.value

    return read


@pytest.fixture
def stores(client):
    """The vector store API, which the first versions have under `beta`."""
    return client.vector_stores if hasattr(client, "vector_stores") else client.beta.vector_stores
