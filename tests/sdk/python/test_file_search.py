"""Documents are indexed, searched, quoted and cited."""

import asyncio
from types import SimpleNamespace

import pytest
from openai import NotFoundError

from dual import collect, got, opened
from test_streams import recorder

SEARCH = {"type": "file_search"}
CONTENT = ["step_details.tool_calls[*].file_search.results[*].content"]
DOCUMENTS = {
    "policy.md": "# Refunds\n\nGoods may be returned within 30 days. After that, store credit is given.\n\n"
    "# Shipping\n\nParcels leave the warehouse in Hamburg every weekday at 17:00.\n",
    "errors.txt": "ERR-4711 means that the printer is out of paper.\nERR-4712 means that it is on fire.\n",
    "cat.html": "<html><head><title>Cat</title></head><body><p>The office cat is called Miso.</p></body></html>",
}


@pytest.fixture
def library(stores):
    """Creates a store of indexed documents; returns its id and the ids of its files by name."""

    async def make(documents=DOCUMENTS):
        store = await got(stores.create(name="Library"))
        files = [(name, text.encode()) for name, text in documents.items()]
        batch = await got(stores.file_batches.upload_and_poll(store.id, files=files))
        assert (batch.status, batch.file_counts.completed) == ("completed", len(documents))
        files = {}
        for file in await collect(stores.files.list(store.id)):
            files[(await got(stores._client.files.retrieve(file.id))).filename] = file.id
        return SimpleNamespace(id=store.id, files=files)

    return make


@pytest.fixture
def found(client, stores):
    """The raw search results; the first versions of the SDK have no method for searches."""

    async def search(store, query, **more):
        if hasattr(stores, "search"):
            page = await got(stores.search(store, query=query, **more))
            return page.to_dict() | {"data": [result.to_dict() for result in page.data]}
        body = {"query": query} | more
        return await got(client.post(f"/vector_stores/{store}/search", body=body, cast_to=object))

    return search


@pytest.fixture
def names(found):
    async def search(store, query, **more):
        return [result["filename"] for result in (await found(store, query, **more))["data"]]

    return search


@pytest.fixture
def librarian(client):
    """Creates an assistant that searches this store, and a thread with a question."""

    async def make(question, store=None, tool=SEARCH, **thread):
        resources = {"file_search": {"vector_store_ids": [store]}} if store else {}
        assistant = await got(
            client.beta.assistants.create(model="gpt-4o", tools=[tool], tool_resources=resources)
        )
        message = {"role": "user", "content": question} | thread.pop("message", {})
        made = await got(client.beta.threads.create(messages=[message], **thread))
        return {"assistant_id": assistant.id, "thread_id": made.id}

    return make


@pytest.fixture
def outcome(client):
    """Runs a thread; returns the text of its newest message and the run."""

    async def run(both, **more):
        run = await got(client.beta.threads.runs.create_and_poll(**both, **more))
        assert run.status == "completed", run
        page = await got(client.beta.threads.messages.list(run.thread_id, limit=1))
        return page.data[0].content[0].text, run

    return run


def cited(text):
    """The cited files, with each marker's position checked."""
    for annotation in text.annotations:
        assert annotation.type == "file_citation"
        assert text.value[annotation.start_index : annotation.end_index] == annotation.text
    return [(annotation.text, annotation.file_citation.file_id) for annotation in text.annotations]


async def searches(client, run, **more):
    """The run's searches, from its steps."""
    steps = await collect(
        client.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc", **more)
    )
    assert [step.type for step in steps] == ["tool_calls", "message_creation"]
    return steps[0].id, [call.file_search for call in steps[0].step_details.tool_calls]


async def test_a_question_is_answered_with_a_citation(client, library, librarian, outcome):
    store = await library()
    text, run = await outcome(await librarian("May goods be returned?", store.id))
    assert "“Goods may be returned within 30 days. After that, store credit is given.”【4:0†policy.md】" in text.value
    assert cited(text) == [("【4:0†policy.md】", store.files["policy.md"])]
    _, (search,) = await searches(client, run)
    assert (search.ranking_options.ranker, search.ranking_options.score_threshold) == ("default_2024_08_21", 0)
    first = search.results[0]
    assert (first.file_id, first.file_name) == (store.files["policy.md"], "policy.md")
    scores = [result.score for result in search.results]
    assert scores == sorted(scores, reverse=True) and 0 < scores[0] <= 1
    assert "Goods" not in search.results[0].to_json()


