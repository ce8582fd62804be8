import pytest
from openai import NotFoundError

from dual import collect, got


async def test_a_thread_may_be_created_from_nothing(client):
    thread = await got(client.beta.threads.create())
    assert thread.object == "thread"
    assert thread.id.startswith("thread_") and len(thread.id) == len("thread_") + 24
    assert thread.metadata == {}
    assert await collect(client.beta.threads.messages.list(thread.id)) == []


async def test_initial_messages_keep_their_order_and_role(client):
    thread = await got(
        client.beta.threads.create(
            messages=[
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": [{"type": "text", "text": "three"}], "metadata": {"k": "v"}},
            ]
        )
    )
    messages = await collect(client.beta.threads.messages.list(thread.id, order="asc"))
    assert [(m.role, m.content[0].text.value) for m in messages] == [("user", "one"), ("assistant", "two"), ("user", "three")]
    assert messages[2].metadata == {"k": "v"}


async def test_a_thread_is_read_and_updated(client):
    thread = await got(client.beta.threads.create(metadata={"user": "ada", "keep": "no"}))
    updated = await got(client.beta.threads.update(thread.id, metadata={"user": "grace"}))
    assert updated.metadata == {"user": "grace"}
    assert (await got(client.beta.threads.retrieve(thread.id))).metadata == {"user": "grace"}


async def test_a_deleted_thread_is_gone_with_its_messages(client):
    thread = await got(client.beta.threads.create(messages=[{"role": "user", "content": "one"}]))
    deleted = await got(client.beta.threads.delete(thread.id))
    assert (deleted.id, deleted.object, deleted.deleted) == (thread.id, "thread.deleted", True)
    with pytest.raises(NotFoundError):
        await got(client.beta.threads.messages.list(thread.id))


async def test_code_interpreter_files_of_a_thread_come_back(client):
    file = await got(client.files.create(file=("a.csv", b"a,b\n1,2\n"), purpose="assistants"))
    resources = {"code_interpreter": {"file_ids": [file.id]}}
    thread = await got(client.beta.threads.create(tool_resources=resources))
    read = await got(client.beta.threads.retrieve(thread.id))
    assert read.tool_resources.code_interpreter.file_ids == [file.id]
