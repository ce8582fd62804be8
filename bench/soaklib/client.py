"""HTTP/1.1 over raw streams, so that a connection can be reset at any time."""

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
import time

# Seconds. No request of this load takes longer unless the server has lost it.
REQUEST_LIMIT = 120
# Seconds after sending within which a request is abandoned.
ABANDON_WITHIN = 0.030
# Bytes. Several times the size of a page of a hundred messages.
READ_BUFFER = 1 << 22


class Unacknowledged(Exception):
    """The request may have been executed or not."""


class Abandoned(Unacknowledged):
    """The caller has hung up deliberately."""


class Refused(Exception):
    """A 4xx response, which no request of the load should get."""

    def __init__(self, label, status, body):
        super().__init__(f"{label}: {status} {body[:300].decode(errors='replace')}")
        self.status = status


def label_of(method, path):
    """Names a request without its ids, for counting."""
    path = path.partition("?")[0]
    return f"{method} " + re.sub(r"\b(thread_|msg_|run_|file-|vs_)\w+", r"\1…", path)


class Client:
    """One connection to the server, reopened when it is lost."""

    def __init__(self, port, journal, chance=random.Random(0), abandon=0.0):
        self.port, self.journal, self.chance, self.abandon = port, journal, chance, abandon
        self.reader = self.writer = None

    def close(self, reset=False):
        if self.writer is None:
            return
        if reset:
            # With a linger time of zero, closing sends RST instead of FIN.
            linger = struct.pack("ii", 1, 0)
            connection = self.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.writer.transport.abort()
        else:
            self.writer.close()
        self.reader = self.writer = None

    async def request(self, method, path, body=b"", content_type="application/json"):
        """Sends a request once and returns the body of its 2xx answer."""
        label = label_of(method, path)
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self._exchange(label):
            await self._send(method, path, body, content_type)
            if self.chance.random() < self.abandon:
                await self._hang_up_soon()
            status, fields = await self._read_head()
            answer = await self._read_body(fields)
        self._check_status(label, status, answer)
        return answer

    async def post(self, path, body):
        return json.loads(await self.request("POST", path, body))

    async def fetch(self, path):
        """Returns the body at `path`, or None after a 404. A read changes nothing, so it is
        repeated until it succeeds."""
        deadline = time.monotonic() + REQUEST_LIMIT
        while True:
            try:
                return await self.request("GET", path)
            except Refused as error:
                if error.status == 404:
                    return None
                raise
            except Abandoned:
                pass
            except Unacknowledged:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(self.chance.uniform(0.05, 0.2))

    async def get(self, path):
        body = await self.fetch(path)
        return None if body is None else json.loads(body)

    async def pages(self, path):
        """Returns a whole list, oldest object first, or None after a 404."""
        objects, after = [], ""
        while page := await self.get(f"{path}?limit=100&order=asc{after}"):
            objects += page["data"]
            if not page["has_more"]:
                return objects
            after = f"&after={page['last_id']}"
        return None

    async def events(self, path, body):
        """Sends a request and yields the server-sent events of its answer. Half of the abandoned
        streams end before the answer, the others after some of its events."""
        label = f"{label_of('POST', path)} (stream)"
        last = None
        if self.chance.random() < self.abandon:
            last = self.chance.choice([0, self.chance.randint(1, 15)])
        async with self._exchange(label):
            await self._send("POST", path, json.dumps(body).encode(), "application/json")
            if last == 0:
                await self._hang_up_soon()
            status, fields = await self._read_head()
            if status != 200:
                self._check_status(label, status, await self._read_body(fields))
            received, count = b"", 0
            async for chunk in self._chunks():
                received += chunk
                *frames, received = received.split(b"\n\n")
                for frame in frames:
                    lines = dict(line.split(b": ", 1) for line in frame.split(b"\n"))
                    if b"event" in lines and lines[b"data"] != b"[DONE]":
                        yield lines[b"event"].decode(), json.loads(lines[b"data"])
                    count += 1
                    if count == last:
                        self._hang_up("streams")

    @contextlib.asynccontextmanager
    async def _exchange(self, label):
        """Turns every way to lose a connection into one exception, and counts it. A connection
        whose answer was not read to its end cannot be used again."""
        try:
            async with asyncio.timeout(REQUEST_LIMIT):
                yield
        except (OSError, EOFError) as error:
            self.close()
            self.journal.add_error(f"{label}: {type(error).__name__}")
            raise Unacknowledged(label) from error
        except BaseException:
            self.close()
            raise

    async def _hang_up_soon(self):
        await asyncio.sleep(self.chance.uniform(0, ABANDON_WITHIN))
        self._hang_up("requests")

    def _hang_up(self, kind):
        """Half of the abandoned connections are reset, the others closed."""
        reset = self.chance.random() < 0.5
        self.journal.counts[f"{kind} abandoned by a {'reset' if reset else 'close'}"] += 1
        self.close(reset)
        raise Abandoned

    async def _send(self, method, path, body, content_type):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(
                "127.0.0.1", self.port, limit=READ_BUFFER)
        head = (f"{method} /v1{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer soak\r\n"
                f"openai-beta: assistants=v2\r\ncontent-type: {content_type}\r\n"
                f"content-length: {len(body)}\r\n\r\n")
        self.writer.write(head.encode() + body)
        self.journal.counts["requests"] += 1

    async def _read_head(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status, fields = head.split("\r\n", 1)
        fields = dict(line.split(": ", 1) for line in fields.split("\r\n") if line)
        return int(status.split()[1]), fields

    async def _chunks(self):
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)

    async def _read_body(self, fields):
        if fields.get("transfer-encoding") == "chunked":
            body = b"".join([chunk async for chunk in self._chunks()])
        else:
            body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection") == "close":
            self.close()
        return body

    def _check_status(self, label, status, body):
        if status == 429:
            self.journal.counts["429 answers"] += 1
        elif status >= 500:
            text = body[:150].decode(errors="replace")
            self.journal.add_error(f"{label}: {status} {text}")
        elif status >= 400:
            raise Refused(label, status, body)
        if status >= 400:
            raise Unacknowledged(label)
