"""Requests without an SDK, for tests of raw bytes."""

import http.client
import json
import os
import re
from urllib.parse import urlsplit

KEY = os.environ["SDK_API_KEY"]
BASE_URL = os.environ["SDK_BASE_URL"]
SHORT_LIVED_URL = os.environ["SDK_SHORT_LIVED_URL"]


class Answer:
    def __init__(self, response, body):
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)


def send(method, path, body=None, base=BASE_URL, test="wire", headers=None, raw=None):
    """Sends a request and reads the response; `body` is sent as JSON, `raw` unchanged."""
    response, connection = begin(method, path, body, base, test, headers, raw)
    answer = Answer(response, response.read())
    connection.close()
    return answer


def begin(method, path, body=None, base=BASE_URL, test="wire", headers=None, raw=None):
    """Sends a request; the response is not read yet."""
    url = urlsplit(base)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    sent = {"Authorization": f"Bearer {KEY}", "x-test": f"wire {test}"}
    if body is not None:
        raw = json.dumps(body).encode()
    if raw is not None:
        sent["Content-Type"] = "application/json"
    sent |= headers or {}
    connection.request(method, url.path + path, body=raw, headers=sent)
    return connection.getresponse(), connection


def events_of(raw):
    """(name, data) of every event, and the `id:` lines; the framing is checked exactly."""
    assert raw.endswith(b"\n\n")
    events, numbers = [], []
    for block in raw.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        match = re.fullmatch(r"(?:id: (\d+)\n)?event: ([a-z_.]+)\ndata: ([^\n]*)", block)
        assert match, block
        number, name, data = match.groups()
        numbers.append(number and int(number))
        events.append((name, data if name == "done" else json.loads(data)))
    return events, numbers
