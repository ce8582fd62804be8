import os

import openai
import pytest
from openai import BadRequestError, NotFoundError

from dual import collect, got

STATIC = {"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 100}}


@pytest.fixture
def upload(client):
    async def make(name="foods.txt", text="Ana likes cake. Bo likes tacos."):
        return (await got(client.files.create(file=(name, text.encode()), purpose="assistants"))).id

    return make


@pytest.fixture
def filled(stores, upload):
    """Creates a store with this many indexed files."""

    async def make(count):
        store = await got(stores.create(name="filled"))
        files = [await upload(f"{n}.txt", f"This is text number {n}.") for n in range(count)]
        batch = await got(stores.file_batches.create_and_poll(store.id, file_ids=files))
        assert (batch.status, batch.file_counts.completed) == ("completed", count)
        return store.id, files

    return make


def counts(of):
    return of.file_counts.to_dict()


async def test_an_empty_store_is_completed_at_once(stores):
    store = await got(stores.create())
    assert store.id.startswith("vs_") and store.object == "vector_store"
    assert (store.status, store.usage_bytes, store.metadata) == ("completed", 0, {})
    assert store.to_dict()["name"] is None
    assert counts(store) == {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 0}
    assert store.last_active_at == store.created_at


async def test_a_store_is_read_changed_listed_and_deleted(stores):
    expiry = {"anchor": "last_active_at", "days": 3}
    made = await got(stores.create(name="Manuals", metadata={"a": "b"}, expires_after=expiry))
    assert (made.name, made.metadata, made.expires_after.days) == ("Manuals", {"a": "b"}, 3)
    assert made.expires_at == made.created_at + 3 * 86400
    assert await got(stores.retrieve(made.id)) == made
    changed = await got(stores.update(made.id, name="Books", metadata={"c": "d"}))
    assert (changed.name, changed.metadata, changed.expires_after.days) == ("Books", {"c": "d"}, 3)
    assert made.id in [store.id for store in await collect(stores.list(limit=2))]
    deleted = await got(stores.delete(made.id))
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "vector_store.deleted", True)
    with pytest.raises(NotFoundError, match=f"No vector store found with id '{made.id}'."):
        await got(stores.retrieve(made.id))


async def test_a_store_is_made_with_its_files(stores, upload):
    files = [await upload(), await upload()]
    store = await got(stores.create(file_ids=files, chunking_strategy=STATIC))
    assert (store.status, store.file_counts.total) == ("in_progress", 2)
    done = [await got(stores.files.poll(file, vector_store_id=store.id)) for file in files]
    assert [file.status for file in done] == ["completed", "completed"]
    assert {file.chunking_strategy.static.max_chunk_size_tokens for file in done} == {200}
    read = await got(stores.retrieve(store.id))
    assert (read.status, read.file_counts.completed, read.usage_bytes > 0) == ("completed", 2, True)


async def test_a_file_is_added_and_waited_for(stores, upload):
    store = await got(stores.create())
    file_id = await upload()
    file = await got(stores.files.create_and_poll(file_id, vector_store_id=store.id))
    assert (file.id, file.vector_store_id, file.status, file.last_error) == (file_id, store.id, "completed", None)
    assert (file.attributes, file.object) == ({}, "vector_store.file")
    assert file.usage_bytes > 0
    sizes = file.chunking_strategy.static
    assert (sizes.max_chunk_size_tokens, sizes.chunk_overlap_tokens) == (800, 400)
    assert await got(stores.files.retrieve(file_id, vector_store_id=store.id)) == file


async def test_a_file_is_uploaded_and_waited_for(stores):
    store = await got(stores.create())
    file = await got(stores.files.upload_and_poll(vector_store_id=store.id, file=("notes.md", b"# Notes\n\nBuy milk.")))
    assert file.status == "completed"
    assert (await got(stores.retrieve(store.id))).file_counts.completed == 1


async def test_the_text_of_a_file_can_be_read(client, stores, upload):
    store = await got(stores.create())
    file = await got(stores.files.create_and_poll(await upload(), vector_store_id=store.id))
    if hasattr(stores.files, "content"):
        pieces = [piece.to_dict() for piece in await collect(stores.files.content(file.id, vector_store_id=store.id))]
    else:
        path = f"/vector_stores/{store.id}/files/{file.id}/content"
        pieces = (await got(client.get(path, cast_to=object)))["data"]
    assert [piece["type"] for piece in pieces] == ["text"]
    assert pieces[0]["text"].strip() == "Ana likes cake. Bo likes tacos."


