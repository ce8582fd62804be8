import hashlib

import pytest
from openai import BadRequestError

from dual import got

HALVES = (b"hello ", b"parts")
WHOLE = b"".join(HALVES)


@pytest.fixture
def begin(client):
    async def make(size=len(WHOLE), **more):
        return await got(
            client.uploads.create(filename="joined.txt", bytes=size, mime_type="text/plain", purpose="assistants", **more)
        )

    return make


async def parts(client, upload, contents=HALVES):
    return [(await got(client.uploads.parts.create(upload.id, data=data))).id for data in contents]


async def test_a_new_upload_waits_for_its_parts_for_an_hour(begin):
    upload = await begin()
    assert upload.id.startswith("upload_")
    assert (upload.object, upload.status, upload.bytes, upload.filename) == ("upload", "pending", 11, "joined.txt")
    assert upload.expires_at == upload.created_at + 3600


async def test_a_part_names_its_upload(client, begin):
    upload = await begin()
    part = await got(client.uploads.parts.create(upload.id, data=b"hello "))
    assert (part.object, part.upload_id) == ("upload.part", upload.id)
    assert part.id.startswith("part_")


async def test_parts_are_joined_in_the_order_of_completion(client, begin):
    upload = await begin()
    second, first = await parts(client, upload, HALVES[::-1])
    done = await got(client.uploads.complete(upload.id, part_ids=[first, second], md5=hashlib.md5(WHOLE).hexdigest()))
    assert (done.status, done.file.filename, done.file.bytes, done.file.purpose) == (
        "completed",
        "joined.txt",
        len(WHOLE),
        "assistants",
    )
    assert (await got(client.files.content(done.file.id))).content == WHOLE


async def test_a_wrong_checksum_is_refused(client, begin):
    upload = await begin()
    ids = await parts(client, upload)
    with pytest.raises(BadRequestError):
        await got(client.uploads.complete(upload.id, part_ids=ids, md5=hashlib.md5(b"other").hexdigest()))


async def test_a_size_other_than_declared_is_refused(client, begin):
    upload = await begin(size=len(WHOLE) + 1)
    ids = await parts(client, upload)
    with pytest.raises(BadRequestError):
        await got(client.uploads.complete(upload.id, part_ids=ids))


async def test_nothing_can_be_added_after_cancelling(client, begin):
    upload = await begin()
    cancelled = await got(client.uploads.cancel(upload.id))
    assert (cancelled.id, cancelled.status) == (upload.id, "cancelled")
    with pytest.raises(BadRequestError):
        await got(client.uploads.parts.create(upload.id, data=b"late"))


async def test_the_helper_uploads_a_path_in_chunks(client, tmp_path):
    path = tmp_path / "big.txt"
    path.write_bytes(b"0123456789" * 1000)
    done = await got(
        client.uploads.upload_file_chunked(file=path, mime_type="text/plain", purpose="assistants", part_size=4000)
    )
    assert (done.status, done.file.filename) == ("completed", "big.txt")
    assert (await got(client.files.content(done.file.id))).content == path.read_bytes()
