"""End-to-end checks of docker-compose.yml, through the published port with the official SDK.

    story.py ADDRESS KEY

Expects three assistd and two sandbox workers, started with override.yml.
"""

import os
import signal
import sys
import threading
import time
import warnings

import httpx
from openai import OpenAI

import attacks
from stack import compose, containers, inside, inspect, wait_until_healthy

EVERYTHING = {"gateway": 1, "assistd": 3, "sandbox": 2, "database": 1}
SALES = b"month,revenue\nJan,12000\nFeb,15500\nMar,11000\nApr,17500\nMay,22000\n"
RETURNS = b"# Returns\n\nGoods may be returned within 30 days of purchase. After that, store credit is given.\n"

warnings.simplefilter("ignore", DeprecationWarning)
address, key = sys.argv[1:]
client = OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=5)
beta = client.beta


def told(what):
    print(f"ok    {what}", flush=True)


def ask(assistant, question, **message):
    """Creates a thread with one question and a completed run."""
    thread = beta.threads.create(messages=[{"role": "user", "content": question, **message}])
    run = beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    assert run.status == "completed", run
    return thread


def answer(thread):
    return beta.threads.messages.list(thread.id, limit=1).data[0]


def text(message):
    return "".join(part.text.value for part in message.content if part.type == "text")


def who_may_use_it():
    assert httpx.get(f"{address}/v1/assistants").status_code == 401
    assert httpx.get(f"{address}/v1/assistants", headers={"authorization": "Bearer another-key"}).status_code == 401
    assert httpx.get(f"{address}/metrics").status_code == 404
    told("the published port wants a key of secrets/api_keys, and tells no metrics")


def chat():
    assistant = beta.assistants.create(model="gpt-4o", instructions="Be brief.")
    thread = ask(assistant, "Hello!")
    assert text(answer(thread))
    told("a run without tools is answered")
    return thread


def code():
    sales = client.files.create(file=("sales.csv", SALES), purpose="assistants")
    assistant = beta.assistants.create(model="gpt-4o", tools=[{"type": "code_interpreter"}])
    attached = [{"file_id": sales.id, "tools": [{"type": "code_interpreter"}]}]
    thread = ask(assistant, "Which month was the best?", attachments=attached)
    assert "May" in text(answer(thread)), answer(thread)
    beta.threads.messages.create(thread.id, role="user", content="Plot revenue over time.")
    run = beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    assert run.status == "completed", run
    (picture,) = [part.image_file.file_id for part in answer(thread).content if part.type == "image_file"]
    assert client.files.content(picture).read().startswith(b"\x89PNG")
    told("code_interpreter reads a file and draws a picture")
    return assistant, picture


def search():
    store = client.vector_stores.create(name="Handbook")
    batch = client.vector_stores.file_batches.upload_and_poll(store.id, files=[("returns.md", RETURNS)])
    assert batch.status == "completed", batch
    found = client.vector_stores.search(store.id, query="how long may I bring things back").data
    assert found and found[0].filename == "returns.md", found
    resources = {"file_search": {"vector_store_ids": [store.id]}}
    assistant = beta.assistants.create(model="gpt-4o", tools=[{"type": "file_search"}], tool_resources=resources)
    thread = ask(assistant, "What is the refund policy?")
    (cited,) = [note for part in answer(thread).content for note in part.text.annotations][:1]
    assert cited.type == "file_citation", cited
    told("file_search indexes a document, finds it by its meaning and cites it")
    return store


class Listener(threading.Thread):
    """Follows a run's stream to its end; after a broken connection, resumes it on another replica."""

    def __init__(self, assistant):
        super().__init__()
        self.thread_id = beta.threads.create(messages=[{"role": "user", "content": "Count!"}]).id
        self.assistant_id = assistant.id
        self.events, self.run_id, self.broke, self.ended = 0, None, False, None

    def run(self):
        path = f"/threads/{self.thread_id}/runs"
        body = {"assistant_id": self.assistant_id, "stream": True}
        self.follow("POST", path, json=body)
        until = time.monotonic() + 90
        while self.ended is None and time.monotonic() < until:
            self.broke = True
            time.sleep(0.5)
            self.follow("GET", f"{path}/{self.run_id}/stream")

    def follow(self, method, path, **options):
        headers = {"authorization": f"Bearer {key}", "openai-beta": "assistants=v2"}
        try:
            with httpx.stream(method, f"{address}/v1{path}", headers=headers, timeout=60, **options) as response:
                event = None
                for line in response.iter_lines():
                    if line.startswith("event: "):
                        event = line.removeprefix("event: ")
                        self.events += 1
                    elif line.startswith("data: ") and event == "thread.run.created" and not self.run_id:
                        self.run_id = line.split('"id":"')[1].split('"')[0]
                    elif event == "thread.run.completed" and line.startswith("data: "):
                        self.ended = event
        except httpx.HTTPError:
            pass