async def test_attributes_are_replaced_as_a_whole(client, stores, upload):
    store = await got(stores.create())
    file_id = await upload()
    first = {"a": 1, "b": "x"}
    made = await got(stores.files.create(store.id, file_id=file_id, extra_body={"attributes": first}))
    assert made.attributes == first
    for attributes in ({"c": True, "d": 1.5}, None):
        if hasattr(stores.files, "update"):
            await got(stores.files.update(file_id, vector_store_id=store.id, attributes=attributes))
        else:
            path, body = f"/vector_stores/{store.id}/files/{file_id}", {"attributes": attributes}
            await got(client.post(path, body=body, cast_to=object))
        read = await got(stores.files.retrieve(file_id, vector_store_id=store.id))
        assert read.attributes == (attributes or {})


async def test_a_file_may_be_added_again(stores, upload):
    store = await got(stores.create())
    file_id = await upload()
    await got(stores.files.create_and_poll(file_id, vector_store_id=store.id))
    again = await got(stores.files.create(vector_store_id=store.id, file_id=file_id))
    assert again.status == "completed"
    other = await got(stores.files.create_and_poll(file_id, vector_store_id=store.id, chunking_strategy=STATIC))
    assert (other.status, other.chunking_strategy.static.chunk_overlap_tokens) == ("completed", 100)
    assert (await got(stores.retrieve(store.id))).file_counts.total == 1


async def test_files_are_listed_page_by_page_and_by_status(stores, filled):
    store, files = await filled(5)
    listed = await collect(stores.files.list(store, limit=2, order="asc"))
    assert [file.id for file in listed] == files
    listed = await collect(stores.files.list(store, limit=2, filter="completed"))
    assert [file.id for file in listed] == files[::-1]
    assert await collect(stores.files.list(store, filter="failed")) == []
    page = await got(stores.files.list(store, order="asc", before=files[2]))
    assert [file.id for file in page.data] == files[:2]


async def test_a_file_leaves_its_store_and_stays_a_file(client, stores, filled):
    store, files = await filled(2)
    gone = await got(stores.files.delete(files[0], vector_store_id=store))
    assert (gone.id, gone.object, gone.deleted) == (files[0], "vector_store.file.deleted", True)
    with pytest.raises(NotFoundError, match=f"No file found with id '{files[0]}' in vector store '{store}'."):
        await got(stores.files.retrieve(files[0], vector_store_id=store))
    assert (await got(client.files.retrieve(files[0]))).id == files[0]
    await got(client.files.delete(files[1]))
    assert await collect(stores.files.list(store)) == []
    read = await got(stores.retrieve(store))
    assert (read.status, read.file_counts.total, read.usage_bytes) == ("completed", 0, 0)


async def test_a_batch_of_uploads_is_waited_for(stores, upload):
    store = await got(stores.create())
    files = [(f"{n}.txt", f"Text {n}.".encode()) for n in range(3)]
    more = await upload()
    batch = await got(stores.file_batches.upload_and_poll(store.id, files=files, file_ids=[more]))
    assert (batch.status, batch.vector_store_id) == ("completed", store.id)
    assert counts(batch) == {"in_progress": 0, "completed": 4, "failed": 0, "cancelled": 0, "total": 4}
    assert (await got(stores.retrieve(store.id))).file_counts.completed == 4


async def test_a_batch_is_listed_page_by_page(stores, upload):
    store = await got(stores.create())
    await got(stores.files.create(vector_store_id=store.id, file_id=await upload("alone.txt")))
    files = [await upload(f"{n}.txt") for n in range(3)]
    batch = await got(stores.file_batches.create(store.id, file_ids=files, extra_body={"attributes": {"lot": 7}}))
    assert batch.to_dict()["object"] == "vector_store.file_batch"
    assert batch.id.startswith("vsfb_")
    listed = await collect(
        stores.file_batches.list_files(batch.id, vector_store_id=store.id, limit=2, order="asc")
    )
    assert [file.id for file in listed] == files
    assert [file.attributes for file in listed] == [{"lot": 7}] * 3
    done = await got(stores.file_batches.poll(batch.id, vector_store_id=store.id))
    assert done.file_counts.completed == 3
    read = await got(stores.file_batches.retrieve(batch.id, vector_store_id=store.id))
    assert (read.id, read.status) == (batch.id, "completed")


