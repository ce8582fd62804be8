"""Webhook deliveries about runs, verified with the SDK."""

import asyncio
import json
import os
import queue
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import openai
import pytest

from dual import got

pytestmark = pytest.mark.skipif(
    not hasattr(openai, "InvalidWebhookSignatureError"), reason="this SDK knows no webhooks"
)
SECONDS = 60


def webhooks(*arguments):
    """Runs `assistd webhooks …` beside the server; its standard output and standard error."""
    environment = os.environ | {"ASSISTD_DATA_DIR": os.environ["SDK_DATA_DIR"], "ASSISTD_WEBHOOK_ALLOW_PRIVATE": "true"}
    command = [os.environ["SDK_SERVER"], "webhooks", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.fixture
def endpoint():
    """A receiver subscribed to the project's runs: its secret and its deliveries."""
    posts = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            posts.put((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    events = ["--events", "thread.run.completed"]
    secret, said = webhooks("add", "--project", os.environ["SDK_PROJECT"], "--url", url, *events)
    yield SimpleNamespace(secret=secret, posts=posts)
    webhooks("remove", re.search(r"we_\w+", said)[0])
    server.shutdown()


async def told_of(run, posts):
    """The delivery about a run. Other tests create runs in this project, too."""
    while True:
        headers, body = await asyncio.to_thread(posts.get, timeout=SECONDS)
        if json.loads(body)["data"]["id"] == run.id:
            return headers, body


async def test_an_event_is_unwrapped_and_a_forged_one_is_not(client, scene, endpoint):
    set_up = await scene("echo")
    run = await got(client.beta.threads.runs.create_and_poll(**set_up.both))
    assert run.status == "completed"
    headers, body = await told_of(run, endpoint.posts)
    event = await got(client.webhooks.unwrap(body, headers, secret=endpoint.secret))
    assert (event.type, event.object) == ("thread.run.completed", "event")
    assert event.id.startswith("evt_")
    assert (event.data.id, event.data.thread_id) == (run.id, set_up.thread_id)
    for secret, forged in [("whsec_" + "A" * 43 + "=", body), (endpoint.secret, body + b" ")]:
        with pytest.raises(openai.InvalidWebhookSignatureError):
            await got(client.webhooks.unwrap(forged, headers, secret=secret))
