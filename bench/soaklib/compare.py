"""Compares the server's objects with the ledger."""

import collections
import re

from .client import Refused

# Only one file has the searched key. Lexical search outweighs scripted embeddings, which are similar
# by chance, so that file must be the first hit.
RANKING = {"score_threshold": 0.0, "hybrid_search": {"embedding_weight": 0.5, "text_weight": 1.0}}
TERMINAL = {"completed", "failed", "cancelled", "expired", "incomplete"}


def text_of(message):
    parts = (part for part in message["content"] if part["type"] == "text")
    return "".join(part["text"]["value"] for part in parts)


def tool_output_of(run_id):
    """The output that callers submit. It follows from the id, so the ledger need not store it."""
    return f"rain {run_id[-8:]}"


def expected_texts(model, prompt, run_id):
    """The texts of all messages that a completed run must have written, in order."""
    found = re.search(r"key (\w+)", prompt)
    key = found[1] if found else "0"
    match model:
        case "function_caller":
            return ["Let me look.", f"It is {tool_output_of(run_id)}."]
        case "coder":
            return [f"Digest {int(key, 16) % 1000003}: sandbox:/mnt/data/{key}.txt"]
        case "searcher":
            return [f"Found {key}.txt."]
    return [f"Echo: {prompt}"]