async def test_a_streamed_answer_has_its_citation_in_one_piece(client, library, librarian, mode):
    store = await library()
    both = await librarian("What is the cat called?", store.id)
    handler = recorder(mode)
    async with opened(client.beta.threads.runs.stream(**both, event_handler=handler)) as stream:
        await got(stream.until_done())
        run = await got(stream.get_final_run())
        (message,) = await got(stream.get_final_messages())
    assert run.status == "completed"
    assert message == await got(client.beta.threads.messages.retrieve(message.id, thread_id=run.thread_id))
    assert cited(message.content[0].text) == [("【4:0†cat.html】", store.files["cat.html"])]

    called = {name: [values for called, values in handler.calls if called == name] for name, _ in handler.calls}
    assert [call.type for (call,) in called["on_tool_call_created"]] == ["file_search"]
    deltas = [delta for delta, _ in called["on_text_delta"]]
    assert "".join(delta.value for delta in deltas) == message.content[0].text.value
    (marked,) = [delta for delta in deltas if delta.annotations]
    assert marked.value == marked.annotations[0].text == "【4:0†cat.html】"


async def test_contents_of_results_come_only_when_they_are_asked_for(client, library, librarian):
    store = await library()
    both = await librarian("What does ERR-4712 mean?", store.id)
    events = await collect(client.beta.threads.runs.create(**both, stream=True, include=CONTENT))
    (step,) = [
        event.data
        for event in events
        if event.event == "thread.run.step.completed" and event.data.type == "tool_calls"
    ]
    (begun,) = [event.data for event in events if event.event == "thread.run.step.delta"]
    assert begun.delta.step_details.tool_calls[0].file_search["results"] == []
    streamed = step.step_details.tool_calls[0].file_search.results
    assert streamed[0].file_name == "errors.txt" and "on fire" in streamed[0].content[0].text
    run = events[-1].data
    at = {"run_id": run.id, "thread_id": run.thread_id}
    step_id, (listed,) = await searches(client, run, include=CONTENT)
    assert [result.to_dict() for result in listed.results] == [result.to_dict() for result in streamed]
    read = await got(client.beta.threads.runs.steps.retrieve(step_id, **at, include=CONTENT))
    assert read.step_details.tool_calls[0].file_search.results[0].content[0].text == streamed[0].content[0].text
    plain = await got(client.beta.threads.runs.steps.retrieve(step_id, **at))
    assert all(result.content is None for result in plain.step_details.tool_calls[0].file_search.results)

    again = await collect(client.beta.threads.runs.create(**both, stream=True))
    assert not any("on fire" in event.to_json() for event in again if event.event == "thread.run.step.completed")


async def test_later_searches_of_a_thread_are_numbered_on(client, library, librarian, outcome):
    store = await library()
    both = await librarian("What does ERR-4711 mean?", store.id)
    text, _ = await outcome(both)
    assert cited(text) == [("【4:0†errors.txt】", store.files["errors.txt"])]
    more = [{"role": "user", "content": "When do parcels leave?"}]
    text, _ = await outcome(both, additional_messages=more)
    assert cited(text) == [("【5:0†policy.md】", store.files["policy.md"])]


async def test_the_stores_of_assistant_and_thread_are_both_searched(client, library, librarian, outcome):
    ours = await library()
    theirs = await library({"dog.txt": "The dog of the porter bites interns."})
    question = "What is the cat called, and whom does the dog of the porter bite?"
    resources = {"file_search": {"vector_store_ids": [theirs.id]}}
    text, run = await outcome(await librarian(question, ours.id, tool_resources=resources))
    assert {file for _, file in cited(text)} == {ours.files["cat.html"], theirs.files["dog.txt"]}
    _, (search,) = await searches(client, run)
    assert {result.file_name for result in search.results} == {*DOCUMENTS, "dog.txt"}