async def test_a_batch_may_have_settings_for_each_file(stores, upload):
    store = await got(stores.create())
    files = [
        {"file_id": await upload("a.txt"), "attributes": {"n": 1}},
        {"file_id": await upload("b.txt"), "chunking_strategy": STATIC},
    ]
    # Only later versions have this parameter.
    batch = await got(stores.file_batches.create(store.id, file_ids=openai.NOT_GIVEN, extra_body={"files": files}))
    listed = await collect(stores.file_batches.list_files(batch.id, vector_store_id=store.id, order="asc"))
    assert [file.attributes for file in listed] == [{"n": 1}, {}]
    assert [file.chunking_strategy.static.max_chunk_size_tokens for file in listed] == [800, 200]


async def test_a_batch_can_be_cancelled(stores, upload):
    store = await got(stores.create())
    files = [await upload(f"{n}.txt") for n in range(20)]
    batch = await got(stores.file_batches.create(store.id, file_ids=files))
    cancelled = await got(stores.file_batches.cancel(batch.id, vector_store_id=store.id))
    number = cancelled.file_counts
    assert (number.in_progress, number.completed + number.cancelled) == (0, 20)
    assert cancelled.status == ("cancelled" if number.cancelled else "completed")
    again = await got(stores.file_batches.cancel(batch.id, vector_store_id=store.id))
    assert again == cancelled


async def test_an_unknown_file_is_an_error(stores):
    store = await got(stores.create())
    missing = "file-" + "0" * 22
    for call in (
        lambda: stores.files.create(vector_store_id=store.id, file_id=missing),
        lambda: stores.file_batches.create(store.id, file_ids=[missing]),
        lambda: stores.create(file_ids=[missing]),
    ):
        with pytest.raises(NotFoundError, match="No such File object"):
            await got(call())


async def test_an_overlap_of_more_than_half_is_refused(stores, upload):
    sizes = {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 101}
    with pytest.raises(BadRequestError) as refused:
        await got(stores.create(file_ids=[await upload()], chunking_strategy={"type": "static", "static": sizes}))
    assert refused.value.param == "chunking_strategy.static.chunk_overlap_tokens"


async def test_an_assistant_may_bring_a_store(client, stores, upload):
    helper = {"file_ids": [await upload()], "metadata": {"a": "b"}}
    assistant = await got(
        client.beta.assistants.create(
            model="scripted/echo",
            tools=[{"type": "file_search"}],
            tool_resources={"file_search": {"vector_stores": [helper]}},
        )
    )
    (store_id,) = assistant.tool_resources.file_search.vector_store_ids
    store = await got(stores.retrieve(store_id))
    assert (store.file_counts.total, store.metadata, store.expires_after) == (1, {"a": "b"}, None)
    kept = {"file_search": {"vector_store_ids": [store_id]}}
    assert (await got(client.beta.assistants.update(assistant.id, tool_resources=kept))).tool_resources == assistant.tool_resources


async def test_a_thread_may_bring_a_store_that_expires(client, stores, upload):
    resources = {"file_search": {"vector_stores": [{"file_ids": [await upload()]}]}}
    thread = await got(client.beta.threads.create(tool_resources=resources))
    (store_id,) = thread.tool_resources.file_search.vector_store_ids
    store = await got(stores.retrieve(store_id))
    assert (store.expires_after.anchor, store.expires_after.days) == ("last_active_at", 7)


async def test_attachments_go_into_the_threads_store(client, stores, upload):
    thread = await got(client.beta.threads.create())
    files = [await upload("a.txt"), await upload("b.txt")]
    for file in files:
        attachment = {"file_id": file, "tools": [{"type": "file_search"}]}
        message = await got(
            client.beta.threads.messages.create(thread.id, role="user", content="Look", attachments=[attachment])
        )
        assert message.attachments[0].file_id == file
    thread = await got(client.beta.threads.retrieve(thread.id))
    (store_id,) = thread.tool_resources.file_search.vector_store_ids
    done = [await got(stores.files.poll(file, vector_store_id=store_id)) for file in files]
    assert [file.status for file in done] == ["completed", "completed"]


async def test_a_store_of_another_project_is_not_there(stores, connect):
    store = await got(stores.create())
    stranger = connect(api_key=os.environ["SDK_OTHER_API_KEY"])
    theirs = stranger.vector_stores if hasattr(stranger, "vector_stores") else stranger.beta.vector_stores
    with pytest.raises(NotFoundError):
        await got(theirs.retrieve(store.id))
