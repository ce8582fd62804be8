import io

import pytest
from openai import NotFoundError

from dual import collect, got


async def test_a_file_from_bytes_keeps_name_size_and_content(client):
    content = bytes(range(256)) * 10
    file = await got(client.files.create(file=("data.bin", content), purpose="assistants"))
    assert file.id.startswith("file-")
    assert (file.object, file.filename, file.bytes, file.purpose) == ("file", "data.bin", 2560, "assistants")
    assert (file.status, file.expires_at, file.status_details) == ("processed", None, None)
    assert (await got(client.files.content(file.id))).content == content


async def test_a_file_may_come_from_a_path(client, tmp_path):
    path = tmp_path / "sales.csv"
    path.write_text("month,revenue\nMay,22000\n")
    file = await got(client.files.create(file=path, purpose="assistants"))
    assert (file.filename, file.bytes) == ("sales.csv", path.stat().st_size)


async def test_a_file_may_come_from_a_reader(client):
    file = await got(client.files.create(file=("notes.txt", io.BytesIO(b"note"), "text/plain"), purpose="user_data"))
    assert (file.filename, file.purpose) == ("notes.txt", "user_data")


async def test_a_name_outside_ascii_comes_back_unchanged(client):
    file = await got(client.files.create(file=("你好 wörld.txt", b"x"), purpose="assistants"))
    assert (await got(client.files.retrieve(file.id))).filename == "你好 wörld.txt"
    assert (await got(client.files.content(file.id))).content == b"x"


async def test_an_empty_file_can_be_stored_and_read(client):
    file = await got(client.files.create(file=("empty.txt", b""), purpose="assistants"))
    assert (file.bytes, (await got(client.files.content(file.id))).content) == (0, b"")


async def test_files_are_listed_by_purpose(client):
    batch = await got(client.files.create(file=("b.jsonl", b"{}"), purpose="batch"))
    listed = await collect(client.files.list(purpose="batch"))
    assert batch.id in [file.id for file in listed]
    assert {file.purpose for file in listed} == {"batch"}


async def test_iterating_files_walks_through_all_pages(client):
    made = [
        (await got(client.files.create(file=(f"{i}.txt", b"x"), purpose="evals"))).id
        for i in range(5)
    ]
    listed = [file.id for file in await collect(client.files.list(purpose="evals", limit=2, order="asc"))]
    assert listed[-5:] == made


async def test_a_deleted_file_is_gone(client):
    file = await got(client.files.create(file=("a.txt", b"x"), purpose="assistants"))
    deleted = await got(client.files.delete(file.id))
    assert (deleted.id, deleted.object, deleted.deleted) == (file.id, "file", True)
    with pytest.raises(NotFoundError):
        await got(client.files.retrieve(file.id))
    with pytest.raises(NotFoundError):
        await got(client.files.content(file.id))


async def test_waiting_for_processing_ends_at_once(client):
    file = await got(client.files.create(file=("a.txt", b"x"), purpose="assistants"))
    assert (await got(client.files.wait_for_processing(file.id, poll_interval=0.1))).status == "processed"


async def test_a_file_can_be_given_a_time_to_live(client):
    file = await got(
        client.files.create(
            file=("a.txt", b"x"),
            purpose="assistants",
            extra_body={"expires_after": {"anchor": "created_at", "seconds": 3600}},
        )
    )
    assert file.to_dict()["expires_at"] == file.created_at + 3600


async def test_a_large_file_survives_the_way_through_the_store(client):
    import hashlib

    content = b"0123456789abcdef" * (1 << 18)
    file = await got(client.files.create(file=("large.bin", content), purpose="assistants"))
    read = (await got(client.files.content(file.id))).content
    assert hashlib.sha256(read).digest() == hashlib.sha256(content).digest()
