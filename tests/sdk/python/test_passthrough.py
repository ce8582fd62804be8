"""Models, chat completions and embeddings."""

import pytest
from openai import NotFoundError, PermissionDeniedError

from dual import collect, got


async def test_the_scripted_models_are_listed(client):
    assert "scripted/echo" in [model.id for model in await collect(client.models.list())]


async def test_a_model_is_read_by_its_name(client):
    model = await got(client.models.retrieve("scripted/echo"))
    assert (model.id, model.object) == ("scripted/echo", "model")


async def test_an_unknown_model_has_the_documented_error(client):
    with pytest.raises(NotFoundError) as missing:
        await got(client.models.retrieve("scripted/nobody"))
    assert missing.value.body["message"] == "The model 'scripted/nobody' does not exist"
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")


async def test_no_model_can_be_deleted(client):
    with pytest.raises(NotFoundError) as missing:
        await got(client.models.delete("scripted/nobody"))
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    with pytest.raises(PermissionDeniedError) as refused:
        await got(client.models.delete("scripted/echo"))
    assert "set by its operator" in refused.value.body["message"]


async def test_a_chat_completion_is_answered(client):
    completion = await got(
        client.chat.completions.create(model="scripted/echo", messages=[{"role": "user", "content": "Hi"}])
    )
    assert completion.choices[0].message.content == "You said: Hi"
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


async def test_a_chat_completion_is_streamed(client):
    chunks = await collect(
        client.chat.completions.create(
            model="scripted/echo",
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == "You said: Hi"
    assert chunks[-1].usage.total_tokens > 0


@pytest.mark.parametrize("encoding", ["float", None])
async def test_embeddings_come_one_for_each_input(client, encoding):
    options = {"encoding_format": encoding} if encoding else {}
    response = await got(
        client.embeddings.create(model="text-embedding-3-small", input=["one", "two"], dimensions=64, **options)
    )
    assert [item.index for item in response.data] == [0, 1]
    assert [len(item.embedding) for item in response.data] == [64, 64]
    assert response.data[0].embedding != response.data[1].embedding
    assert response.usage.prompt_tokens > 0
