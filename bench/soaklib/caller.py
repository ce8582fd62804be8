"""The load: callers that perform operations sequentially."""

import asyncio
import collections
import contextlib
import itertools
import json
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from .client import REQUEST_LIMIT, Abandoned, Client, Refused, Unacknowledged, label_of
from .compare import RANKING, TERMINAL, Comparison, text_of, tool_output_of
from .ledger import File, Journal, Ledger, Run, Thread

FUNCTION = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}
TOOLS = {
    "echo": [], "slow_echo": [], "function_caller": [FUNCTION],
    "coder": [{"type": "code_interpreter"}],
    "searcher": [{"type": "file_search", "file_search": {"ranking_options": RANKING}}],
}
WORDS = "amber boulder canal drift ember fjord größe harbour inlet 水 junction keel".split()
# A caller uses a few threads at a time, and leaves one that has enough messages.
MOST_THREADS = 4
MOST_MESSAGES = 12
# Seconds, chosen anew each time, that a caller waits after a request has failed.
RETRY_PAUSE = 0.1, 0.5


class World:
    """State shared by all callers."""

    def __init__(self, port, options):
        self.port, self.options = port, options
        self.ledger, self.journal = Ledger(), Journal()
        self.stopping = asyncio.Event()
        self.assistants, self.models, self.store = {}, {}, None

    async def prepare(self):
        """Creates the shared vector store, and an assistant for each model of the script."""
        client = Client(self.port, self.journal)
        self.store = (await client.post("/vector_stores", {"name": "shared"}))["id"]
        for model, tools in TOOLS.items():
            body = {"model": f"scripted/{model}", "tools": tools}
            if model == "searcher":
                body["tool_resources"] = {"file_search": {"vector_store_ids": [self.store]}}
            self.assistants[model] = (await client.post("/assistants", body))["id"]
        self.models = {id: model for model, id in self.assistants.items()}
        client.close()


class Operation(NamedTuple):
    """An operation. One without a thread changes none of the caller's threads."""

    name: str
    perform: Callable
    weight: int
    uses_thread: bool = True