async def test_an_attached_file_is_searched_once_it_is_indexed(client, librarian, outcome):
    text = "Invoices are paid within ten days. The cashier is in room 12."
    file = await got(client.files.create(file=("bills.txt", text.encode()), purpose="assistants"))
    message = {"attachments": [{"file_id": file.id, "tools": [SEARCH]}]}
    said, _ = await outcome(await librarian("In which room is the cashier?", message=message))
    assert cited(said) == [("【4:0†bills.txt】", file.id)]


async def test_nothing_to_be_found_is_said(client, stores, librarian, outcome):
    store = await got(stores.create())
    text, run = await outcome(await librarian("What is the meaning of it?", store.id))
    assert "nothing in them fits" in text.value and text.annotations == []
    _, (search,) = await searches(client, run)
    assert search.results == []


async def test_talk_needs_no_search_unless_it_is_demanded(client, library, librarian, outcome):
    store = await library()
    both = await librarian("Hello!", store.id)
    text, run = await outcome(both)
    assert text.value.startswith("Hello! I am assistd's scripted model.") and text.annotations == []
    _, run = await outcome(both, tool_choice=SEARCH)
    _, (search,) = await searches(client, run)
    assert len(search.results) == len(DOCUMENTS)


async def test_the_tools_settings_limit_the_results(client, library, librarian, outcome):
    store = await library()
    few = SEARCH | {"file_search": {"max_num_results": 1}}
    _, run = await outcome(await librarian("What is the cat called?", store.id, few))
    _, (search,) = await searches(client, run)
    assert [result.file_name for result in search.results] == ["cat.html"]
    strict = SEARCH | {"file_search": {"ranking_options": {"ranker": "auto", "score_threshold": 1.0}}}
    text, run = await outcome(await librarian("Quo vadis?", store.id, strict))
    _, (search,) = await searches(client, run)
    assert (search.ranking_options.score_threshold, search.results) == (1, [])


async def test_words_and_meaning_find_their_passages(library, found, names):
    store = await library()
    assert (await names(store.id, "ERR-4711"))[0] == "errors.txt"
    assert (await names(store.id, "our feline colleague"))[0] == "cat.html"
    page = await found(store.id, ["return of goods", "ERR-4712"], max_num_results=2)
    assert page["object"] == "vector_store.search_results.page"
    assert page["search_query"] == ["return of goods", "ERR-4712"]
    assert {result["filename"] for result in page["data"]} == {"policy.md", "errors.txt"}
    scores = [result["score"] for result in page["data"]]
    assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)
    assert "on fire" in "".join(part["text"] for result in page["data"] for part in result["content"])
    rewritten = await found(store.id, "Please tell me about the cat?", rewrite_query=True)
    assert rewritten["search_query"] == ["the cat"]
    strict = {"ranking_options": {"ranker": "auto", "score_threshold": 1.0}}
    assert await names(store.id, "Quo vadis?", **strict) == []
    words = {"ranking_options": {"hybrid_search": {"embedding_weight": 0, "text_weight": 1}}}
    assert await names(store.id, "our feline colleague", **words) == []
    meaning = {"ranking_options": {"hybrid_search": {"embedding_weight": 1, "text_weight": 0}}}
    assert (await names(store.id, "our feline colleague", **meaning))[0] == "cat.html"


def compare(key, operator, value):
    return {"type": operator, "key": key, "value": value}


FILTERS = [
    (compare("lang", "eq", "de"), "ac"),
    (compare("lang", "ne", "de"), "bd"),
    (compare("year", "gt", 2021), "cd"),
    (compare("year", "gte", 2021), "bcd"),
    (compare("year", "lt", 2021), "a"),
    (compare("year", "lte", 2021), "ab"),
    (compare("draft", "eq", True), "b"),
    (compare("lang", "in", ["de", "fr"]), "acd"),
    (compare("year", "nin", [2020, 2023]), "bc"),
    ({"type": "and", "filters": [compare("lang", "eq", "de"), compare("year", "gte", 2022)]}, "c"),
    ({"type": "or", "filters": [compare("draft", "eq", True), compare("year", "eq", 2020)]}, "ab"),
    (compare("year", "eq", "2020"), ""),
]