class Comparison:
    """Compares with one ledger. `is_final` says that the load is over: then every run must be
    terminal or wait for a caller that has left, and steps are compared as well."""

    def __init__(self, world, client, is_final):
        self.ledger, self.journal = world.ledger, world.journal
        self.models, self.store = world.models, world.store
        self.client, self.is_final = client, is_final

    async def thread(self, thread):
        found = await self.client.get(f"/threads/{thread.id}")
        self.ledger.read_back["threads"] += 1
        messages = runs = None
        if found is not None:
            # Runs first: a run that is listed as completed has all its messages by then.
            runs = await self.client.pages(f"/threads/{thread.id}/runs")
            messages = await self.client.pages(f"/threads/{thread.id}/messages")
        if messages is None or runs is None:
            self.ledger.expect(thread.is_deleted is not False, f"{thread.id} is lost")
            return
        self.ledger.expect(thread.is_deleted is not True, f"{thread.id} exists after its deletion")
        self.ledger.expect(
            found["metadata"] in thread.metadata,
            f"{thread.id} has the metadata {found['metadata']}, not one of {thread.metadata}")
        self._messages(thread, messages)
        await self._runs(thread, runs, messages)

    def _messages(self, thread, messages):
        """Every acknowledged message must exist, unchanged and in order, and every attempted one
        at most once."""
        expect, found = self.ledger.expect, {message["id"]: message for message in messages}
        expect(len(found) == len(messages), f"{thread.id} lists a message twice")
        for id, text in thread.messages.items():
            actual = text_of(found[id]) if id in found else None
            may_be_gone = actual is None and id in thread.attempted_deletions
            expect(may_be_gone or actual == text, f"{thread.id}: {id} is {actual!r}, not {text!r}")
        undeleted = thread.deleted_messages & found.keys()
        expect(not undeleted, f"{thread.id}: {undeleted} exist after their deletion")
        order = [id for id in found if id in thread.messages]
        expect(order == [id for id in thread.messages if id in found],
               f"{thread.id} has its messages in another order")
        others = [text_of(message) for id, message in found.items()
                  if message["role"] == "user" and id not in thread.messages]
        expect(set(others) <= thread.attempted_texts and len(set(others)) == len(others),
               f"{thread.id} has messages that nobody sent, or twice: {others}")
        self.ledger.read_back["messages"] += len(thread.messages)

    async def _runs(self, thread, runs, messages):
        expect, listed = self.ledger.expect, {run["id"] for run in runs}
        lost, unknown = thread.runs.keys() - listed, listed - thread.runs.keys()
        expect(not lost, f"{thread.id} has lost the runs {lost}")
        expect(len(unknown) <= thread.is_uncertain, f"{thread.id} has unknown runs {unknown}")
        answers, prompts, prompt = collections.defaultdict(list), {}, ""
        for message in messages:
            if message["role"] == "user":
                prompt = text_of(message)
            else:
                answers[message["run_id"]].append(message)
                prompts.setdefault(message["run_id"], prompt)
        for run in runs:
            self._run(thread, run, answers[run["id"]], prompts.get(run["id"], prompt))
            known = thread.runs.get(run["id"])
            if self.is_final and known and known.steps:
                path = f"/threads/{thread.id}/runs/{run['id']}/steps"
                steps = await self.client.pages(path) or []
                completed = {step["id"] for step in steps if step["status"] == "completed"}
                lost = known.steps - completed
                expect(not lost, f"{run['id']} has lost the completed steps {lost}")
                self.ledger.read_back["steps"] += len(known.steps)

    def _run(self, thread, run, answers, prompt):
        id, status, model = run["id"], run["status"], self.models[run["assistant_id"]]
        self.ledger.read_back["runs"] += 1
        if known := thread.runs.get(id):
            self.ledger.expect(known.status in (None, status),
                               f"{id} is {status}, and was acknowledged as {known.status}")
            actual = {answer["id"]: text_of(answer) for answer in answers}
            for answer, text in known.texts.items():
                self.ledger.expect(actual.get(answer) == text,
                                   f"{id}: {answer} is {actual.get(answer)!r}, not {text!r}")
        texts = [text_of(answer) for answer in answers if answer["status"] == "completed"]
        expected = expected_texts(model, prompt, id)
        right = expected if status == "completed" else expected[:len(texts)]
        if status in ("completed", "requires_action") or status not in TERMINAL:
            self.ledger.expect(texts == right, f"{id} ({model}, {status}): {texts}, not {right}")
        else:
            reason = run["last_error"] or run["incomplete_details"]
            self.journal.unsuccessful[id] = f"{id} ({model}) is {status}: {reason}; {texts}"
        # A caller that has left does not submit outputs; no other caller leaves a run behind.
        is_waiting = status == "requires_action" and thread.is_uncertain
        if self.is_final and status not in TERMINAL and not is_waiting:
            self.journal.stuck[id] = f"{id} ({model}) is still {status}"

    async def accepts_message(self, thread):
        """An abandoned request must leave no lock behind: its thread must accept a message unless
        a run of it waits for outputs. The client is one that abandons nothing."""
        text = "Does this thread accept a message?"
        # Another reader may be comparing the thread at this moment.
        thread.attempted_texts.add(text)
        try:
            message = {"role": "user", "content": text}
            await self.client.post(f"/threads/{thread.id}/messages", message)
        except Refused as error:
            runs = await self.client.pages(f"/threads/{thread.id}/runs")
            waits = runs is None or any(run["status"] == "requires_action" for run in runs)
            self.ledger.expect(waits, f"{thread.id} is locked: {error}")

    async def file(self, file):
        content = await self.client.fetch(f"/files/{file.id}/content")
        self.ledger.read_back["files"] += 1
        if content is None:
            self.ledger.expect(file.is_deleted is not False, f"{file.id} is lost")
        else:
            self.ledger.expect(file.is_deleted is not True, f"{file.id} exists after its deletion")
            self.ledger.expect(content == file.content, f"{file.id} has the contents {content!r}")
        if file.is_indexed:
            entry = await self.client.get(f"/vector_stores/{self.store}/files/{file.id}")
            status = entry and entry["status"]
            right = {False: ["completed"], None: ["completed", None], True: [None]}
            self.ledger.expect(status in right[file.is_deleted],
                               f"{file.id} (deleted: {file.is_deleted}) is {status} in the store")

    async def search(self, key):
        path = f"/vector_stores/{self.store}/search"
        found = await self.client.post(path, {"query": key, "ranking_options": RANKING})
        names = [hit["filename"] for hit in found["data"]]
        self.ledger.expect(names[:1] == [f"{key}.txt"], f"a search for {key} finds {names[:3]}")
        self.ledger.read_back["searches"] += 1