class Caller:
    """An application with a few threads. It makes one request at a time, so it knows what each of
    its threads must look like."""

    def __init__(self, number, world):
        self.world, self.ledger, self.journal = world, world.ledger, world.journal
        self.chance = random.Random(f"{world.options.seed}/{number}")
        self.client = Client(world.port, world.journal, self.chance, world.options.abandon)
        self.comparison = Comparison(world, self.client, is_final=False)
        # Operations work on the last thread of the list.
        self.threads: list[Thread] = []
        self.left: list[Thread] = []
        self.keys = (f"{number:04x}{serial:08x}" for serial in itertools.count())
        self.operations = [
            Operation("create thread", self.create_thread, 10, uses_thread=False),
            Operation("add message", self.add_message, 16),
            Operation("list and compare", self.compare, 10, uses_thread=False),
            Operation("update metadata", self.update_metadata, 10),
            Operation("create and delete message", self.delete_message, 5),
            Operation("delete thread", self.delete_thread, 4),
            Operation("text run, polled", lambda: self.run_polled("echo"), 10),
            Operation("text run, streamed", lambda: self.run_streamed("echo", "slow_echo"), 10),
            Operation("function loop, polled", lambda: self.run_polled("function_caller"), 5),
            Operation("function loop, streamed", lambda: self.run_streamed("function_caller"), 5),
            Operation("code run", self.run_code, 2),
            Operation("file_search run", self.run_search, 4),
            Operation("upload and index file", self.upload, 4, uses_thread=False),
        ]

    async def work(self):
        weights = [operation.weight for operation in self.operations]
        while not self.world.stopping.is_set():
            if self.threads:
                last = self.threads.pop(self.chance.randrange(len(self.threads)))
                self.threads.append(last)
                await self.perform(self.chance.choices(self.operations, weights)[0])
            else:
                await self.perform(self.operations[0])
        self.client.close()

    async def perform(self, operation):
        """Performs one operation and times it. When its outcome is unknown the caller leaves the
        thread permanently, like an application whose user is gone."""
        begun, name = time.monotonic(), operation.name
        self.journal.operations.add(name)
        try:
            await operation.perform()
        except (Unacknowledged, Refused) as error:
            if operation.uses_thread:
                self.leave_thread(is_uncertain=True)
            if isinstance(error, Abandoned):
                self.journal.counts[f"abandoned {name}"] += 1
                return
            self.journal.counts[f"interrupted {name}"] += 1
            if isinstance(error, Refused):
                self.journal.add_error(str(error))
            await asyncio.sleep(self.chance.uniform(*RETRY_PAUSE))
        else:
            self.journal.counts[name] += 1
            if not self.journal.overlaps_recovery(begun):
                self.journal.latencies[name].append(time.monotonic() - begun)
            if self.threads and len(self.threads[-1].messages) >= MOST_MESSAGES:
                self.leave_thread()

    def leave_thread(self, is_uncertain=False):
        thread = self.threads.pop()
        thread.is_uncertain = is_uncertain
        self.left.append(thread)

    def prompt(self, key=None):
        filler = " ".join(self.chance.choices(WORDS, k=self.chance.randint(1, 40)))
        return f"Message with the key {key or next(self.keys)}: {filler}."

    async def create_thread(self):
        metadata = {"key": next(self.keys)}
        created = await self.client.post("/threads", {"metadata": metadata})
        thread = Thread(created["id"], [metadata])
        self.ledger.threads.append(thread)
        self.threads.append(thread)
        if len(self.threads) > MOST_THREADS:
            self.left.append(self.threads.pop(0))

    async def add_message(self, text=None):
        thread, text = self.threads[-1], text or self.prompt()
        thread.attempted_texts.add(text)
        message = {"role": "user", "content": text}
        created = await self.client.post(f"/threads/{thread.id}/messages", message)
        thread.attempted_texts.discard(text)
        thread.messages[created["id"]] = text
        return created["id"]

    async def compare(self):
        """Compares a thread in use, or one that was left, during the load."""
        await self.comparison.thread(self.chance.choice(self.threads + self.left[-20:]))

    async def update_metadata(self):
        thread = self.threads[-1]
        metadata = {"key": next(self.keys), "note": self.chance.choice(WORDS)}
        thread.metadata.append(metadata)
        await self.client.post(f"/threads/{thread.id}", {"metadata": metadata})
        thread.metadata = [metadata]

    async def delete_message(self):
        thread, id = self.threads[-1], await self.add_message()
        thread.attempted_deletions.add(id)
        await self.client.request("DELETE", f"/threads/{thread.id}/messages/{id}")
        thread.deleted_messages.add(id)
        del thread.messages[id]

    async def delete_thread(self):
        thread = self.threads[-1]
        thread.is_deleted = None
        await self.client.request("DELETE", f"/threads/{thread.id}")
        thread.is_deleted = True
        self.leave_thread()

    async def ask(self, model, key=None):
        """Adds the prompt of a run; returns the thread and the body that starts the run."""
        await self.add_message(self.prompt(key))
        return self.threads[-1], {"assistant_id": self.world.assistants[model]}

    async def run_polled(self, model, key=None):
        thread, body = await self.ask(model, key)
        created = await self.client.post(f"/threads/{thread.id}/runs", body)
        thread.runs[created["id"]] = run = Run()
        path = f"/threads/{thread.id}/runs/{created['id']}"
        found = await self.poll(path)
        if found["status"] == "requires_action":
            await self.client.post(f"{path}/submit_tool_outputs", outputs_for(found))
            found = await self.poll(path)
        run.status = found["status"]
        return thread, created["id"]

    async def poll(self, path):
        """Polls a run, or a file of the store, until it is terminal or waits for outputs."""
        deadline, pause = time.monotonic() + REQUEST_LIMIT, 0.03
        while True:
            found = await self.client.get(path)
            if found is None:
                self.ledger.expect(False, f"{path} is lost")
                raise Unacknowledged(path)
            if found["status"] in TERMINAL or found["status"] == "requires_action":
                return found
            if time.monotonic() > deadline:
                self.journal.stuck[path] = f"{path}: {found['status']} for {REQUEST_LIMIT} s"
                raise Unacknowledged(path)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    async def run_code(self):
        """The file that the code writes enters the ledger with the contents that it must have."""
        thread, run_id = await self.run_polled("coder")
        # A thread that is lost has no list; the comparison reports it.
        for message in await self.client.pages(f"/threads/{thread.id}/messages") or []:
            if message["run_id"] != run_id:
                continue
            digest = text_of(message).partition(":")[0].removeprefix("Digest ")
            links = [link for part in message["content"] for link in part["text"]["annotations"]]
            self.ledger.expect(len(links) == 1, f"{run_id} links {len(links)} files: {message}")
            for link in links:
                self.ledger.files.append(File(link["file_path"]["file_id"], digest.encode()))

    async def run_search(self):
        if self.ledger.searchable:
            await self.run_polled("searcher", self.chance.choice(self.ledger.searchable))

    async def run_streamed(self, *models):
        thread, body = await self.ask(self.chance.choice(models))
        waiting = await self.follow(thread, f"/threads/{thread.id}/runs", body)
        if waiting:
            path = f"/threads/{thread.id}/runs/{waiting['id']}/submit_tool_outputs"
            await self.follow(thread, path, outputs_for(waiting))

    async def follow(self, thread, path, body):
        """Reads a stream and enters what its events acknowledge. Returns the run if it waits for
        tool outputs."""
        waiting, last, deltas = None, None, collections.defaultdict(str)
        async with contextlib.aclosing(self.client.events(path, body | {"stream": True})) as events:
            async for last, data in events:
                if last == "thread.run.created":
                    thread.runs[data["id"]] = Run()
                elif last == "thread.message.delta":
                    deltas[data["id"]] += text_of(data["delta"])
                elif last == "thread.message.completed":
                    text = thread.runs[data["run_id"]].texts[data["id"]] = text_of(data)
                    streamed = deltas[data["id"]]
                    self.ledger.expect(streamed == text,
                                       f"{data['id']} streamed {streamed!r}, and is {text!r}")
                elif last == "thread.run.step.completed":
                    thread.runs[data["run_id"]].steps.add(data["id"])
                elif last == "thread.run.requires_action":
                    waiting = data
                elif last.removeprefix("thread.run.") in TERMINAL:
                    thread.runs[data["id"]].status = data["status"]
                elif last == "error":
                    self.journal.add_error(f"{label_of('POST', path)}: {json.dumps(data)[:200]}")
                    raise Unacknowledged(path)
        if not waiting and (last or "").removeprefix("thread.run.") not in TERMINAL:
            self.journal.add_error(f"{label_of('POST', path)}: the stream ended after {last}")
            raise Unacknowledged(path)
        return waiting

    async def upload(self):
        """Uploads a file and indexes it. A third is deleted at once; searches know the others."""
        key = next(self.keys)
        words = self.chance.choices(WORDS, k=self.chance.randint(30, 400))
        content = " ".join([key, *words, key]).encode()
        form = (f'--soak\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
                f'--soak\r\ncontent-disposition: form-data; name="file"; filename="{key}.txt"\r\n'
                f'content-type: text/plain\r\n\r\n').encode() + content + b"\r\n--soak--\r\n"
        content_type = "multipart/form-data; boundary=soak"
        created = json.loads(await self.client.request("POST", "/files", form, content_type))
        file = File(created["id"], content)
        self.ledger.files.append(file)
        store = f"/vector_stores/{self.world.store}/files"
        await self.client.post(store, {"file_id": file.id})
        entry = await self.poll(f"{store}/{file.id}")
        if entry["status"] != "completed":
            self.journal.unsuccessful[file.id] = f"{file.id} was not indexed: {entry}"
            return
        file.is_indexed = True
        if self.chance.random() < 1 / 3:
            file.is_deleted = None
            await self.client.request("DELETE", f"/files/{file.id}")
            file.is_deleted = True
        else:
            self.ledger.searchable.append(key)


def outputs_for(run):
    calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    output = tool_output_of(run["id"])
    return {"tool_outputs": [{"tool_call_id": call["id"], "output": output} for call in calls]}