async def test_searches_are_filtered_by_attributes(client, stores, names):
    store = await got(stores.create())
    kept = {
        "a": {"lang": "de", "year": 2020, "draft": False},
        "b": {"lang": "en", "year": 2021, "draft": True},
        "c": {"lang": "de", "year": 2022, "draft": False},
        "d": {"lang": "fr", "year": 2023, "draft": False},
    }
    files = []
    for name, attributes in kept.items():
        text = f"Report {name} about turtles."
        file = await got(client.files.create(file=(f"{name}.txt", text.encode()), purpose="assistants"))
        files.append({"file_id": file.id, "attributes": attributes})
    # Only later versions have this parameter.
    batch = await got(stores.file_batches.create(store.id, file_ids=[], extra_body={"file_ids": None, "files": files}))
    batch = await got(stores.file_batches.poll(batch.id, vector_store_id=store.id))
    assert batch.file_counts.completed == 4
    for filters, expected in FILTERS:
        matching = await names(store.id, "turtles", filters=filters)
        assert "".join(sorted(name[0] for name in matching)) == expected, filters

    change = {"attributes": {"lang": "la"}}
    path = f"/vector_stores/{store.id}/files/{files[3]['file_id']}"
    if hasattr(stores.files, "update"):
        await got(stores.files.update(files[3]["file_id"], vector_store_id=store.id, **change))
    else:
        await got(client.post(path, body=change, cast_to=object))
    assert await names(store.id, "turtles", filters=compare("lang", "eq", "la")) == ["d.txt"]
    assert await names(store.id, "turtles", filters=compare("year", "eq", 2023)) == []


async def test_files_that_are_gone_are_not_found(client, stores, library, names):
    store = await library()
    assert "cat.html" in await names(store.id, "cat")
    await got(stores.files.delete(store.files["cat.html"], vector_store_id=store.id))
    assert "cat.html" not in await names(store.id, "cat")
    await got(client.files.delete(store.files["errors.txt"]))
    assert await names(store.id, "ERR-4711") == ["policy.md"]
    await got(stores.delete(store.id))
    with pytest.raises(NotFoundError):
        await names(store.id, "cat")


async def test_only_what_was_indexed_of_a_cancelled_batch_is_found(client, stores, names):
    store = await got(stores.create())
    texts = {f"{n}.txt": f"The answer of number {n} is {n * n}." for n in range(10)}
    files = [
        (await got(client.files.create(file=(name, text.encode()), purpose="assistants"))).id
        for name, text in texts.items()
    ]
    batch = await got(stores.file_batches.create(store.id, file_ids=files))
    batch = await got(stores.file_batches.cancel(batch.id, vector_store_id=store.id))
    await asyncio.sleep(0.5)
    matching = await names(store.id, "the answer of a number", max_num_results=50)
    assert len(matching) == batch.file_counts.completed


async def test_one_file_is_uploaded_indexed_and_read(client, stores, found):
    store = await got(stores.create())
    file = await got(stores.files.upload_and_poll(vector_store_id=store.id, file=("cat.html", DOCUMENTS["cat.html"].encode())))
    assert (file.status, file.last_error) == ("completed", None) and file.usage_bytes > 0
    path = f"/vector_stores/{store.id}/files/{file.id}/content"
    (piece,) = (await got(client.get(path, cast_to=object)))["data"]
    assert piece["type"] == "text" and "The office cat is called Miso." in piece["text"] and "<p>" not in piece["text"]
    (result,) = (await found(store.id, "cat"))["data"]
    assert result["content"] == [{"type": "text", "text": piece["text"]}]


async def test_a_file_that_is_no_document_fails_and_spoils_nothing(stores, names):
    store = await got(stores.create())
    files = [("noise.bin", bytes(range(256)) * 10), ("broken.pdf", b"%PDF-1.7\nnot really"), ("fine.txt", b"Fine.")]
    batch = await got(stores.file_batches.upload_and_poll(store.id, files=files))
    assert (batch.status, batch.file_counts.failed, batch.file_counts.completed) == ("completed", 2, 1)
    failed = await collect(stores.files.list(store.id, filter="failed"))
    assert {file.last_error.code for file in failed} <= {"unsupported_file", "invalid_file"}
    assert await names(store.id, "fine") == ["fine.txt"]
