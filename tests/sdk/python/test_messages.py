import pytest
from openai import NotFoundError

from dual import collect, got

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc000000301"
    "0100c9fe92ef0000000049454e44ae426082"
)


@pytest.fixture
async def thread(client):
    return await got(client.beta.threads.create())


async def test_text_becomes_one_content_block(client, thread):
    message = await got(client.beta.threads.messages.create(thread.id, role="user", content="Hello, 世界 🌍"))
    assert message.object == "thread.message"
    assert message.id.startswith("msg_") and len(message.id) == len("msg_") + 24
    assert (message.assistant_id, message.run_id, message.thread_id) == (None, None, thread.id)
    assert (message.attachments, message.metadata, message.status) == ([], {}, "completed")
    (block,) = message.content
    assert (block.type, block.text.value, block.text.annotations) == ("text", "Hello, 世界 🌍", [])


async def test_several_parts_keep_their_order(client, thread):
    image = await got(client.files.create(file=("dot.png", PNG), purpose="vision"))
    message = await got(
        client.beta.threads.messages.create(
            thread.id,
            role="user",
            content=[
                {"type": "text", "text": "Compare"},
                {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}},
                {"type": "image_file", "image_file": {"file_id": image.id, "detail": "low"}},
            ],
        )
    )
    text, url, file = message.content
    assert text.text.value == "Compare"
    assert (url.image_url.url, url.image_url.detail) == ("https://images.example/a.png", "auto")
    assert (file.image_file.file_id, file.image_file.detail) == (image.id, "low")


async def test_an_image_file_reaches_the_model_without_an_error(client, thread, answer):
    image = await got(client.files.create(file=("dot.png", PNG), purpose="vision"))
    await got(
        client.beta.threads.messages.create(
            thread.id,
            role="user",
            content=[{"type": "text", "text": "Describe"}, {"type": "image_file", "image_file": {"file_id": image.id}}],
        )
    )
    assistant = await got(client.beta.assistants.create(model="scripted/echo"))
    run = await got(client.beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id))
    assert run.status == "completed"
    assert await answer(thread.id) == "You said: Describe"


async def test_attachments_come_back_as_sent(client, thread):
    file = await got(client.files.create(file=("a.csv", b"a\n1\n"), purpose="assistants"))
    attachment = {"file_id": file.id, "tools": [{"type": "code_interpreter"}]}
    message = await got(
        client.beta.threads.messages.create(thread.id, role="user", content="Look", attachments=[attachment])
    )
    assert [a.to_dict() for a in message.attachments] == [attachment]


async def test_a_message_is_read_and_its_metadata_changed(client, thread):
    message = await got(client.beta.threads.messages.create(thread.id, role="user", content="Hi", metadata={"a": "1"}))
    changed = await got(client.beta.threads.messages.update(message.id, thread_id=thread.id, metadata={"b": "2"}))
    assert changed.metadata == {"b": "2"}
    read = await got(client.beta.threads.messages.retrieve(message.id, thread_id=thread.id))
    assert (read.metadata, read.content) == ({"b": "2"}, message.content)


async def test_a_deleted_message_is_gone_from_the_thread(client, thread):
    kept = await got(client.beta.threads.messages.create(thread.id, role="user", content="stay"))
    message = await got(client.beta.threads.messages.create(thread.id, role="user", content="go"))
    deleted = await got(client.beta.threads.messages.delete(message.id, thread_id=thread.id))
    assert (deleted.id, deleted.object, deleted.deleted) == (message.id, "thread.message.deleted", True)
    assert [m.id for m in await collect(client.beta.threads.messages.list(thread.id))] == [kept.id]
    with pytest.raises(NotFoundError):
        await got(client.beta.threads.messages.retrieve(message.id, thread_id=thread.id))


async def test_iterating_messages_walks_through_all_pages(client):
    sent = [{"role": "user", "content": f"m{i}"} for i in range(7)]
    thread = await got(client.beta.threads.create(messages=sent))
    listed = await collect(client.beta.threads.messages.list(thread.id, order="asc", limit=3))
    assert [m.content[0].text.value for m in listed] == [f"m{i}" for i in range(7)]
    newest_first = await collect(client.beta.threads.messages.list(thread.id, limit=2))
    assert [m.id for m in newest_first] == [m.id for m in reversed(listed)]


async def test_messages_can_be_listed_by_run(client, scene):
    at = await scene("echo", "first")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    (message,) = await collect(client.beta.threads.messages.list(at.thread_id, run_id=run.id))
    assert (message.role, message.run_id, message.assistant_id) == ("assistant", run.id, at.assistant_id)