def a_replica_dies_in_the_middle_of_streams():
    assistant = beta.assistants.create(model="scripted/slow")
    listeners = [Listener(assistant) for _ in range(3)]
    for listener in listeners:
        listener.start()
    until = time.monotonic() + 30
    while not all(listener.events > 8 for listener in listeners) and time.monotonic() < until:
        time.sleep(0.1)
    victim = containers("assistd")[0]
    os.kill(inspect(victim)["State"]["Pid"], signal.SIGKILL)
    for listener in listeners:
        listener.join(120)
    assert [listener.ended for listener in listeners] == ["thread.run.completed"] * 3, [vars(it) for it in listeners]
    broken = sum(listener.broke for listener in listeners)
    assert 1 <= broken < 3, f"{broken} of 3 streams were on the replica that died"
    for listener in listeners:
        (message,) = [one for one in beta.threads.messages.list(listener.thread_id) if one.role == "assistant"]
        assert text(message).startswith("one two") and text(message).endswith("that is all"), message
    wait_until_healthy(EVERYTHING)
    told(f"a replica dies under {broken} of 3 streams: each run ends, each message is there once, the replica is back")


def status(container):
    lines = inside(container, "cat", "/proc/1/status").splitlines()
    return dict(line.split(":\t") for line in lines if ":\t" in line)


def nobody_is_privileged():
    for container in containers():
        about = inspect(container)
        host, service = about["HostConfig"], about["Config"]["Labels"]["com.docker.compose.service"]
        assert not host["Privileged"] and not host["CapAdd"], service
        assert "docker.sock" not in str(about["Mounts"]), service
        assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"]), service
        assert status(container)["NoNewPrivs"] == "1", service
        if service in ("gateway", "assistd", "sandbox"):
            assert host["CapDrop"] == ["ALL"] and host["ReadonlyRootfs"], service
            first = status(container)
            sets = {name: first[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
            assert set(sets.values()) == {"0" * 16}, (service, sets)
            assert first["Seccomp"] == "2" and first["Uid"].split()[0] != "0", service
    for worker in containers("sandbox"):
        host = inspect(worker)["HostConfig"]
        assert host["NetworkMode"] == "none" and host["Memory"] and host["PidsLimit"], host
        table = inside(worker, "cat", "/proc/net/dev").splitlines()[2:]
        assert [line.split(":")[0].strip() for line in table] == ["lo"], table
        assert inside(worker, "cat", "/proc/net/route").splitlines()[1:] == [], "a worker has a route"
    told("no privileges and no capabilities anywhere; the workers have no network but lo")


def attack(assistant):
    tier, tried = attacks.assault(client, assistant)
    told(f"{tried} attacks in the composed workers gain nothing (tier {tier})")
    return tier


def attack_without_namespaces(assistant):
    os.environ["SANDBOX_TIER"] = "container"
    compose("up", "--detach", "--no-build", "--scale", "assistd=3", "--scale", "sandbox=1")
    wait_until_healthy(EVERYTHING | {"sandbox": 1})
    assert attack(assistant) == "Container"


def all_is_there_after_a_restart(thread, picture, store):
    before = [message.to_dict() for message in beta.threads.messages.list(thread.id)]
    compose("down")
    assert containers() == []
    compose("up", "--detach", "--no-build", "--scale", "assistd=3", "--scale", "sandbox=2")
    wait_until_healthy(EVERYTHING)
    assert [message.to_dict() for message in beta.threads.messages.list(thread.id)] == before
    assert client.files.content(picture).read().startswith(b"\x89PNG")
    assert client.vector_stores.search(store.id, query="returns").data
    told("after down and up all is there: messages, file contents, the index")


wait_until_healthy(EVERYTHING)
told("three replicas, two workers, the database and the gateway are healthy")
who_may_use_it()
thread = chat()
assistant, picture = code()
store = search()
a_replica_dies_in_the_middle_of_streams()
nobody_is_privileged()
assert attack(assistant) == "Namespaces"
all_is_there_after_a_restart(thread, picture, store)
attack_without_namespaces(assistant)
